"""Engine files of TensorRT and TensorRT-RTX on a fake GPU: given by the user, cached, or built."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bundles_for_tests import colour_rule_graph, make_bundle
from tensorrt_machine_for_tests import SIDE, assert_correct, some_tiles

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.engine_file import manifest_path
from melanoma_infer.engines.tensorrt_engine import CACHE
from melanoma_infer.errors import BundleError, EngineUnavailableError, UsageError


def cached_engines() -> list[Path]:
    return sorted((Path(os.environ["MMINFER_CACHE"]) / CACHE).glob("*.engine"))


def test_an_engine_is_built_once_and_cached(machine, bundle):
    for _ in range(2):
        assert_correct(machine.load(bundle), some_tiles(2))
    assert len(machine.behaviour.built_on) == 1
    assert len(cached_engines()) == 1


@pytest.mark.parametrize("damaged", ["engine", "manifest", "no manifest"])
def test_a_damaged_engine_in_the_cache_is_built_again(machine, bundle, damaged):
    machine.load(bundle)
    (engine,) = cached_engines()
    whole = engine.read_bytes()
    if damaged == "no manifest":
        manifest_path(engine).unlink()
    else:
        flip_a_byte(engine if damaged == "engine" else manifest_path(engine))
    machine.load(bundle)
    assert len(machine.behaviour.built_on) == 2
    assert machine.behaviour.opened[-1] == cached_engines()[0].read_bytes()
    assert len(machine.behaviour.opened[-1]) == len(whole)


def test_an_intact_engine_of_another_model_in_the_cache_is_built_again(machine, bundle):
    machine.load(bundle)
    (engine,) = cached_engines()
    manifest = json.loads(manifest_path(engine).read_bytes())
    manifest["origin"]["onnx_sha256"] = "0" * 64
    manifest_path(engine).write_text(json.dumps(manifest))
    machine.load(bundle)
    assert len(machine.behaviour.built_on) == 2


def test_a_build_is_told_before_it_starts_and_a_cached_engine_tells_nothing(machine, bundle):
    told = []
    for _ in range(2):
        machine.load(bundle, tell=lambda text: told.append((text, list(machine.behaviour.built_on))))
    title, time = ("TensorRT", "minutes") if machine.api.name == "tensorrt" else ("TensorRT-RTX", "seconds")
    assert told == [(f"building the fp32 engine of {title} for RTX A4000, once: this takes {time}", [])]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_each_version_graph_and_gpu_has_its_own_engine(new_machine, bundle, tmp_path):
    new_machine("tensorrt-rtx").load(bundle)
    newer = new_machine("tensorrt-rtx")
    newer.api.trt.__version__ = "1.8"
    newer.load(bundle)
    new_machine("tensorrt-rtx", model=b"RTX 4090", target=(8, 9)).load(bundle)
    graph = colour_rule_graph(SIDE)
    graph.doc_string = "other bytes"
    new_machine("tensorrt-rtx").load(open_bundle(make_bundle(tmp_path / "other.mminfer", graph=graph)))
    assert len(cached_engines()) == 4


def test_the_timing_cache_is_reused_by_the_next_build(new_machine, bundle, tmp_path):
    machine = new_machine("tensorrt", model=b"Quadro RTX 6000/8000")
    machine.load(bundle)
    cached_engines()[0].unlink()
    machine.load(bundle)
    assert machine.behaviour.timings == [b"", b"timings"]


def test_an_engine_loads_without_a_writable_cache(machine, bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "file"))
    assert_correct(machine.load(bundle), some_tiles(2))


@pytest.fixture
def named(new_machine, bundle, tmp_path) -> Path:
    """An engine file of TensorRT-RTX for sm86, outside the cache."""
    new_machine("tensorrt-rtx").load(bundle)
    (engine,) = cached_engines()
    kept = tmp_path / "kept.engine"
    kept.write_bytes(engine.read_bytes())
    manifest_path(kept).write_bytes(manifest_path(engine).read_bytes())
    engine.unlink()
    return kept


def test_a_given_engine_file_is_used(new_machine, bundle, named):
    machine = new_machine("tensorrt-rtx")
    assert_correct(machine.load(bundle, engine_file=named), some_tiles(2))
    assert machine.behaviour.built_on == []
    assert machine.behaviour.opened == [named.read_bytes()]


def test_an_engine_file_with_one_byte_changed_is_exit_20_before_a_runtime_opens_it(new_machine, bundle, named):
    machine = new_machine("tensorrt-rtx")
    flip_a_byte(named)
    with pytest.raises(BundleError, match="SHA-256 differs") as caught:
        machine.load(bundle, engine_file=named)
    assert caught.value.exit_code == 20
    assert machine.behaviour.opened == []
    manifest_path(named).unlink()
    with pytest.raises(BundleError, match="manifest"):
        machine.load(bundle, engine_file=named)


def test_an_engine_file_of_another_model_is_exit_20(new_machine, named, tmp_path):
    graph = colour_rule_graph(SIDE)
    graph.doc_string = "other bytes"
    other = open_bundle(make_bundle(tmp_path / "other.mminfer", graph=graph))
    with pytest.raises(BundleError, match="not built from this bundle"):
        new_machine("tensorrt-rtx").load(other, engine_file=named)


@pytest.mark.parametrize(
    ("gpu", "version", "words"),
    [
        ({"target": (8, 9), "model": b"RTX 4090"}, "1.7.1.116", "RTX 4090"),
        ({}, "1.9", "TensorRT-RTX 1.9"),
    ],
)
def test_an_engine_file_for_another_gpu_or_version_is_exit_21(new_machine, bundle, named, gpu, version, words):
    machine = new_machine("tensorrt-rtx", **gpu)
    machine.api.trt.__version__ = version
    with pytest.raises(EngineUnavailableError, match=words):
        machine.load(bundle, engine_file=named)
    assert machine.behaviour.opened == []


def test_an_engine_without_weights_gets_the_bundle_s(new_machine, bundle, named):
    manifest = json.loads(manifest_path(named).read_bytes())
    manifest["origin"]["flags"].append("strip-weights")
    manifest_path(named).write_text(json.dumps(manifest))
    machine = new_machine("tensorrt-rtx")
    machine.load(bundle, engine_file=named)
    assert machine.behaviour.refitted == [bundle.graphs["fp32"]]


def test_an_engine_file_is_for_these_engines_only(bundle, named):
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, "openvino", engine_file=named)
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, engine_file=named)


def test_load_engine_takes_an_engine_file(new_machine, bundle, named):
    new_machine("tensorrt-rtx")
    assert load_engine(bundle, "tensorrt-rtx", engine_file=named).engine.numerics.engine == "tensorrt-rtx"
