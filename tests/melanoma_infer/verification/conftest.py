"""Bundles to verify, broken ones, and engines run in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_bundles_for_tests import small_bundle, uint8_graph
from bundles_for_tests import tampered

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.contents import PACKAGED
from melanoma_infer.verification import engine_child, in_child, verify
from melanoma_infer.verification.sample import drawn_sample


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The demo bundle, which has weights of our own network."""
    return PACKAGED / "demo.mminfer"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions, fp32 and int8 with UINT8 after each ReLU; no weights of ours."""
    folder = tmp_path_factory.mktemp("small")
    fp32 = small_bundle(folder / "fp32.mminfer")
    bundle = open_bundle(fp32)
    logging.disable(logging.WARNING)  # the quantiser's advice
    try:
        graph = uint8_graph(bundle, drawn_sample(bundle, 6).tiles[4:])
    finally:
        logging.disable(logging.NOTSET)
    return tampered(fp32, folder / "small.mminfer", "model.int8.onnx", graph)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., in_child.EngineAnswer]:
    """`run_engine` without a process of its own: the same child, called."""
    monkeypatch.setattr(in_child, "run_child", lambda _module, room, seconds: engine_child.main(room))
    return verify.run_engine
