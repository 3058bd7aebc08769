"""The first slide of a run, opened and planned while the engine is being loaded: neither needs the other.

What takes long to import for planning is imported in the thread that plans.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melanoma_infer.card import ModelCard
from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.runtime.utc import utc_now

if TYPE_CHECKING:
    from melanoma_infer.records import Identity
    from melanoma_infer.slides.slide import Slide
    from melanoma_infer.tiles.plan import SlidePlan


@dataclass
class OpenedSlide:
    """A slide, and what is known about it before any tile is scored."""

    slide: Slide
    identity: Identity
    plan: SlidePlan | None = None


@dataclass
class Opening:
    """What opens a slide, and plans it when that is wanted; used by one thread at a time.

    Args:
        request: the slide.
        full_digest: identify it by all its bytes.
    """

    request: SlideRequest
    full_digest: bool
    watch: Stopwatch = field(default_factory=Stopwatch)
    held: ExitStack = field(default_factory=ExitStack)
    """Releases the slide."""
    started: str = field(default_factory=utc_now)
    seconds: float = 0.0
    """What a head start took."""
    _opened: OpenedSlide | None = None

    def open(self) -> OpenedSlide:
        """The slide, opened and identified once.

        Raises:
            MminferError: what `SlideRequest.open` raises.
        """
        if self._opened is None:
            from melanoma_infer.slides.members import identify

            with self.watch.timing("open"):
                slide = self.held.enter_context(self.request.open())
                identity = identify(slide.path, slide.facts.quickhash, full=self.full_digest)
            self._opened = OpenedSlide(slide, identity)
        return self._opened

    def plan(self, card: ModelCard) -> SlidePlan:
        """The plan of the slide, made once.

        Raises:
            MminferError: what `open` and plan_slide raise.
        """
        from melanoma_infer.tiles.plan import plan_slide

        opened = self.open()
        if opened.plan is None:
            opened.plan = plan_slide(
                opened.slide,
                card,
                self.request.settings,
                reader=self.request.reader,
                identity=opened.identity,
                watch=self.watch,
            )
        return opened.plan


class HeadStart:
    """Opens and plans a slide in a thread. What fails there is tried again, and told, when the slide's turn comes.

    Args:
        request: the slide that comes first.
        card: the bundle's.
        full_digest: identify it by all its bytes.
    """

    def __init__(self, request: SlideRequest, card: ModelCard, *, full_digest: bool) -> None:
        self._opening: Opening | None = Opening(request, full_digest)
        self._thread = ThreadPoolExecutor(1, "mminfer-head-start")
        self._done = self._thread.submit(self._run, self._opening, card)

    @staticmethod
    def _run(opening: Opening, card: ModelCard) -> None:
        started = time.perf_counter()
        opening.plan(card)
        opening.seconds = time.perf_counter() - started

    def opening(self, request: SlideRequest) -> Opening | None:
        """The opened slide if it is this request's and did not fail; given once."""
        opening, self._opening = self._opening, None
        if opening is None:
            return None
        has_failed = self._done.exception() is not None
        self._thread.shutdown()
        if has_failed or opening.request != request:
            opening.held.close()
            return None
        return opening
