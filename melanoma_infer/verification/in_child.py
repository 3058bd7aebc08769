"""An engine run in a process of its own: one that dies (OpenVINO was seen to, on a quantised file) is an answer too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import Precision
from melanoma_infer.engines.base import Numerics

CHILD = "melanoma_infer.verification.engine_child"
REQUEST, ANSWER, TILES, OUTPUTS = "request.json", "answer.json", "tiles.npy", "outputs.npz"
START_SECONDS = 300
TILE_SECONDS = 20
"""A tile of 512 px through the full network takes 0.5 s on two slow cores."""


@dataclass(frozen=True)
class EngineRequest:
    """What a child is to run. `bundle` is a packaged name or a path; its digest must be this one."""

    bundle: str
    digest: str
    engine: str
    precision: Precision
    threads: int | None = None
    device: str | None = None
    task: str = "infer"


@dataclass(frozen=True)
class EngineAnswer:
    """What became of it: outputs by name; or why there are none.

    `unavailable`: the engine or the precision does not exist here. `failure`: it died, or gave an error on a tile.
    """

    numerics: Numerics | None = None
    outputs: dict[str, NDArray[Any]] | None = None
    unavailable: str = ""
    failure: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run_engine(request: EngineRequest, tiles: NDArray[np.uint8]) -> EngineAnswer:
    """The engine's outputs for tiles (N, tile_px, tile_px, 3)."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mminfer-") as folder:
        room = Path(folder)
        (room / REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
        np.save(room / TILES, tiles, allow_pickle=False)
        death = _run(room, START_SECONDS + TILE_SECONDS * len(tiles))
        answer = _answer(room, death)
    return EngineAnswer(**{**vars(answer), "seconds": time.perf_counter() - started})


def _run(room: Path, seconds: float) -> str:
    """Run the child to its end; empty, or how it died."""
    # -P: nothing is imported from the folder of the user; the path is this process's own.
    command = [sys.executable, "-P", "-m", CHILD, str(room)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        ended = subprocess.run(command, capture_output=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"the engine's process was stopped after {seconds:.0f} s"
    if ended.returncode == 0:
        return ""
    last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the engine's process died ({_named(ended.returncode)})" + (f": {last[0][:200]}" if last else "")


def _named(returncode: int) -> str:
    if returncode < 0:
        try:
            return signal.Signals(-returncode).name
        except ValueError:
            pass
    return f"exit {returncode}"


def _answer(room: Path, death: str) -> EngineAnswer:
    """What the child wrote before its end."""
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
            outputs = {name: arrays[name] for name in arrays.files}
    return EngineAnswer(numerics, outputs, facts=told.get("facts") or {})
