"""Slides: file → an open slide with its facts and its pixels."""

from __future__ import annotations

from pathlib import Path

from melanoma_infer.slides.completeness import require_complete
from melanoma_infer.slides.formats import open_reader
from melanoma_infer.slides.slide import Slide


def open_slide(path: str | Path) -> Slide:
    """The slide in that file: a whole-slide image that OpenSlide reads, or a plain image.

    Raises:
        SlideUnreadableError: it is missing, damaged or incomplete.
        SlideFormatError: no reader knows the format.
        TransientIOError: the storage failed.
    """
    slide = Slide(Path(path), open_reader(Path(path)), lambda path, _watch: open_reader(path))
    try:
        require_complete(slide.path)
    except BaseException:
        slide.close()
        raise
    return slide
