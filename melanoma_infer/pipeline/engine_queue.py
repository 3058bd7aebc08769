"""One engine shared by many scan sessions: their tiles take turns, and one thread computes them.

The thread starts with the first tile and ends when none is left, so a session that nobody closes leaves none behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import TIMEOUT_MAX, Condition, Thread
from time import monotonic

from melanoma_infer.errors import UsageError
from melanoma_infer.records import ReadTile, TileResult

OnTile = Callable[[TileResult], None]
"""Called after each tile, in the engine's thread."""
Infer = Callable[[Iterable[ReadTile]], Iterator[TileResult]]
Read = Callable[[], ReadTile]
"""Gives a tile's pixels; called in a thread that resizes."""


class Lane:
    """The tiles of one session that wait for the engine, and what came of them.

    Args:
        store: called with each result and the tile's pixels, in the engine's thread.
    """

    def __init__(self, store: Callable[[TileResult, ReadTile], None]) -> None:
        self.store = store
        self.waiting: deque[Read] = deque()
        self.in_engine = 0
        self.failure: BaseException | None = None

    @property
    def unfinished(self) -> int:
        """Tiles that wait or are being computed."""
        return len(self.waiting) + self.in_engine


@dataclass(frozen=True)
class _Taken:
    lane: Lane
    read: Future[ReadTile]


class EngineQueue:
    """The lanes of all sessions of one engine.

    Args:
        infer: gives the results of tiles in order, as Scorer.infer_each.
        ahead: tiles to resize ahead of the engine.
        threads: that resize.
        is_free: whether nothing else uses the engine.
    """

    def __init__(self, infer: Infer, *, ahead: int, threads: int, is_free: Callable[[], bool]) -> None:
        self._infer, self._ahead, self._threads, self._is_free = infer, ahead, threads, is_free
        self._lanes: deque[Lane] = deque()
        """Those with waiting tiles, in the order of their turns."""
        self._thread: Thread | None = None
        self._changed = Condition()

    @property
    def is_running(self) -> bool:
        """Whether the engine has tiles of a session."""
        return self._thread is not None

    def put(self, lane: Lane, read: Read, *, room: int | None = None) -> None:
        """Queue a tile.

        Raises:
            UsageError: the engine is scoring files.

        Args:
            lane: of its session.
            read: gives its pixels.
            room: wait until fewer tiles of this lane are unfinished; None: do not wait.
        """
        with self._changed:
            while room is not None and lane.unfinished >= room and lane.failure is None:
                self._changed.wait()
            if lane.failure is not None:
                return
            lane.waiting.append(read)
            if lane not in self._lanes:
                self._lanes.append(lane)
            if self._thread is None:
                if not self._is_free():
                    self._lanes.clear()
                    lane.waiting.clear()
                    raise UsageError("This scorer is scoring files. Make another Scorer for scans in progress.")
                self._thread = Thread(target=self._run, name="mminfer-engine")
                self._thread.start()

    def wait(self, lane: Lane, seconds: float | None = None) -> bool:
        """Wait until no tile of a lane is unfinished, or it failed; False: the time is over."""
        end = None if seconds is None else monotonic() + seconds
        with self._changed:
            while lane.unfinished and lane.failure is None:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(None if left is None else min(left, TIMEOUT_MAX))
        return True

    def drop(self, lane: Lane, failure: BaseException | None = None) -> None:
        """Forget a lane's waiting tiles; with a failure, its later ones too."""
        with self._changed:
            lane.waiting.clear()
            if lane.failure is None:
                lane.failure = failure
            self._changed.notify_all()

    def _run(self) -> None:
        """Compute the waiting tiles until there are none."""
        while self._has_more():
            in_engine: deque[_Taken] = deque()
            try:
                with ThreadPoolExecutor(self._threads, "mminfer-resize") as pool:
                    for result in self._infer(self._reads(pool, in_engine)):
                        self._finish(in_engine.popleft(), result)
            except BaseException as error:  # noqa: BLE001 - it is raised in every session that it concerns
                self._fail(in_engine, error)

    def _has_more(self) -> bool:
        with self._changed:
            if not self._lanes:
                self._thread = None
            return bool(self._lanes)

    def _reads(self, pool: ThreadPoolExecutor, in_engine: deque[_Taken]) -> Iterator[ReadTile]:
        """The waiting tiles of all lanes in turn; ends when none is waiting, so that the engine finishes its last."""
        ahead: deque[_Taken] = deque()
        while True:
            while len(ahead) < self._ahead and (taken := self._take(pool)) is not None:
                ahead.append(taken)
                in_engine.append(taken)
            if not ahead:
                return
            yield ahead.popleft().read.result()

    def _take(self, pool: ThreadPoolExecutor) -> _Taken | None:
        """The next lane's first tile; the lane then waits for its next turn."""
        with self._changed:
            while self._lanes:
                lane = self._lanes.popleft()
                if not lane.waiting:  # dropped
                    continue
                read = lane.waiting.popleft()
                lane.in_engine += 1
                if lane.waiting:
                    self._lanes.append(lane)
                return _Taken(lane, pool.submit(read))
        return None

    def _finish(self, taken: _Taken, result: TileResult) -> None:
        failure = None
        try:
            taken.lane.store(result, taken.read.result())
        except BaseException as error:  # noqa: BLE001 - of the session's own callback; it is raised in the session
            failure = error
        with self._changed:
            taken.lane.in_engine -= 1
            self._changed.notify_all()
        if failure is not None:
            self.drop(taken.lane, failure)

    def _fail(self, in_engine: deque[_Taken], error: BaseException) -> None:
        """Let every session fail that has tiles in the engine or waiting for it: the engine failed, not a tile."""
        with self._changed:
            lanes = {id(lane): lane for lane in (*self._lanes, *(taken.lane for taken in in_engine))}
            self._lanes.clear()
            for lane in lanes.values():
                lane.in_engine = 0
                lane.waiting.clear()
                lane.failure = lane.failure or error
            self._changed.notify_all()
