"""Scorer: a bundle on an engine, ready for many slides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import Engine, Numerics, Outputs, first_non_finite
from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.errors import ParityError
from melanoma_infer.records import ReadTile, TileResult
from melanoma_infer.runtime.cores import available_cores


class Scorer:
    """A bundle loaded on an engine that has just given the bundle's golden outputs.

    Args:
        bundle: from open_bundle.
        engine: "auto", or one of melanoma_infer.engines.MODULES.
        precision: None for the card's, or fp32, bf16, fp16, int8, "fastest".
        threads: None for the cores that this process may use. No result depends on it.
        device: None for the engine's own, the CPU or the first GPU; or one that it knows: "cpu", "cuda:1".
        engine_file: for "tensorrt" and "tensorrt-rtx": what `mminfer export` built, its manifest beside it; None for
            the cache's.

    Raises:
        UsageError: an engine file was given, and another engine was named, or none.
        BundleError: the engine file is damaged, or of another model.
        EngineUnavailableError: the engine, the precision or the device does not exist here.
        ParityError: the engine that was named does not give the golden outputs here; "auto" skips such a one.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = "auto",
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        engine_file: Path | None = None,
    ) -> None:
        self.bundle = bundle
        self.threads = threads or available_cores()
        choice = load_engine(
            bundle, engine, precision=precision, threads=self.threads, device=device, engine_file=engine_file
        )
        self._engine = choice.engine
        if engine != "auto" and (why := golden_failure(bundle, self._engine)):
            raise ParityError(f"The engine {engine} must not be used here: {why}. Use --engine auto.")
        self.skipped = choice.skipped
        """Engines that were tried before this one, and why they were not taken."""

    @property
    def numerics(self) -> Numerics:
        """What computes the numbers."""
        return self._engine.numerics

    @property
    def engine(self) -> Engine:
        """The engine itself, for tiles that belong to no slide."""
        return self._engine

    def infer_each(self, reads: Iterable[ReadTile]) -> Iterator[TileResult]:
        """The result of each tile, in order; without pixels, or with an output that is not finite, it is unreadable.

        Args:
            reads: taken as the engine needs them; several tiles may be under way.
        """
        under_way: deque[ReadTile] = deque()
        for outputs in self._engine.infer_each(_readable(reads, under_way)):
            while under_way[0].pixels is None:
                yield _unread(under_way.popleft())
            yield _result(under_way.popleft(), outputs)
        yield from map(_unread, under_way)


def _readable(reads: Iterable[ReadTile], under_way: deque[ReadTile]) -> Iterator[NDArray[np.uint8]]:
    """The pixels there are, each tile noted as under way."""
    for read in reads:
        under_way.append(read)
        if read.pixels is not None:
            yield read.pixels


def _unread(read: ReadTile) -> TileResult:
    return TileResult(read.tile, None, read.blank_fraction, "read-failed")


def _result(read: ReadTile, outputs: Outputs) -> TileResult:
    if first_non_finite(outputs) is not None:
        return TileResult(read.tile, None, read.blank_fraction, "non-finite-output")
    return TileResult(read.tile, {name: values[0] for name, values in outputs.items()}, read.blank_fraction)
