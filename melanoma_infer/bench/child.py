"""A process that times one subject: `python -m melanoma_infer.bench.child`, with JSON lines on stdin and stdout.

The first line in says what to load; the line out has the golden probabilities, the batch size and the layout. Then each
line in requests a repeat, and the line out has its number of tiles and its seconds.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bench.subjects import Subject, Variant
from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import MminferError

Run = Callable[[NDArray[np.uint8]], NDArray[Any]]
TURNS = 3
"""How often each variant is tried before the fastest is chosen."""


@dataclass(frozen=True)
class _Ready:
    """The function that is timed, and how many tiles each call takes."""

    run: Run
    tiles_per_call: int
    batch: int
    layout: str = ""


def main() -> None:
    """Time the subject until stdin ends."""
    request = json.loads(sys.stdin.readline())
    given = request["subject"]
    subject = Subject(**{**given, "variants": tuple(Variant(**each) for each in given["variants"])})
    try:
        bundle = open_bundle(request["bundle"])
        _answer(subject, bundle, request["threads"], request["seconds"])
    except (MminferError, ImportError) as error:
        _say({"unavailable": str(error)})
    except RuntimeError as error:  # torch.compile raises it, for example without a C++ compiler
        _say({"unavailable": str(error).strip().splitlines()[0]})


def _answer(subject: Subject, bundle: Bundle, threads: int, seconds: float) -> None:
    golden = bundle.golden.tiles
    ready = (_plain if subject.variants else _engine)(subject, bundle, threads)
    # The golden tiles' probabilities, in batches of the size that is timed.
    filled = np.resize(golden, (math.ceil(len(golden) / ready.batch), ready.batch, *golden.shape[1:]))
    probabilities = np.concatenate([ready.run(batch) for batch in filled])[: len(golden)]
    tiles = np.resize(golden, (ready.tiles_per_call, *golden.shape[1:]))
    calls = max(1, math.ceil(seconds / _seconds(ready.run, tiles)))
    _say({"batch": ready.batch, "layout": ready.layout, "probabilities": probabilities.tolist()})
    for _ in sys.stdin:
        started = perf_counter()
        for _ in range(calls):
            ready.run(tiles)
        _say({"tiles": len(tiles) * calls, "seconds": perf_counter() - started})


def _engine(subject: Subject, bundle: Bundle, threads: int) -> _Ready:
    """An engine that gets tiles as from a slide: as many waiting as are in progress."""
    engine = load_engine(bundle, subject.engine, precision=subject.precision, threads=threads).engine

    def run(tiles: NDArray[np.uint8]) -> NDArray[Any]:
        return np.concatenate([outputs["probabilities"] for outputs in engine.infer_each(tiles)])

    return _Ready(run, tiles_per_call=2 * engine.tiles_at_once, batch=1)


def _plain(subject: Subject, bundle: Bundle, threads: int) -> _Ready:
    """The fastest variant of the network in plain PyTorch, each tried after a warm-up."""
    import torch

    from melanoma_infer.engines.torch_engine import network_of

    torch.set_num_threads(threads)
    net = network_of(bundle)

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return net.tail(net.backbone(images).float(), net.depth(images).float()).probabilities

    compute: Callable[[torch.Tensor], torch.Tensor] = probabilities
    if subject.compiled:
        from torch._inductor import config

        config.freezing = True  # the weights become constants of the graph
        compute = torch.compile(probabilities, dynamic=False)  # one graph per shape

    def runner(variant: Variant) -> Run:
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        net.to(memory_format=layout)  # type: ignore[call-overload]  # missing from torch's stubs

        def run(tiles: NDArray[np.uint8]) -> NDArray[Any]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=subject.precision == "bf16"):
                images = net.normalised(torch.from_numpy(tiles)).contiguous(memory_format=layout)
                return compute(images).float().numpy()

        return run

    def seconds_per_tile(variant: Variant) -> float:
        golden = bundle.golden.tiles
        return _seconds(runner(variant), np.resize(golden, (variant.batch, *golden.shape[1:]))) / variant.batch

    best = best_variant(subject.variants, seconds_per_tile)
    layout = "channels-last" if best.channels_last else "channels-first"
    return _Ready(runner(best), tiles_per_call=best.batch, batch=best.batch, layout=layout)


def best_variant(variants: Sequence[Variant], seconds_per_tile: Callable[[Variant], float]) -> Variant:
    """The fastest batch size in the layout that is faster at the middle batch size: four of six variants are tried."""
    if len(variants) == 1:
        return variants[0]
    batches = sorted({each.batch for each in variants})
    middle = [each for each in variants if each.batch == batches[len(batches) // 2]]
    layout = _fastest_of(middle, seconds_per_tile).channels_last
    return _fastest_of([each for each in variants if each.channels_last == layout], seconds_per_tile)


def _fastest_of(variants: Sequence[Variant], seconds_per_tile: Callable[[Variant], float]) -> Variant:
    """The variant with the fastest turn; variants take turns, so that other work on the machine does not decide."""
    turns = [(seconds_per_tile(each), place) for _ in range(TURNS) for place, each in enumerate(variants)]
    return variants[min(turns)[1]]


def _seconds(run: Run, tiles: NDArray[np.uint8]) -> float:
    """Seconds of a call after one warm-up call."""
    run(tiles)
    started = perf_counter()
    run(tiles)
    return perf_counter() - started


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
