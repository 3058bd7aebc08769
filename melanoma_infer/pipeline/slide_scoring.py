"""One slide while it is scored: tissue → tiles → engine → result, the first tiles read before the engine asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import GalleryTile, Identity, ReadTile, Tile
from melanoma_infer.reports.gallery import CHOSEN_MAX, Choice, choose
from melanoma_infer.result import SlideResult
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.scoring.accumulator import Accumulator, SlideCase
from melanoma_infer.settings import Settings
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.choice import ReaderChoice, opener_of
from melanoma_infer.slides.retrying import RetryingReader
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tile, read_tiles

Progress = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""


@dataclass(frozen=True)
class SlideRequest:
    """One slide to be scored, and what is said of it."""

    path: Path
    case: SlideCase
    settings: Settings
    reader: ReaderChoice = "auto"
    """Who decodes the tiles. No number depends on it."""


class SlideScoring(Closing):
    """A slide whose tissue is found and whose first tiles are read; `infer` it to the end, then ask for its `result`.

    Args:
        request: the slide.
        scorer: a bundle on an engine.
        watch: gets the time of each stage.
        identity: None to find it out.
        settings_digest: what a later run compares its own with.

    Raises:
        MminferError: see plan_slide.
    """

    def __init__(
        self,
        request: SlideRequest,
        scorer: Scorer,
        watch: Stopwatch,
        *,
        identity: Identity | None = None,
        settings_digest: str | None = None,
    ) -> None:
        self._path, self._scorer, self._watch = request.path, scorer, watch
        self._plan = plan_slide(
            request.path,
            scorer.bundle.card,
            request.settings,
            reader=request.reader,
            watch=watch,
            identity=identity,
        )
        self._tiles = Accumulator(
            self._plan,
            request.case,
            scorer.bundle,
            numerics=scorer.numerics,
            settings=request.settings,
            settings_digest=settings_digest,
        )
        self._opener = opener_of(self._plan.facts)
        self._reads = read_tiles(
            request.path,
            self._plan.tiles,
            self._plan.reading,
            threads=scorer.threads,
            ahead=scorer.engine.tiles_at_once,
            opener=self._opener,
            watch=watch,
        )
        self._seen: dict[int, ReadTile] = {}
        with watch.timing("wait"):
            self._first = list(islice(self._reads, 1))

    def infer(self, progress: Progress | None = None) -> Iterator[Tile]:
        """Pass the tiles through the engine; each when it is done.

        Raises:
            SlideUnreadableError: none of them can be read.
        """
        reads: Iterator[ReadTile] = chain(self._first, self._reads)
        if len(self._plan.tiles) <= CHOSEN_MAX:
            reads = _noted(reads, self._seen)
        results = self._scorer.infer_each(self._watch.waiting("wait", reads))
        with closing(self._reads):
            for done, result in enumerate(self._watch.waiting("infer", results), start=1):
                with self._watch.timing("score"):
                    self._tiles.add(result)
                if progress is not None:
                    progress(done, len(self._plan.tiles))
                yield result.tile
        if self._tiles.nothing_was_read:
            raise SlideUnreadableError(
                f"None of the slide's {len(self._plan.tiles)} tiles can be read: the file is damaged. Copy it again."
            )

    def result(self) -> SlideResult:
        """The slide's result, once all tiles are done."""
        with self._watch.timing("score"):
            scored = self._tiles.result()
        card = self._scorer.bundle.card
        with self._watch.timing("gallery"):
            gallery = self._gallery(choose(scored.tiles, card))
        timed = scored.model_copy(update={"timings_ms": self._watch.rounded_ms})
        return timed.carrying(scored.tiles, scored.view, gallery, card=card)

    def close(self) -> None:
        """Stop reading."""
        self._reads.close()

    def _gallery(self, chosen: list[Choice]) -> tuple[GalleryTile, ...]:
        """The chosen tiles' pixels, read once more where there were too many tiles to keep."""
        reads = dict(self._seen)
        missing = [self._plan.tiles[choice.row] for choice in chosen if choice.row not in reads]
        if missing:
            with RetryingReader(self._path, self._opener) as reader:
                reads |= {tile.index: read_tile(reader, tile, self._plan.reading) for tile in missing}
        pixels = ((choice, reads[choice.row].pixels) for choice in chosen)
        return tuple(GalleryTile(choice.row, choice.role, each) for choice, each in pixels if each is not None)


def _noted(reads: Iterator[ReadTile], seen: dict[int, ReadTile]) -> Iterator[ReadTile]:
    for read in reads:
        seen[read.tile.index] = read
        yield read
