"""`--precision fastest`: each precision of an engine is timed once on a machine, and the cache keeps its time.

So the choice is measured, and the same in every later run: results of one folder are not computed in two precisions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median

import numpy as np

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Engine, Tell
from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.engines.parity_table import path_on_this_machine
from melanoma_infer.errors import BundleError, EngineUnavailableError, MemoryExhaustedError, OutputError
from melanoma_infer.runtime.cache import read_cached, write_cached
from melanoma_infer.tolerances import Precision

KIND = "seconds-per-tile"
PASSES, SECONDS = 3, 1.0
"""A precision is timed in at least so many passes over the tiles, and for at least so long."""


def fastest(
    bundle: Bundle,
    engine: str,
    precisions: Sequence[Precision],
    device: str | None,
    load: Callable[[Precision], Engine],
    tell: Tell,
) -> Precision:
    """The precision with the least time per tile, of those that load and give the golden outputs on this machine.

    Args:
        bundle: the verified model.
        engine: name of the engine.
        precisions: whose numbers are known to be within the card's tolerance; the last is taken if none can be timed.
        device: None for the engine's default.
        load: the engine in a precision.
        tell: called before something is timed.

    Raises:
        GpuLostError: the GPU stopped working.
    """
    if len(precisions) == 1:
        return precisions[0]
    seconds: dict[Precision, float] = {}
    for precision in precisions:
        path = path_on_this_machine(KIND, bundle.digest, engine, precision, device)
        known = _number(read_cached(path))
        if known is None:
            tell(f"timing {engine} {precision}, once on this machine")
            try:
                loaded = load(precision)
            except (EngineUnavailableError, BundleError, MemoryExhaustedError):
                continue
            if golden_failure(bundle, loaded):  # it also warms up every batch size
                continue
            known = seconds_per_tile(bundle, loaded)
            with suppress(OutputError):  # without a writable cache it is timed again next time
                write_cached(path, f"{known:.6g}".encode())
        seconds[precision] = known
    return min(seconds, key=lambda each: seconds[each], default=precisions[-1])


def seconds_per_tile(bundle: Bundle, engine: Engine) -> float:
    """The median over passes, each of as many golden tiles as the engine has in progress."""
    tiles = bundle.golden.tiles[np.arange(engine.tiles_at_once) % len(bundle.golden.tiles)]
    passes: list[float] = []
    while len(passes) < PASSES or sum(passes) < SECONDS:
        started = time.perf_counter()
        for _ in engine.infer_each(tiles):
            pass
        passes.append(time.perf_counter() - started)
    return median(passes) / len(tiles)


def _number(content: bytes | None) -> float | None:
    """The seconds in a cached file; None if there is none, or if it is damaged."""
    try:
        return None if content is None else float(content)
    except ValueError:
        return None
