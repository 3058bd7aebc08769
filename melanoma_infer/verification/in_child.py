"""Runs an engine in a process of its own, because it may crash: OpenVINO was seen to on a quantised graph."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.base import Numerics
from melanoma_infer.runtime.child import run_child
from melanoma_infer.tolerances import Precision

CHILD = "melanoma_infer.verification.engine_child"
REQUEST, ANSWER, TILES, OUTPUTS = "request.json", "answer.json", "tiles.npy", "outputs.npz"
START_SECONDS = 300
TILE_SECONDS = 20
"""A tile of 512 px through the full network takes 0.5 s on two slow cores."""


@dataclass(frozen=True)
class EngineRequest:
    """What the child runs. `bundle` is a packaged name or a path, and must have this digest."""

    bundle: str
    digest: str
    engine: str
    precision: Precision
    threads: int | None = None
    device: str | None = None
    task: str = "infer"


@dataclass(frozen=True)
class EngineAnswer:
    """The outputs by name, or why there are none.

    `unavailable`: this machine or this bundle does not have the engine or the precision. `failure`: the process died,
    or a tile raised an error. `facts`: the first difference, when the task was to find it.
    """

    numerics: Numerics | None = None
    outputs: dict[str, NDArray[Any]] | None = None
    unavailable: str = ""
    failure: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run_engine(request: EngineRequest, tiles: NDArray[np.uint8]) -> EngineAnswer:
    """The answer of an engine for tiles (N, tile_px, tile_px, 3)."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mminfer-") as folder:
        room = Path(folder)
        (room / REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
        np.save(room / TILES, tiles, allow_pickle=False)
        failure = run_child(CHILD, room, seconds=START_SECONDS + TILE_SECONDS * len(tiles))
        answer = _answer(room, "" if failure is None else f"the engine's process died ({failure})")
    return replace(answer, seconds=time.perf_counter() - started)


def _answer(room: Path, death: str) -> EngineAnswer:
    """What the child wrote before it ended."""
    told: dict[str, Any] = {}
    if (room / ANSWER).is_file():
        told = json.loads((room / ANSWER).read_text(encoding="utf-8"))
    numerics = Numerics(**told["numerics"]) if told.get("numerics") else None
    if death or told.get("failure"):
        return EngineAnswer(numerics, failure=death or told["failure"])
    if told.get("unavailable"):
        return EngineAnswer(numerics, unavailable=told["unavailable"])
    outputs: dict[str, NDArray[Any]] = {}
    if (room / OUTPUTS).is_file():
        with np.load(room / OUTPUTS, allow_pickle=False) as arrays:
            outputs = dict(arrays)
    return EngineAnswer(numerics, outputs, facts=told.get("facts") or {})
