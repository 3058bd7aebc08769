"""The contact sheet: which tiles are where, and what is drawn on them."""

import io

import numpy as np
import pytest
from datasets_for_tests import lesion_card, square
from PIL import Image
from slides_for_tests import solid, write_image

from melanoma_infer.datasets.contact_sheet import (
    CAPTION,
    COLUMNS,
    GAP,
    MARGIN,
    NAMES,
    OUTLINE,
    SIDE,
    TITLE,
    contact_sheet,
)
from melanoma_infer.datasets.labels import LabelledTile

CARD = lesion_card()
BLUE = (20, 40, 200)


@pytest.fixture
def tiles(tmp_path):
    """Two blue naevi, and 15 melanomas from black to light grey."""
    (tmp_path / "tiles").mkdir()
    rows = [("naevus", f"n{i}", BLUE) for i in range(2)] + [("melanoma", f"m{i}", (16 * i,) * 3) for i in range(15)]
    for _, name, colour in rows:
        write_image(tmp_path / "tiles" / f"{name}.png", solid(16, 16, colour))
    blank = dict.fromkeys(("x_l0", "y_l0", "breslow_mm", "surface_in_tile", "outcome", "split"))
    return [
        LabelledTile(f"tiles/{name}.png", "s", "P1", um_per_px=80.0, label=label, values={}, **blank)
        for label, name, _ in rows
    ]


def sheet_of(folder, tiles, outlines=lambda _tile: ()):
    return np.asarray(Image.open(io.BytesIO(contact_sheet(folder, tiles, CARD, "Drawn.", outlines))))


def corner(row, column):
    return MARGIN + NAMES + column * (SIDE + GAP), TITLE + row * (SIDE + CAPTION + GAP)


def middle(sheet, row, column):
    x, y = corner(row, column)
    return tuple(sheet[y + SIDE // 2, x + SIDE // 2].tolist())


def test_the_highest_class_is_on_top_and_its_tiles_are_spread_from_the_first_to_the_last(tmp_path, tiles):
    sheet = sheet_of(tmp_path, tiles)
    assert [middle(sheet, 0, column)[0] for column in range(COLUMNS)] == [16 * i for i in (0, 2, 4, 6, 8, 10, 12, 14)]
    assert [middle(sheet, 1, column) for column in range(3)] == [BLUE, BLUE, (255, 255, 255)]
    assert sheet.shape[0] == TITLE + 2 * (SIDE + CAPTION + GAP) + MARGIN


def test_outlines_are_drawn_where_they_are_on_the_tile(tmp_path, tiles):
    ring = np.array(square(4, 4, 8), np.float64)
    sheet = sheet_of(tmp_path, tiles, lambda tile: (ring,) if tile.label == "naevus" else ())
    x, y = corner(1, 0)
    quarter = SIDE // 4
    for at in ((quarter, SIDE // 2), (3 * quarter, SIDE // 2), (SIDE // 2, quarter), (SIDE // 2, 3 * quarter)):
        assert tuple(sheet[y + at[1], x + at[0]].tolist()) == OUTLINE
    assert middle(sheet, 1, 0) == BLUE
    x, y = corner(0, 0)
    assert not (sheet[y : y + SIDE, x : x + SIDE] == OUTLINE).all(axis=2).any()


def test_the_same_tiles_give_the_same_bytes(tmp_path, tiles):
    first, again = (contact_sheet(tmp_path, tiles, CARD, "Drawn.", lambda _tile: ()) for _ in range(2))
    assert first == again


def test_a_name_in_letters_that_the_font_lacks_or_that_is_too_long_is_no_error(tmp_path, tiles):
    odd = [LabelledTile(**{**vars(tile), "slide": "Präparat ✓ " * 40}) for tile in tiles]
    assert sheet_of(tmp_path, odd).shape == sheet_of(tmp_path, tiles).shape
