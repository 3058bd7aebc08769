"""The child of `in_child`: loads one engine, runs the tiles, writes its outputs. It prints nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, EngineUnavailableError, GpuLostError, MemoryExhaustedError, MminferError
from melanoma_infer.runtime.cache import write_cached
from melanoma_infer.verification.in_child import ANSWER, OUTPUTS, REQUEST, TILES, EngineRequest


def main(room: Path) -> None:
    """Do what the request in this folder asks for, and write the answer beside it."""
    request = EngineRequest(**json.loads((room / REQUEST).read_text(encoding="utf-8")))
    bundle = open_bundle(request.bundle)
    if bundle.digest != request.digest:
        raise BundleError("The bundle changed while it was verified. Start again.")
    tiles = np.load(room / TILES, allow_pickle=False)
    try:
        told = _localised(bundle, request, tiles) if request.task == "localise" else _inferred(bundle, request, room)
    except MminferError as error:
        told = {"failure": str(error)}
    _write(room, told)


def _inferred(bundle: Bundle, request: EngineRequest, room: Path) -> dict[str, Any]:
    try:
        engine = load_engine(
            bundle, request.engine, precision=request.precision, threads=request.threads, device=request.device
        ).engine
    except (EngineUnavailableError, MemoryExhaustedError, GpuLostError) as error:
        return {"unavailable": str(error)}
    told: dict[str, Any] = {"numerics": asdict(engine.numerics)}
    _write(room, told)  # kept when the process dies on a tile
    try:
        outputs = engine.infer(np.load(room / TILES, allow_pickle=False))
    except (MemoryExhaustedError, GpuLostError) as error:
        return {**told, "unavailable": str(error)}
    except MminferError as error:
        return {**told, "failure": str(error)}
    # Without allow_pickle, which NumPy 2.0 would store as one more array. Outputs are numbers, and no reader unpickles.
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in outputs.items()}
    np.savez(room / OUTPUTS, **arrays)
    return told


def _localised(bundle: Bundle, request: EngineRequest, tiles: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, Any]:
    from melanoma_infer.verification.localise import first_difference

    return {"facts": asdict(first_difference(bundle, request.engine, request.precision, tiles[:1]))}


def _write(room: Path, told: dict[str, Any]) -> None:
    write_cached(room / ANSWER, json.dumps(told).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
