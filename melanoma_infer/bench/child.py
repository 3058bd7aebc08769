"""A process that times one subject: `python -m melanoma_infer.bench.child`, one JSON line in and out at a time.

In: what to load. Out: its first answer, and how it runs. Then for each line in, a repeat's tiles and seconds out.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bench.subjects import Subject, Way
from melanoma_infer.bundle import Bundle, open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import MminferError

Run = Callable[[NDArray[np.uint8]], NDArray[Any]]


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


def _answer(subject: Subject, bundle: Bundle, threads: int, seconds: float) -> None:
    golden = bundle.golden.tiles
    way, run = _plain(subject, bundle, threads) if subject.ways else (None, _engine(subject, bundle, threads))
    batch = way.batch if way else 1
    probabilities = np.concatenate([run(golden[i : i + 1]) for i in range(len(golden))])
    tiles = np.resize(golden, (batch, *golden.shape[1:]))
    requests = max(1, math.ceil(seconds / _fastest(run, tiles)))
    layout = ("channels-last" if way.channels_last else "channels-first") if way else ""
    _say({"batch": batch, "layout": layout, "probabilities": probabilities.tolist()})
    for _ in sys.stdin:
        started = perf_counter()
        for _ in range(requests):
            run(tiles)
        _say({"tiles": batch * requests, "seconds": perf_counter() - started})


def _engine(subject: Subject, bundle: Bundle, threads: int) -> Run:
    engine = load_engine(bundle, subject.engine, precision=subject.precision, threads=threads).engine
    return lambda tiles: engine.infer(tiles)["probabilities"]


def _plain(subject: Subject, bundle: Bundle, threads: int) -> tuple[Way, Run]:
    """The fastest way to run the network in eager PyTorch, each tried after a warm-up."""
    import torch

    from melanoma_infer.engines.torch_engine import network_of

    torch.set_num_threads(threads)
    net = network_of(bundle)

    def in_way(way: Way) -> Run:
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        net.to(memory_format=layout)  # type: ignore[call-overload]  # torch leaves this argument out of its stubs

        def run(tiles: NDArray[np.uint8]) -> NDArray[Any]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=subject.precision == "bf16"):
                images = net.normalised(torch.from_numpy(tiles)).contiguous(memory_format=layout)
                return net.tail(net.trunk(images).float(), net.depth(images).float()).probabilities.float().numpy()

        return run

    if len(subject.ways) == 1:
        return subject.ways[0], in_way(subject.ways[0])
    golden = bundle.golden.tiles
    times = {
        way: _fastest(in_way(way), np.resize(golden, (way.batch, *golden.shape[1:]))) / way.batch
        for way in subject.ways
    }
    best = min(times, key=times.__getitem__)
    return best, in_way(best)


def _fastest(run: Run, tiles: NDArray[np.uint8]) -> float:
    """Seconds of the faster of two calls, after one that does not count."""
    run(tiles)
    seconds = []
    for _ in range(2):
        started = perf_counter()
        run(tiles)
        seconds.append(perf_counter() - started)
    return min(seconds)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
