"""What every slide reader offers.

To add a format: write a class with `facts`, `read_region` and `close`, map the library's errors to ours, and name it in
`slides/formats.py`. A reader opens no label and no macro image, and copies only properties that SlideFacts names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx
from melanoma_infer.records import SlideFacts
from melanoma_infer.runtime.stopwatch import Stopwatch


class RegionUnreadableError(Exception):
    """A region could not be read. `Slide` catches it and tries once more on a fresh handle."""


Opener = Callable[[Path, Stopwatch], "SlideReader"]
"""Opens a slide; the reader adds to the stopwatch what it can time apart from reading, such as decoding."""


class SlideReader(Protocol):
    """An open slide. One reader belongs to one thread at a time."""

    @property
    def facts(self) -> SlideFacts:
        """What may be known about the slide."""
        ...

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """Pixels of a rectangle in level pixels: RGB (h, w, 3), or RGBA (h, w, 4), alpha 0 where the slide has none.

        Raises:
            RegionUnreadableError: the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Closing:
    """A context manager that closes on leaving."""

    def close(self) -> None:
        """Release what this object holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
