"""Levels that show other colours or another scan are found; those that a pyramid has are not."""

from __future__ import annotations

import numpy as np
import pytest
from slides_for_tests import BACKGROUND, ArraySlide, halved, noise, reading, smooth, solid

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx, Scale
from melanoma_infer.tiles.same_picture import require_same_picture
from melanoma_infer.tiles.tissue import find_tissue

SCALE = Scale(0.5, 0.5)


def picture(tissue: tuple[int, int, int] = (180, 90, 150)) -> np.ndarray:
    """A section of one colour in the middle of a bright background."""
    rgb = solid(2048, 2048)
    rgb[512:1536, 512:1536] = tissue
    return np.asarray(np.clip(rgb.astype(int) + noise(2048, 2048) // 32 - 4, 0, 255), np.uint8)


def pyramid(rgb: np.ndarray) -> list[np.ndarray]:
    """Levels of 0.5, 1, 2, 4 and 8 µm/px."""
    levels = [rgb]
    while len(levels) < 5:
        levels.append(halved(levels[-1]))
    return levels


def in_wrong_colours(rgb: np.ndarray) -> np.ndarray:
    """Red and blue in each other's place, on a background that is not grey."""
    return np.asarray(rgb[..., ::-1] // np.array([1, 2, 1], np.uint8))


def check(*levels: np.ndarray, damaged_l0: tuple[RectPx, ...] = (), wanted: tuple[int, ...] = (0, 2)) -> None:
    with reading(ArraySlide(*levels, damaged_l0=damaged_l0)) as slide:
        require_same_picture(slide, find_tissue(slide, SCALE), wanted)


def test_levels_made_from_each_other_are_accepted():
    check(*pyramid(picture()))
    check(*pyramid(smooth(2048, 2048)))
    check(*(picture()[:: 2**n, :: 2**n] for n in range(5)))


def test_wrong_colours_on_the_level_that_tissue_is_found_on_are_refused():
    levels = pyramid(picture())
    levels[-1] = in_wrong_colours(levels[-1])
    with pytest.raises(SlideUnreadableError, match=r"on level 0 and .* on the one that shows the whole slide"):
        check(*levels)


def test_wrong_colours_on_the_level_that_is_read_are_refused():
    levels = pyramid(picture())
    levels[2] = in_wrong_colours(levels[2])
    with pytest.raises(SlideUnreadableError, match="on level 2"):
        check(*levels)
    check(*levels, wanted=(0, 1))


def test_a_level_of_another_scan_is_refused():
    here, there = pyramid(picture()), pyramid(solid(2048, 2048, BACKGROUND))
    with pytest.raises(SlideUnreadableError, match="another scan"):
        check(*there[:-1], here[-1])


def test_wrong_colours_are_refused_where_no_tissue_is_found():
    levels = pyramid(picture())
    levels[-1] = levels[-1] // 8
    with pytest.raises(SlideUnreadableError, match="same picture"):
        check(*levels)


def test_one_place_that_differs_is_no_other_picture():
    levels = pyramid(picture())
    levels[0][512:800, 512:1536] = BACKGROUND
    check(*levels)


def test_a_coarse_level_that_is_shifted_by_a_pixel_is_no_other_picture():
    """Cells of 32 µm, dark or bright: a place of two pixels of a level of 32 µm/px would have other cells."""
    rgb = noise(32, 32).repeat(64, 0).repeat(64, 1)
    levels = pyramid(rgb)
    levels += [halved(levels[-1]), halved(halved(levels[-1]))]
    levels[-1] = np.roll(levels[-1], 1, axis=(0, 1))
    check(*levels, wanted=(6,))
    levels[-1] = in_wrong_colours(levels[-1])
    with pytest.raises(SlideUnreadableError, match="on level 6"):
        check(*levels, wanted=(6,))


def test_what_cannot_be_read_or_was_not_scanned_is_not_compared():
    levels = pyramid(picture())
    check(*levels, damaged_l0=(RectPx(0, 0, 2048, 1100),))
    transparent = np.zeros((2048, 2048, 4), np.uint8)
    check(transparent, *levels[1:], wanted=(0,))
