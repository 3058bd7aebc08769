"""The tiles that bundles are compared on: drawn, or the author's own pictures."""

from __future__ import annotations

import numpy as np
import pytest
from own_models_for_tests import card, random_tiles
from PIL import Image

from melanoma_infer.errors import UsageError
from mminfer_export.sample_tiles import samples_for


def test_drawn_tiles_are_the_card_s_size_and_differ():
    samples = samples_for(card(tile_px=96, um_per_px=0.5))
    assert samples.tiles.shape == (8, 96, 96, 3)
    assert samples.on == "8 drawn tiles"
    assert len(np.unique(samples.tiles.mean((1, 2, 3)).round(3))) == 8


def test_pictures_and_folders_of_them_are_read_in_order(tmp_path):
    tiles = random_tiles(3)
    for place, tile in enumerate(tiles[:2]):
        Image.fromarray(tile).save(tmp_path / f"{place}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    Image.fromarray(tiles[2]).convert("RGBA").save(tmp_path / "alone.tiff")
    samples = samples_for(card(), [tmp_path / "alone.tiff", tmp_path])
    np.testing.assert_array_equal(samples.tiles, np.stack([tiles[2], tiles[0], tiles[1], tiles[2]]))
    assert samples.on == "4 of the author's tiles"


def test_pictures_of_another_size_are_refused_and_not_resized(tmp_path):
    Image.fromarray(random_tiles(1, 48)[0]).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="48 × 48 px, and the card's tiles are 32 px"):
        samples_for(card(), [tmp_path / "a.png"])


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        samples_for(card(), [tmp_path / "a.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="No pictures"):
        samples_for(card(), [tmp_path / "empty"])
