"""A machine with one fake GPU and a fake TensorRT, on which the two engines are loaded and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import expected_probability
from fake_cuda_for_tests import FakeCuda
from fake_driver_for_tests import FakeDriver
from tensorrt_for_tests import Behaviour, fake_library

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import cuda_driver, tensorrt_engine
from melanoma_infer.engines import device as device_module
from melanoma_infer.engines.tensorrt_api import Api, new_logger
from melanoma_infer.engines.tensorrt_engine import TensorRTEngine, load_with

SIDE = 64


@dataclass
class Machine:
    """A machine with fake GPUs."""

    gpu: FakeCuda
    driver: FakeDriver
    behaviour: Behaviour
    api: Api

    def load(self, bundle: Bundle, **options: Any) -> TensorRTEngine:
        precision, device = options.pop("precision", "fp32"), options.pop("device", None)
        return load_with(self.api.name, bundle, precision, device, **{"engine_file": None, **options})


def machine_maker(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Callable[..., Machine]:
    """Creates machines with a driver, the bindings and their own cache."""
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setenv("MMINFER_CACHE", str(cache))

    def make(name: str = "tensorrt-rtx", **gpu: Any) -> Machine:
        cuda = FakeCuda(**gpu)
        behaviour = Behaviour(cuda)
        library = fake_library(behaviour, rtx=name == "tensorrt-rtx", outputs={"probabilities": (2,)}, tile_px=SIDE)
        api = Api(name, library, new_logger(library))
        monkeypatch.setattr(tensorrt_engine, "import_api", lambda wanted: api)
        monkeypatch.setattr(tensorrt_engine, "import_cuda", lambda: cuda)
        driver = FakeDriver(cuda)
        monkeypatch.setattr(cuda_driver, "load_driver", lambda: driver)
        return Machine(cuda, driver, behaviour, api)

    return make


def some_tiles(count: int, seed: int = 0) -> np.ndarray:
    """Tiles of various greys (N, 64, 64, 3), so that each has a different probability."""
    random = np.random.default_rng(seed)
    greys = random.integers(120, 240, (count, 1, 1, 1))
    return (greys + random.integers(-9, 10, (count, SIDE, SIDE, 3))).astype(np.uint8)


def assert_correct(engine: TensorRTEngine, tiles: np.ndarray, given: Any = None) -> None:
    """Assert that the engine computes the colour rule of `tiles`, which it gets as `given` if that is not None."""
    answer = engine.infer(tiles if given is None else given)["probabilities"]
    assert answer.dtype == np.float32
    assert answer.shape == (len(tiles), 2)
    assert np.array_equal(answer[:, 1], expected_probability(tiles).astype(np.float32))
