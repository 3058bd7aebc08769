"""A slide that is scored while it is being scanned: pixels are pushed in, tiles are scored when they are complete."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from melanoma_infer.errors import MemoryExhaustedError, MminferError, ScanBusyError, UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import strict_patient
from melanoma_infer.pipeline.engine_queue import EngineQueue, Lane
from melanoma_infer.pipeline.kept_tiles import KeptTiles
from melanoma_infer.pipeline.scan_folder import write_scan
from melanoma_infer.pipeline.scan_options import ScanOptions, ScanProgress, frame_place, output_folder, require_deadline
from melanoma_infer.records import Identity, MissingCause, ReadTile, SlideFacts, StatedScale, Tile, TileResult
from melanoma_infer.result import RunOut, SlideResult
from melanoma_infer.runtime.provenance import VERSION, machine
from melanoma_infer.runtime.utc import utc_now
from melanoma_infer.scan.frames import host_pixels
from melanoma_infer.scan.pixels import BAND_ROWS, MEBIBYTE, ScanPixels
from melanoma_infer.scan.plane_sums import UNBOUNDED
from melanoma_infer.scan.tile_sums import TileSums
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.settings import Settings
from melanoma_infer.slides.scale import known_scale
from melanoma_infer.tiles.plan import SlidePlan, plan_tiles, sensible_geometry
from melanoma_infer.tiles.read_plan import read_plan
from melanoma_infer.tiles.tissue import tissue_of_plane

if TYPE_CHECKING:
    from melanoma_infer.pipeline.scorer import Scorer

BACKGROUND = (255, 255, 255)
"""Colour of what is outside the scan or transparent, as in a file that names none."""


class ScanSession:
    """One slide while it is being scanned; from `Scorer.session`. Any thread may push.

    As a context manager it is closed at the end of the block, or cancelled if the block raises.
    """

    def __init__(
        self,
        scorer: Scorer,
        queue: EngineQueue,
        scale: Scale,
        size_l0: SizePx | None,
        patient: Mapping[str, object] | None,
        settings: Settings,
        options: ScanOptions,
    ) -> None:
        card = scorer.card
        self._scorer, self._queue, self._settings, self._options = scorer, queue, settings, options
        self._lock = RLock()
        self._started = utc_now()
        known = strict_patient(patient, card.patient_fields) if patient is not None else None
        self._case = SlideCase(options.id, options.case_id, known)
        self._known = known_scale(_facts(scale, size_l0 or SizePx(1, 1), options), settings.mpp_um)
        self._scale = scale
        self._geometry = sensible_geometry(card, settings, size_l0 or SizePx(1, 1), self._known.scale)
        reading = read_plan(_facts(scale, size_l0 or SizePx(1, 1), options), self._known.scale, self._geometry, card)
        self._pixels = ScanPixels(
            self._known.scale,
            size_l0,
            self._geometry,
            reading,
            finds_tissue=settings.tissue == "auto",
            background=BACKGROUND,
            first_wins=options.overlap == "first",
        )
        self._size_is_known = size_l0 is not None
        self._require_memory(self._pixels.row_nbytes, "one row of tiles across this scan")
        fitting = options.memory_mib * MEBIBYTE // 4 // self._pixels.tile_nbytes
        self._room = options.waiting_tiles or max(2, min(2 * scorer.engine.tiles_at_once, fitting))
        self._tiles = KeptTiles(card, options.on_tile)
        self._lane = Lane(self._tiles.store)
        self._queued: set[RectPx] = set()
        self._failure: BaseException | None = None
        self._ended: Literal["", "closed", "cancelled"] = ""
        self._result: SlideResult | None = None
        self._written: Path | None = None
        """The output folder that holds the result."""

    def push(self, pixels: Any, x_l0: int, y_l0: int) -> None:
        """Add a frame or a strip of any size, in any order; where it overlaps others, see ScanOptions.overlap.

        The pixels are copied or summed before this returns: the buffer may be used again at once.

        Args:
            pixels: uint8 (h, w, 3) or (h, w, 4): a NumPy array, or one that offers DLPack or
                `__cuda_array_interface__`.
            x_l0: the frame's left edge in level-0 pixels.
            y_l0: its top edge.

        Raises:
            UsageError: the pixels are not of that kind, reach beyond the scan, or the session has ended.
            ScanBusyError: the engine is behind, and the session does not block. Nothing was taken: push it again.
            MemoryExhaustedError: incomplete tiles need more memory than the session may use.
            SlideUnreadableError: pixels that had arrived before are others now.
            MminferError: the engine failed; see Scorer.
        """
        self._require_open()
        options = self._options
        if options.when_full == "raise" and self._lane.unfinished >= self._room:
            raise ScanBusyError(
                f"{self._lane.unfinished} tiles wait for the engine, and {self._room} may. "
                "The frame was not taken: push it again later."
            )
        x_l0, y_l0 = frame_place(x_l0, y_l0)
        frame = host_pixels(pixels, options.channels)
        height, width = frame.shape[:2]
        self._pixels.require_inside(RectPx(x_l0, y_l0, width, height))
        for top in range(0, height, BAND_ROWS):
            rows = frame[top : top + BAND_ROWS]
            with self._lock, self._failing():
                self._require_open()
                complete = self._pixels.add(RectPx(x_l0, y_l0 + top, width, len(rows)), rows)
                self._require_memory(self.progress.memory_bytes, "the tissue plane and the tiles that are not scored")
                self._queued.update(tile.rect_l0 for tile in complete)
            for tile in complete:
                self._put(tile, room=self._room if options.when_full == "block" else None)
        self._require_open()

    @property
    def progress(self) -> ScanProgress:
        """How far the scan is; costs nothing."""
        pixels = self._pixels
        size = pixels.size_l0
        whole = size.width * size.height if self._size_is_known else 0
        return ScanProgress(
            scanned_px=pixels.scanned_px,
            scanned_fraction=pixels.scanned_px / whole if whole else None,
            tiles_scored=len(self._tiles.results),
            tiles_waiting=self._lane.unfinished,
            memory_bytes=pixels.nbytes + self._lane.unfinished * pixels.tile_nbytes,
        )

    def running(self) -> SlideResult:
        """The result as if the scan ended now; provisional, and marked so in its warnings.

        Tissue is found anew on what has arrived; what has not counts as tissue that is not evaluated, so that nothing
        is excluded too early. A tile that is scored has its final probabilities.

        Raises:
            UsageError: the session was cancelled.
            MminferError: the session failed.
        """
        if self._result is not None:
            return self._result
        self._require_open()
        plan, share = self._plan(), self.progress.scanned_fraction
        arrived = f"{share:.0%} of the scan has" if share is not None else f"{self._pixels.scanned_px:,} px have"
        note = f"Provisional: {arrived} arrived. Tissue, scores and regions will change."
        return self._of(plan, replace(self._case, warnings=(note,)))

    def close(self, *, out: str | Path | None = None, deadline_s: float | None = None) -> SlideResult:
        """End the scan: the result by the rules of a file, with every tile that was complete.

        Tiles with missing pixels are `incomplete` and not evaluated. Again, it returns the same result, and
        writes it if another output folder is given.

        Args:
            out: an output folder, to which the result is written as that of a file is; None: nothing is written.
            deadline_s: seconds to wait for the engine; tiles that are not scored by then are `incomplete`. None: all.

        Raises:
            UsageError: the session was cancelled, or nothing was pushed.
            OutputError: the output folder cannot be written; `close` may be called again.
            SlideFormatError: the colours are wrong.
            MminferError: the session failed.
        """
        require_deadline(deadline_s)
        folder = output_folder(out)
        if self._result is None:
            self._require_open()
            with self._lock, self._failing():
                plan = self._plan()
                self._ended = "closed"
                left = [tile for each in plan.tiles if (tile := self._left(each)) is not None]
            for tile in left:
                self._put(tile, room=None)
            if not self._queue.wait(self._lane, deadline_s):
                self._queue.drop(self._lane)
            self._require_no_failure()
            self._pixels.clear()
            run = RunOut(started=self._started, finished=utc_now(), machine=machine())
            self._result = self._of(plan, self._case).model_copy(update={"run": run})
        if folder is not None and folder != self._written:
            self._result = write_scan(
                self._result, folder, self._case, self._settings, self._scorer.bundle, self._scorer.numerics
            )
            self._written = folder
        return self._result

    def cancel(self) -> None:
        """End the session without a result, and release its memory; a `push` that waits is released too."""
        if self._result is None:
            self._ended = "cancelled"
            self._queue.drop(self._lane, UsageError("The session was cancelled."))
            with self._lock:
                self._pixels.clear()

    def __enter__(self) -> ScanSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.cancel()
        elif not self._ended:
            self.close()

    def _plan(self) -> SlidePlan:
        """The plan as if the scan ended now."""
        with self._lock:  # only what is copied: pushing goes on while tissue is found
            if not self._pixels.scanned_px:
                raise UsageError("Nothing has been scanned: push pixels first, or cancel the session.")
            size, plane = self._pixels.size_l0, self._pixels.read_plane()
            identity = Identity(self._pixels.digest(), 3 * self._pixels.scanned_px, 0, 0)
        tissue = tissue_of_plane(plane, self._known.scale, size, self._settings.tissue)
        facts = _facts(self._scale, size, self._options)
        return plan_tiles(facts, identity, self._settings, self._known, tissue, self._geometry, self._scorer.card)

    def _of(self, plan: SlidePlan, case: SlideCase) -> SlideResult:
        """The result of a plan from the tiles that are scored."""
        scored = self._tiles.results.copy()
        results = [self._result_of(tile, scored.get(tile.rect_l0)) for tile in plan.tiles]
        scorer, table = self._scorer, tile_table(results, self._scorer.bundle)
        return slide_result(
            plan, table, case, scorer.bundle, scorer.numerics, read=self._tiles.read, sum_scores=scorer.sum_scores
        )

    def _result_of(self, tile: Tile, scored: TileResult | None) -> TileResult:
        if scored is not None:
            return replace(scored, tile=tile)
        cause: MissingCause = "not-scored" if tile.rect_l0 in self._queued else "not-scanned"
        return TileResult(tile, None, tile.outside_fraction, cause)

    def _left(self, tile: Tile) -> TileSums | None:
        """A planned tile that is complete, but was not queued while the scan went on."""
        if tile.rect_l0 in self._queued:
            return None
        sums = self._pixels.take(tile.rect_l0)
        if sums is not None:
            self._queued.add(tile.rect_l0)
        return sums

    def _put(self, tile: TileSums, *, room: int | None) -> None:
        size = self._pixels.size_l0 if self._size_is_known or self._ended else None
        self._queue.put(self._lane, partial(_read, tile, size), room=room)

    def _require_memory(self, needed: int, what: str) -> None:
        limit = self._options.memory_mib * MEBIBYTE
        if needed > limit:
            raise MemoryExhaustedError(
                f"{what[0].upper()}{what[1:]} need {-(-needed // MEBIBYTE):,} MiB, and the session may use "
                f"{self._options.memory_mib:,} MiB. Push strips in order, give more memory_mib, or use a card with "
                '`resize = "reduce-bilinear"` and larger tiles: then only block means are kept.'
            )

    def _require_open(self) -> None:
        self._require_no_failure()
        if self._ended:
            raise UsageError(f"The session is {self._ended}: open another one for another scan.")

    def _require_no_failure(self) -> None:
        failure = self._failure or (self._lane.failure if self._ended != "cancelled" else None)
        if isinstance(failure, MminferError):
            raise failure
        if failure is not None:
            raise MminferError(f"The session failed: {type(failure).__name__}: {failure}") from failure

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Let the session fail with what the block raises: what has arrived is no longer certain."""
        try:
            yield
        except UsageError:
            raise
        except BaseException as error:
            self._failure = error
            self._queue.drop(self._lane)
            self._pixels.clear()
            raise


def _read(sums: TileSums, size_l0: SizePx | None) -> ReadTile:
    """A complete tile's pixels. How much of it is tissue is known when the scan ends."""
    size, rect = size_l0 or UNBOUNDED, sums.rect_l0
    tile = Tile(-1, rect, math.nan, 1 - rect.within(size).area / rect.area)
    return sums.read(tile, size, BACKGROUND)


def _facts(scale: Scale, size_l0: SizePx, options: ScanOptions) -> SlideFacts:
    """A scan has one level, and states one scale."""
    return SlideFacts(
        reader="scan",
        reader_version=VERSION,
        vendor="",
        size_l0=size_l0,
        level_downsamples=(1.0,),
        level_sizes=(size_l0,),
        scale=scale,
        stated_scales=(StatedScale("scanner", scale),),
        objective_power=None,
        background=BACKGROUND,
        quickhash=None,
        is_phantom=options.is_phantom,
        bounds=None,
    )
