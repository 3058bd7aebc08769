"""A process that times one subject: `python -m melanoma_infer.bench.child`, one JSON line in and out at a time.

In: what to load. Out: its first answer, and how it runs. Then for each line in, a repeat's tiles and seconds out.
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

from melanoma_infer.bench.subjects import Subject, Way
from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import MminferError

Run = Callable[[NDArray[np.uint8]], NDArray[Any]]
TURNS = 3
"""Of each way that PyTorch can be run, before the fastest is timed."""


@dataclass(frozen=True)
class _Ready:
    """What is timed, and how many tiles each call of it takes."""

    run: Run
    tiles_a_call: int
    batch: int
    layout: str = ""


def main() -> None:
    """Answer until the input ends."""
    request = json.loads(sys.stdin.readline())
    given = request["subject"]
    subject = Subject(**{**given, "ways": tuple(Way(**way) for way in given["ways"])})
    try:
        bundle = open_bundle(request["bundle"])
        _answer(subject, bundle, request["threads"], request["seconds"])
    except (MminferError, ImportError) as error:
        _say({"unavailable": str(error)})
    except RuntimeError as error:  # what torch.compile raises, among others where there is no C++ compiler
        _say({"unavailable": str(error).strip().splitlines()[0]})


def _answer(subject: Subject, bundle: Bundle, threads: int, seconds: float) -> None:
    golden = bundle.golden.tiles
    ready = (_plain if subject.ways else _engine)(subject, bundle, threads)
    probabilities = _answers(ready, golden)
    tiles = np.resize(golden, (ready.tiles_a_call, *golden.shape[1:]))
    calls = max(1, math.ceil(seconds / _seconds(ready.run, tiles)))
    _say({"batch": ready.batch, "layout": ready.layout, "probabilities": probabilities.tolist()})
    for _ in sys.stdin:
        started = perf_counter()
        for _ in range(calls):
            ready.run(tiles)
        _say({"tiles": len(tiles) * calls, "seconds": perf_counter() - started})


def _answers(ready: _Ready, golden: NDArray[np.uint8]) -> NDArray[Any]:
    """The golden tiles' probabilities, in calls of the batch that is timed."""
    calls = math.ceil(len(golden) / ready.batch)
    filled = np.resize(golden, (calls, ready.batch, *golden.shape[1:]))
    return np.concatenate([ready.run(tiles) for tiles in filled])[: len(golden)]


def _engine(subject: Subject, bundle: Bundle, threads: int) -> _Ready:
    """An engine, fed like a slide's tiles: some under way, as many again behind them."""
    engine = load_engine(bundle, subject.engine, precision=subject.precision, threads=threads).engine

    def run(tiles: NDArray[np.uint8]) -> NDArray[Any]:
        return np.concatenate([outputs["probabilities"] for outputs in engine.infer_each(tiles)])

    return _Ready(run, tiles_a_call=2 * engine.tiles_at_once, batch=1)


def _plain(subject: Subject, bundle: Bundle, threads: int) -> _Ready:
    """The fastest way to run the network in plain PyTorch, each tried after a warm-up."""
    import torch

    from melanoma_infer.engines.torch_engine import network_of

    torch.set_num_threads(threads)
    net = network_of(bundle)

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return net.tail(net.backbone(images).float(), net.depth(images).float()).probabilities

    compute = _compiled(probabilities) if subject.compiled else probabilities

    def in_way(way: Way) -> Run:
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        net.to(memory_format=layout)  # type: ignore[call-overload]  # torch leaves this argument out of its stubs

        def run(tiles: NDArray[np.uint8]) -> NDArray[Any]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=subject.precision == "bf16"):
                images = net.normalised(torch.from_numpy(tiles)).contiguous(memory_format=layout)
                return compute(images).float().numpy()

        return run

    def seconds_a_tile(way: Way) -> float:
        golden = bundle.golden.tiles
        return _seconds(in_way(way), np.resize(golden, (way.batch, *golden.shape[1:]))) / way.batch

    return _in(_best_way(subject.ways, seconds_a_tile), in_way)


def _compiled(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function by torch.compile, one shape a graph, the weights constants of it."""
    import torch
    from torch._inductor import config

    config.freezing = True
    compiled: Callable[[Any], Any] = torch.compile(call, dynamic=False)
    return compiled


def _best_way(ways: Sequence[Way], seconds_a_tile: Callable[[Way], float]) -> Way:
    """The faster layout at a middle batch, and the fastest batch in it: four of six ways are tried."""
    if len(ways) == 1:
        return ways[0]
    middle = sorted({way.batch for way in ways})[len({way.batch for way in ways}) // 2]
    layout = _fastest_of([way for way in ways if way.batch == middle], seconds_a_tile).channels_last
    return _fastest_of([way for way in ways if way.channels_last == layout], seconds_a_tile)


def _fastest_of(ways: Sequence[Way], seconds_a_tile: Callable[[Way], float]) -> Way:
    """The one with the fastest turn: they take turns, so that other work on the machine does not choose."""
    turns = [(seconds_a_tile(way), place) for _ in range(TURNS) for place, way in enumerate(ways)]
    return ways[min(turns)[1]]


def _in(way: Way, in_way: Callable[[Way], Run]) -> _Ready:
    layout = "channels-last" if way.channels_last else "channels-first"
    return _Ready(in_way(way), tiles_a_call=way.batch, batch=way.batch, layout=layout)


def _seconds(run: Run, tiles: NDArray[np.uint8]) -> float:
    """Seconds of a call, after one that does not count."""
    run(tiles)
    started = perf_counter()
    run(tiles)
    return perf_counter() - started


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
