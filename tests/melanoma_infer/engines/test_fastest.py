"""`--precision fastest` is measured: of the precisions that are proven and right here, the one with the least time."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import MODULES, load_engine
from melanoma_infer.engines.base import Numerics, OneAtATime
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.errors import EngineUnavailableError

module = import_module("melanoma_infer.engines.fastest")
LEFT_OUT = ("unavailable", "wrong")


class Drawn(OneAtATime):
    """An engine that gives the golden outputs, or others."""

    def __init__(self, bundle: Bundle, numerics: Numerics, shift: float) -> None:
        self.numerics, self._golden, self._shift = numerics, bundle.golden, shift

    def infer(self, tiles):
        places = [next(i for i, each in enumerate(self._golden.tiles) if np.array_equal(each, tile)) for tile in tiles]
        outputs = {name: values[places] for name, values in self._golden.outputs.items()}
        return {**outputs, "probabilities": outputs["probabilities"] + self._shift}


@pytest.fixture
def demo() -> Bundle:
    """Without parity."""
    return replace(open_bundle("demo"), parity=())


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """Lets an engine's module load drawn engines, with these seconds or a reason per precision, in a new cache."""
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path))
    asked: list[str] = []

    def arrange(engine: str, given: dict[str, float | str]) -> list[str]:
        def load(bundle, precision, *_, **__):
            asked.append(precision)
            if given[precision] == "unavailable":
                raise EngineUnavailableError("not here")
            return Drawn(bundle, Numerics(engine, "1", precision, "drawn"), 0.5 * (given[precision] == "wrong"))

        monkeypatch.setattr(import_module(MODULES[engine]), "load", load)
        monkeypatch.setattr(module, "seconds_per_tile", lambda _, engine: given[engine.numerics.precision] or 1e-9)
        return asked

    return arrange


def proven(bundle: Bundle, engine: str, **p999_dp: float) -> Bundle:
    row = open_bundle("demo").parity[0]
    rows = (
        row.model_copy(update={"engine": engine, "precision": precision, "p999_dp": value, "decision_flips": 0})
        for precision, value in p999_dp.items()
    )
    return replace(bundle, parity=tuple(rows))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"int8": 0.2, "fp16": 0.1, "fp32": 0.3}, "fp16"),
        ({"int8": 0.1, "fp16": 0.2, "fp32": 0.3}, "int8"),
        ({"int8": 0.3, "fp16": 0.3, "fp32": 0.2}, "fp32"),
        ({"int8": "unavailable", "fp16": 0.2, "fp32": 0.3}, "fp16"),
        ({"int8": "wrong", "fp16": 0.2, "fp32": 0.3}, "fp16"),
        ({"int8": "wrong", "fp16": "unavailable", "fp32": 0.3}, "fp32"),
    ],
)
@pytest.mark.parametrize("engine", ["tensorrt", "triton", "openvino"])
def test_the_least_time_counts_of_those_that_are_right(demo, loaded, engine, given, taken):
    asked = loaded(engine, given)
    bundle = proven(demo, engine, int8=0.0, fp16=0.0)
    assert load_engine(bundle, engine, precision="fastest").engine.numerics.precision == taken
    assert set(asked) == {"int8", "fp16", "fp32"}
    # The second time, what was timed is known, and what was left out is tried again.
    del asked[:]
    told: list[str] = []
    assert load_engine(bundle, engine, precision="fastest", tell=told.append).engine.numerics.precision == taken
    again = [precision for precision, seconds in given.items() if seconds in LEFT_OUT]
    assert sorted(asked) == sorted([*again, taken])
    assert len(told) == len(again)


def test_what_is_not_proven_is_not_timed(demo, loaded):
    asked = loaded("triton", {"fp16": 0.1, "fp32": 0.3})
    load_engine(demo, "triton", precision="fastest")
    assert asked == ["fp32"]
    tolerance = demo.card.tolerance_of("fp16").dp
    del asked[:]
    load_engine(proven(demo, "triton", fp16=1.2 * tolerance), "triton", precision="fastest")
    assert asked == ["fp32"]


def test_a_damaged_time_is_measured_again(demo, loaded, tmp_path):
    given: dict[str, float | str] = {"fp16": 0.1, "fp32": 0.3}
    loaded("triton", given)
    bundle = proven(demo, "triton", fp16=0.0)
    load_engine(bundle, "triton", precision="fastest")
    files = sorted((tmp_path / module.KIND).iterdir())
    assert sorted(float(file.read_bytes()) for file in files) == [0.1, 0.3]
    for file in files:
        file.write_bytes(b"half a num")
    given.update(fp16=0.4)
    assert load_engine(bundle, "triton", precision="fastest").engine.numerics.precision == "fp32"


def test_a_real_engine_is_timed(demo, tmp_path, monkeypatch):
    """Which of them is faster depends on the machine."""
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "SECONDS", 0.0)
    given = {"int8": 0.0, "bf16": 0.0} if cpu_has_bf16() else {"int8": 0.0}
    told: list[str] = []
    choice = load_engine(proven(demo, "openvino", **given), "openvino", precision="fastest", tell=told.append)
    assert len(told) == len(given) + 1
    times = [float(file.read_bytes()) for file in (tmp_path / module.KIND).iterdir()]
    assert times
    assert min(times) > 0
    assert choice.engine.numerics.precision in (*given, "fp32")
