"""The cache: made on demand, written whole, read without trust."""

from __future__ import annotations

import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines.parity_table import MeasuredParity, engine_band, keep, measured
from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.cache import cache_folder, read_cached, write_cached


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def row_of(**changes) -> MeasuredParity:
    row = {
        "engine": "openvino", "precision": "fp32", "version": "1", "device": "cpu", "reference": "torch fp32",
        "on": "4 tiles", "tiles": 4, "slides": 0, "passed": True, "max_dp": 0.25, "max_dscore": 0.125,
    }  # fmt: skip
    return MeasuredParity.model_validate(row | changes)


def test_nothing_is_made_before_something_is_written(cache):
    assert cache_folder("parity") == cache / "parity"
    assert read_cached(cache / "parity" / "x") is None
    assert not cache.exists()


def test_what_is_written_is_there_whole_and_alone(cache):
    path = cache / "parity" / "x.json"
    for content in (b"one", b"another"):
        write_cached(path, content)
        assert read_cached(path) == content
    assert [each.name for each in path.parent.iterdir()] == ["x.json"]


def test_a_cache_that_cannot_be_written_says_what_to_set(cache):
    cache.write_text("a file")
    with pytest.raises(OutputError, match="MMINFER_CACHE"):
        write_cached(cache / "parity" / "x.json", b"")


def test_a_row_is_of_one_bundle_engine_precision_and_place(cache):
    bundle = open_bundle("demo")
    keep(bundle, row_of())
    assert measured(bundle, "openvino", "fp32") == row_of()
    assert measured(bundle, "openvino", "fp32", "cpu") == row_of()
    assert measured(bundle, "openvino", "fp32", "cuda:1") is None
    assert measured(bundle, "openvino", "bf16") is None
    assert measured(bundle, "onnxruntime", "fp32") is None


@pytest.mark.parametrize("changed", ["_version", "_machine"])
def test_another_runtime_or_machine_has_other_rows(cache, monkeypatch, changed):
    bundle = open_bundle("demo")
    keep(bundle, row_of())
    monkeypatch.setattr(f"melanoma_infer.engines.parity_table.{changed}", lambda *_: "another")
    assert measured(bundle, "openvino", "fp32") is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"engine": 7}', b"\xff"])
def test_a_damaged_row_is_as_if_it_were_not_there(cache, content):
    bundle = open_bundle("demo")
    keep(bundle, row_of())
    (path,) = (cache / "parity").iterdir()
    path.write_bytes(content)
    assert measured(bundle, "openvino", "fp32") is None


def test_the_band_is_twice_the_largest_that_was_seen_here_or_where_it_was_sealed(cache):
    bundle = open_bundle("demo")
    sealed = bundle.parity_of("openvino", "fp32")
    assert engine_band(bundle, "openvino", "fp32") == 2 * sealed.max_dp
    keep(bundle, row_of(max_dp=0.0, max_dscore=0.0))
    assert engine_band(bundle, "openvino", "fp32") == 2 * sealed.max_dp
    keep(bundle, row_of())
    assert engine_band(bundle, "openvino", "fp32") == 0.5
    keep(bundle, row_of(max_dscore=0.375))
    assert engine_band(bundle, "openvino", "fp32") == 0.75
    keep(bundle, row_of(max_dp=None, max_dscore=None, passed=False))
    assert engine_band(bundle, "openvino", "fp32") == 2.0
    assert engine_band(bundle, "tensorrt", "int8") == bundle.card.tolerance_of("int8").dp
    assert engine_band(bundle, "torch", "fp32") == 0.0
