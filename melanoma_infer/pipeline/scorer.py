"""Scorer: a bundle on an engine, ready for many slides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import ModelCard
from melanoma_infer.engines import ON_GPU, load_engine
from melanoma_infer.engines.base import Engine, Numerics, Outputs, Tell, finite_tiles, frames_of, resizing, summing
from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.errors import ParityError, SlideUnreadableError, UsageError
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.pipeline.engine_queue import EngineQueue
from melanoma_infer.pipeline.request import Progress
from melanoma_infer.records import SCORE_STEPS, ReadTile, SumScores, Tile, TileResult
from melanoma_infer.runtime.cores import available_cores, reader_count
from melanoma_infer.runtime.plural import plural
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.scoring.aggregation import exact_sums
from melanoma_infer.settings import Settings
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.native import noise_tiles
from melanoma_infer.tiles.pixels import resized

if TYPE_CHECKING:
    from melanoma_infer.pipeline.scan_options import ScanOptions
    from melanoma_infer.pipeline.session import ScanSession


class Reads(Sized, Protocol):
    """Tiles with their pixels, as many as `len` says."""

    def __iter__(self) -> Iterator[ReadTile]: ...


class Scorer:
    """A bundle loaded on an engine that has just given the bundle's golden outputs.

    Args:
        bundle: from open_bundle.
        engine: "auto", or one of melanoma_infer.engines.MODULES.
        precision: None for the card's, or fp32, bf16, fp16, int8, "fastest".
        threads: None for all cores that this process may use. No result depends on it.
        device: None for the engine's default, the CPU or the first GPU; or one that it knows: "cpu", "cuda:1".
        engine_file: for "tensorrt" and "tensorrt-rtx": what `mminfer export` built, its manifest beside it; None for
            the cached one.
        tell: called before an engine is built, which takes minutes.

    Raises:
        UsageError: an engine file was given, and another engine was named, or none.
        BundleError: the engine file is damaged, or belongs to another model.
        EngineUnavailableError: the engine, the precision or the device does not exist here.
        ParityError: the named engine does not give the golden outputs here; "auto" skips such an engine.
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
        tell: Tell = lambda _text: None,
    ) -> None:
        self.bundle = bundle
        self.threads = threads or available_cores()
        choice = load_engine(
            bundle, engine, precision=precision, threads=self.threads, device=device, engine_file=engine_file, tell=tell
        )
        self._engine = choice.engine
        if engine != "auto" and (why := golden_failure(bundle, self._engine)):
            raise ParityError(f"The engine {engine} must not be used here: {why}. Use --engine auto.")
        self.skipped = choice.skipped
        """Engines that were tried before this one, and why they were skipped."""
        self._resizes, why_not = _resizes(self._engine, bundle.card)
        self.sum_scores, why_not_sums = _score_sums(self._engine)
        """Adds up tiles' scores, on the engine's device if that is able to."""
        self.skipped = (*self.skipped, *(why for why in (why_not, why_not_sums) if why is not None))
        self._readers = reader_count(self.threads, on_gpu=self.numerics.engine in ON_GPU)
        self._queue = EngineQueue(
            self.infer_each,
            ahead=self._engine.tiles_at_once,
            threads=self._readers,
            is_free=lambda: not self._files,
        )
        self._files = 0
        """Files whose tiles are being scored."""
        self._unknown = one_hot(Patient(), bundle.card.patient_fields)

    @property
    def card(self) -> ModelCard:
        """The bundle's card."""
        return self.bundle.card

    @property
    def numerics(self) -> Numerics:
        """What computes the numbers."""
        return self._engine.numerics

    @property
    def remarks(self) -> tuple[str, ...]:
        """What runs other than it should, without changing a number."""
        return self._engine.remarks

    @property
    def engine(self) -> Engine:
        """The engine itself, for tiles that belong to no slide."""
        return self._engine

    @property
    def feed(self) -> Feed:
        """How tiles of files are read for the engine."""
        frames = frames_of(self._engine)
        return Feed(self._readers, self._engine.tiles_at_once, frames.take if frames else None, self._resizes)

    def infer(
        self, reads: Reads, progress: Progress | None = None, watch: Stopwatch | None = None
    ) -> Iterator[TileResult]:
        """The result of each tile, in order; without pixels, or with an output that is not finite, it is unreadable.

        Args:
            reads: taken as the engine needs them; several tiles may be in the engine at once.
            progress: called after each tile.
            watch: gets the time spent waiting for pixels and in the engine.

        Raises:
            ParityError: the graph's probabilities are not those of the host's head for an unknown patient.
            SlideUnreadableError: not one of the tiles can be read.
        """
        if self._queue.is_running:
            raise UsageError("This scorer is scoring a scan in progress. Make another Scorer for files.")
        watch = watch or Stopwatch()
        results = self.infer_each(watch.waiting("wait", reads))
        nothing_read = len(reads) > 0
        self._files += 1
        try:
            for done, result in enumerate(watch.waiting("infer", results), start=1):
                nothing_read &= result.cause == "read-failed"
                if progress is not None:
                    progress(done, len(reads))
                yield result
        finally:
            self._files -= 1
        if nothing_read:
            raise SlideUnreadableError(
                f"None of the slide's {plural(len(reads), 'tile')} can be read: the file is damaged. Copy it again."
            )

    def session(
        self,
        mpp_um: float | tuple[float, float],
        size_l0: tuple[int, int] | None = None,
        patient: Mapping[str, object] | None = None,
        *,
        settings: Settings | None = None,
        options: ScanOptions | None = None,
    ) -> ScanSession:
        """A slide that is scored while it is being scanned. Many sessions may be open; their tiles take turns.

        While tiles of a session are in the engine, this scorer scores no files.

        Args:
            mpp_um: the scanner's µm per level-0 pixel, in x and y.
            size_l0: width and height of the whole scan in level-0 pixels; None: what has arrived when it is closed.
            patient: values for the card's patient fields; the others are unknown.
            settings: what differs from the model card.
            options: how pixels arrive, and what the session may use.

        Raises:
            ScaleUnknownError: the scale cannot be a slide's.
            UsageError: an argument is of another kind, or a setting or an option contradicts the card or itself.
            MemoryExhaustedError: one row of tiles across the scan needs more memory than the session may use.
            PatientValueError: a patient value is not in the card's vocabulary.
        """
        # A scorer of files needs none of it.
        from melanoma_infer.pipeline.scan_options import ScanOptions, require_kind, scan_size, scanner_scale
        from melanoma_infer.pipeline.session import ScanSession

        for name, value, kind in (
            ("patient", patient, Mapping), ("settings", settings, Settings), ("options", options, ScanOptions),
        ):  # fmt: skip
            require_kind(name, value, kind)
        scale, size = scanner_scale(mpp_um), scan_size(size_l0)
        return ScanSession(self, self._queue, scale, size, patient, settings or Settings(), options or ScanOptions())

    def infer_each(self, reads: Iterable[ReadTile]) -> Iterator[TileResult]:
        """The result of each tile, in order, of whatever slides; taken as the engine needs them. See `infer`."""
        in_engine: deque[_Submitted] = deque()

        def readable() -> Iterator[Any]:
            for read in reads:
                given = read.given
                # Without its pixels, whose memory another tile may need.
                in_engine.append(_Submitted(read.tile, read.padded_fraction, given is not None))
                if given is not None:
                    del read
                    yield given

        for outputs in self._engine.infer_each(readable()):
            finite = finite_tiles(outputs)
            self._check_head(outputs, finite)
            for is_finite, *rows in zip(finite.tolist(), *outputs.values(), strict=True):
                while not in_engine[0].was_read:
                    yield _unread(in_engine.popleft())
                read = in_engine.popleft()
                if is_finite:
                    yield TileResult(read.tile, dict(zip(outputs, rows, strict=True)), read.padded_fraction)
                else:
                    yield TileResult(read.tile, None, read.padded_fraction, "non-finite-output")
        yield from map(_unread, in_engine)

    def _check_head(self, outputs: Outputs, finite: NDArray[np.bool_]) -> None:
        """Compare the graph's probabilities with those of the head on the host, for an unknown patient.

        Args:
            outputs: of N tiles.
            finite: (N,), the tiles to compare.
        """
        if self.bundle.head is None:
            return
        host = self.bundle.head.probabilities(outputs["features"][finite], self._unknown)
        difference = float(np.abs(host - outputs["probabilities"][finite]).max(initial=0.0))
        limit = 2 * self.card.tolerance_of(self.numerics.precision).dp
        if not difference <= limit:  # NaN too
            raise ParityError(
                f"The graph and the head of this bundle disagree by {difference:.2g} (limit {limit:.2g}). Export the "
                "bundle again, or try --precision fp32."
            )


