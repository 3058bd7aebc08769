"""Slides: file → an open slide with its facts and its pixels."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from melanoma_infer.errors import SlideFormatError
from melanoma_infer.slides.companions import beside_companions
from melanoma_infer.slides.completeness import require_complete
from melanoma_infer.slides.formats import open_reader
from melanoma_infer.slides.series import series_doubts
from melanoma_infer.slides.slide import Slide
from melanoma_infer.slides.tiff_pages import require_known_encoding, require_whole_picture


def open_slide(path: str | Path) -> Slide:
    """The slide in that file: a whole-slide image that OpenSlide reads, or a plain image.

    Raises:
        SlideUnreadableError: it is missing, damaged or incomplete, or a file that belongs to it is missing.
        SlideFormatError: no reader knows the format or the encoding, the file holds no slide image, or what would be
            read is not the whole slide in its colours.
        TransientIOError: the storage failed.
    """
    path = beside_companions(Path(path))
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise SlideFormatError("This is no regular file but a device or a pipe. Save the slide as a file.")
    from melanoma_infer.slides.openslide_reader import vendor_of

    vendor = vendor_of(path)
    require_known_encoding(path, vendor)
    slide = Slide(path, open_reader(path), lambda path, _watch: open_reader(path))
    try:
        require_complete(path)
        require_whole_picture(path, vendor, slide.facts.size_l0)
        slide.facts = replace(slide.facts, doubts=series_doubts(path))
    except BaseException:
        slide.close()
        raise
    return slide
