"""The child of `in_child`: loads one engine, runs the tiles and writes the outputs. It prints nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, EngineUnavailableError, GpuLostError, MemoryExhaustedError, MminferError
from melanoma_infer.runtime.files import write_atomically
from melanoma_infer.verification.in_child import ANSWER, OUTPUTS, REQUEST, TILES, EngineRequest


def main(room: Path) -> None:
    """Run the request in this folder and write the answer next to it.

    Raises:
        BundleError: the bundle is not the one that the parent opened.
    """
    request = EngineRequest(**json.loads((room / REQUEST).read_text(encoding="utf-8")))
    bundle = open_bundle(request.bundle)
    if bundle.digest != request.digest:
        raise BundleError("The bundle changed while it was verified. Start again.")
    told: dict[str, Any] = {}
    try:
        if request.task == "localise":
            from melanoma_infer.verification.localise import first_difference

            tile = np.load(room / TILES, allow_pickle=False)[:1]
            told = {"facts": asdict(first_difference(bundle, request.engine, request.precision, tile))}
        else:
            engine = load_engine(
                bundle, request.engine, precision=request.precision, threads=request.threads, device=request.device
            ).engine
            told["numerics"] = asdict(engine.numerics)
            _write(room, told)  # so that it is known when the process dies on a tile
            outputs = engine.infer(np.load(room / TILES, allow_pickle=False))
            arrays: dict[str, Any] = {name: np.asarray(values) for name, values in outputs.items()}
            # Without allow_pickle=False: NumPy 2.0 stores that as one more array.
            np.savez(room / OUTPUTS, **arrays)
    except (EngineUnavailableError, MemoryExhaustedError, GpuLostError) as error:
        told["unavailable"] = str(error)
    except MminferError as error:
        told["failure"] = str(error)
    _write(room, told)


def _write(room: Path, told: dict[str, Any]) -> None:
    write_atomically(room / ANSWER, json.dumps(told).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