@dataclass(frozen=True)
class _Submitted:
    """A tile on its way through the engine; one that was not read is passed by it."""

    tile: Tile
    padded_fraction: float
    was_read: bool


def _resizes(engine: Engine, card: ModelCard) -> tuple[bool, str | None]:
    """Whether the engine resizes noise as Pillow does; if it resizes otherwise, how much differs."""
    able = resizing(engine)
    if able is None:
        return False, None
    for tile in noise_tiles(card.tile_px):
        differing = int(np.count_nonzero(able.resized(tile) != resized(tile)))
        if differing:
            return False, (
                f"the resize on the GPU: {differing:,} of {3 * card.tile_px**2:,} bytes of a noise tile differ from "
                "Pillow's. Tiles are resized on the CPU."
            )
    return True, None


def _score_sums(engine: Engine) -> tuple[SumScores, str | None]:
    """What adds up scores: the engine if its sums of random scores are the host's; else the host, and why."""
    able = summing(engine)
    if able is None:
        return exact_sums, None
    steps = np.random.default_rng(0).integers(0, SCORE_STEPS + 1, 3000)
    for count in (1, 700, len(steps)):
        if able.score_sums(steps, count) != exact_sums(steps, count):
            return exact_sums, "the sums on the GPU: those of random scores are wrong. Scores are added up on the CPU."
    return able.score_sums, None


def _unread(read: _Submitted) -> TileResult:
    return TileResult(read.tile, None, read.padded_fraction, "read-failed")
