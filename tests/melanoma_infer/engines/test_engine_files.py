"""Engine files of TensorRT and TensorRT-RTX on a fake GPU: given by the user, cached, or built."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bundles_for_tests import colour_rule_graph, make_bundle
from tensorrt_for_tests import KERNELS
from tensorrt_machine_for_tests import SIDE, assert_correct, some_tiles

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine, tensorrt_device
from melanoma_infer.engines.engine_file import manifest_path
from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.engines.slots import BUCKETS
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


def kept_kernels() -> list[Path]:
    return sorted((Path(os.environ["MMINFER_CACHE"]) / CACHE).glob("*.kernels"))


def test_kernels_are_compiled_once_for_each_batch_size_and_kept_for_the_next_process(new_machine, bundle):
    for compiled in (list(BUCKETS), []):
        machine = new_machine("tensorrt-rtx")
        assert golden_failure(bundle, machine.load(bundle)) is None
        assert sorted(machine.behaviour.compiled) == compiled
    assert [path.stem for path in kept_kernels()] == [path.stem for path in cached_engines()]


@pytest.mark.parametrize("damaged", [True, False], ids=["damaged", "another driver's"])
def test_kept_kernels_that_cannot_be_used_are_compiled_again_with_a_remark(new_machine, bundle, damaged):
    new_machine("tensorrt-rtx").load(bundle)
    (kept,) = kept_kernels()
    whole = kept.read_bytes()
    machine = new_machine("tensorrt-rtx")
    if damaged:
        kept.write_bytes(whole.replace(KERNELS, KERNELS.upper()))  # the library must not get it
    machine.behaviour.rejects_kernels = not damaged
    engine = machine.load(bundle)
    assert_correct(engine, some_tiles(1))
    assert machine.behaviour.compiled == [1]
    assert engine.remarks == ("the kernels in the cache are damaged or another driver's, and were compiled again",)
    assert kept.read_bytes() == whole
    machine.behaviour.rejects_kernels = False
    assert machine.load(bundle).remarks == ()


def test_an_engine_file_has_kernels_of_its_own_on_each_gpu(new_machine, bundle, named):
    for gpu in ({}, {"model": b"RTX A5000"}):
        machine = new_machine("tensorrt-rtx", **gpu)
        manifest = json.loads(manifest_path(named).read_bytes())
        manifest["origin"]["gpu"] = None  # as TensorRT-RTX builds on a machine without a GPU
        manifest_path(named).write_text(json.dumps(manifest))
        machine.load(bundle, engine_file=named)
        assert machine.behaviour.compiled == ([1] if gpu else [])  # `named` was loaded on the first GPU
    assert len(kept_kernels()) == 2


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


def test_an_engine_without_weights_gets_those_that_it_was_built_from(new_machine, bundle, named, monkeypatch):
    manifest = json.loads(manifest_path(named).read_bytes())
    manifest["origin"]["flags"].append("strip-weights")
    manifest_path(named).write_text(json.dumps(manifest))
    machine = new_machine("tensorrt-rtx")
    monkeypatch.setattr(tensorrt_device, "as_built", lambda graph, origin: graph + b" as built")
    machine.load(bundle, engine_file=named)
    assert machine.behaviour.refitted == [bundle.graphs["fp32"] + b" as built"]


def test_an_engine_file_is_for_these_engines_only(bundle, named):
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, "openvino", engine_file=named)
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, engine_file=named)


def test_load_engine_takes_an_engine_file(new_machine, bundle, named):
    new_machine("tensorrt-rtx")
    assert load_engine(bundle, "tensorrt-rtx", engine_file=named).engine.numerics.engine == "tensorrt-rtx"
