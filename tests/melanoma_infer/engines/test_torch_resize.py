"""The kernels behind a native tile's resize, in Triton's interpreter: the bytes of the CPU, in the rows asked for."""

import numpy as np
import pytest
import torch

from melanoma_infer.engines.torch_resize import TorchResize
from melanoma_infer.records import NativeTile
from melanoma_infer.tiles.native import noise_tiles
from melanoma_infer.tiles.pixels import resized
from mminfer_kernels.launch import TARGETS

pytestmark = pytest.mark.interpreter
CPU = torch.device("cpu")


def resize():
    return TorchResize(CPU, TARGETS[80], pin=lambda tensor: tensor)


def images_of(tiles, resizing):
    side = tiles[0].tile_px
    images = torch.zeros(len(tiles), side, side, 3, dtype=torch.uint8)
    resizing(tiles, images)
    return images.numpy()


def test_noise_of_the_check_at_start_has_the_bytes_of_the_cpu():
    resizing = resize()
    for tile in noise_tiles(8):
        assert np.array_equal(images_of([tile], resizing)[0], resized(tile))


@pytest.mark.parametrize("block_px", [1, 2])
def test_tiles_of_several_boxes_and_sizes_share_a_launch(block_px):
    random = np.random.default_rng(block_px)
    shifted = (20, 20), (0.5, 0.25, 19.5, 19.25)
    tiles = [
        NativeTile(random.integers(0, 256, (20 * block_px, 21 * block_px, 4), np.uint8), size, box, block_px, 8)
        for size, box in (shifted, ((19, 21), (0, 0.1, 20.7, 19)), shifted)
    ]
    for image, tile in zip(images_of(tiles, resize()), tiles, strict=True):
        assert np.array_equal(image, resized(tile))


def test_the_buffer_serves_smaller_and_larger_tiles():
    resizing = resize()
    for tile_px in (8, 6, 9):
        tile = noise_tiles(tile_px)[0]
        assert np.array_equal(images_of([tile], resizing)[0], resized(tile))
