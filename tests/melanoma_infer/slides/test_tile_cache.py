"""What is kept of decoded tiles, and how much."""

from __future__ import annotations

import numpy as np
import pytest

from melanoma_infer.slides.tile_cache import TileCache

TILE = np.zeros((10, 10, 3), np.uint8)


def decodes(log, key, tile=TILE):
    def decode():
        log.append(key)
        return tile

    return decode


def test_the_tiles_used_last_are_kept_within_the_limit():
    cache, log = TileCache(limit_bytes=2 * TILE.nbytes), []
    for key in (1, 2, 1, 3, 1, 2):
        assert cache.get(key, decodes(log, key)) is TILE
    assert log == [1, 2, 3, 2]
    assert cache.held_bytes <= 2 * TILE.nbytes


def test_what_cannot_be_decoded_is_not_kept():
    cache, log = TileCache(), []

    def fails():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.get(1, fails)
    assert cache.get(1, decodes(log, 1)) is TILE
    assert log == [1]


def test_a_tile_larger_than_the_limit_is_given_and_not_kept():
    cache = TileCache(limit_bytes=1)
    assert cache.get(1, lambda: TILE) is TILE
    assert cache.held_bytes == 0
