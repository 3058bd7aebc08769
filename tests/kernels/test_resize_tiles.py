"""resize_tiles and block_means against what the CPU makes of the same pixels with Pillow: not one byte may differ."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_infer.tiles.bilinear import bilinear
from melanoma_infer.tiles.block_means import block_means as cpu_block_means
from mminfer_kernels import block_means, catalogue, resize_tiles, torch_ops
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import TARGETS
from mminfer_kernels.resampling import Span, resampling, weights_of

interpreter = pytest.mark.interpreter
TARGET = TARGETS[80]
PLANS = ["pillow-bilinear", "reduce-bilinear"]
FAST, CASES = 12, 500


class Case(NamedTuple):
    """Two tiles of one size and two boxes, as a slide's grid may have them."""

    tiles: np.ndarray
    side: int
    boxes: tuple
    out: int


def content(random, kind, size):
    """Noise, one level, a checkerboard of the extremes, a ramp, or noise of the extremes alone."""
    grid = np.indices(size[:2]).sum(0)[..., None]
    match kind:
        case 0:
            pixels = random.integers(0, 256, size)
        case 1:
            pixels = np.full(size, random.integers(0, 256))
        case 2:
            pixels = 255 * (grid % 2)
        case 3:
            pixels = grid * random.uniform(0.05, 3)
        case _:
            pixels = 255 * random.integers(0, 2, size)
    return np.broadcast_to(np.asarray(pixels, np.int64) % 256, size).astype(np.uint8)


def drawn(plan, number):
    random = np.random.default_rng([PLANS.index(plan), number])
    out = 8 if number < FAST else int(random.choice([8, 16, 24, 32, 40], p=[0.3, 0.3, 0.2, 0.1, 0.1]))
    side = 1 if plan == "pillow-bilinear" else int(random.integers(2, 6))
    # As read_plan chooses blocks, what is left for the bilinear resize is a factor of 2 to 3.
    low, high = (0.6, 5.0) if side == 1 else (1.9, 3.1)
    height, width = (max(3, round(out * random.uniform(low, high))) for _ in range(2))
    size = (side * height, side * width, int(random.choice([3, 4])))
    tiles = np.stack([content(random, (number + each) % 5, size) for each in range(2)])
    inside = tuple(float(each) for each in random.random(4))
    box = (inside[0], inside[1], width - inside[2], height - inside[3])
    return Case(tiles, side, ((0.0, 0.0, float(width), float(height)), box), out)


def on_the_cpu(case):
    reduced = [cpu_block_means(np.ascontiguousarray(tile[..., :3]), case.side) for tile in case.tiles]
    return np.stack([bilinear(pixels, case.out, box) for pixels, box in zip(reduced, case.boxes, strict=True)])


def spans(case):
    height, width = (length // case.side for length in case.tiles.shape[1:3])
    across = resampling([Span(width, left, right) for left, _, right, _ in case.boxes], case.out)
    down = resampling([Span(height, top, bottom) for _, top, _, bottom in case.boxes], case.out)
    return across, down


def by_kernels(case):
    reduced = torch.from_numpy(case.tiles)
    if case.side > 1:
        reduced = block_means.plan(reduced, case.side, target=TARGET).run()
    return resize_tiles.plan(reduced, *spans(case), target=TARGET).run().numpy()


@interpreter
@pytest.mark.parametrize("plan", PLANS)
def test_a_dozen_tiles_have_the_bytes_of_the_cpu(plan):
    for number in range(FAST):
        case = drawn(plan, number)
        assert np.array_equal(by_kernels(case), on_the_cpu(case)), (plan, number)


@interpreter
@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("first", range(0, CASES, 100))
def test_500_tiles_a_plan_have_the_bytes_of_the_cpu(plan, first):
    for number in range(first, first + 100):
        case = drawn(plan, number)
        assert np.array_equal(by_kernels(case), on_the_cpu(case)), (plan, number)


@interpreter
@pytest.mark.slow
@pytest.mark.parametrize(("native", "side", "out"), [(1024, 1, 512), (2048, 2, 512), (700, 1, 512), (448, 1, 224)])
def test_whole_tiles_have_the_bytes_of_the_cpu(native, side, out):
    random = np.random.default_rng(native)
    tiles = random.integers(0, 256, (1, native, native, 4), np.uint8)
    case = Case(tiles, side, ((0.0, 0.0, native / side, native / side),), out)
    assert np.array_equal(by_kernels(case), on_the_cpu(case))


@pytest.mark.parametrize("plan", PLANS)
def test_the_plain_functions_have_the_bytes_of_the_cpu(plan):
    for number in range(100):
        case = drawn(plan, number)
        reduced = torch_ops.block_means(torch.from_numpy(case.tiles), case.side)
        images = torch_ops.resize_tiles(reduced, *spans(case))
        assert np.array_equal(images.numpy(), on_the_cpu(case)), (plan, number)


@interpreter
def test_images_are_written_where_the_caller_asks():
    case = drawn("pillow-bilinear", 3)
    slot = torch.full((5, case.out, case.out, 3), 7, dtype=torch.uint8)
    planned = resize_tiles.plan(torch.from_numpy(case.tiles), *spans(case), target=TARGET, images=slot[1:3])
    planned.run()
    assert np.array_equal(slot[1:3].numpy(), on_the_cpu(case))
    assert (slot[[0, 3, 4]] == 7).all()


@interpreter
def test_what_is_beside_a_tile_in_its_buffer_does_not_show():
    # Tiles of a grid with a fractional scale differ by a pixel; the buffer has the size of the largest.
    case = drawn("pillow-bilinear", 4)
    _, height, width, pixel = case.tiles.shape
    expected = on_the_cpu(case)
    for beside in (0, 255):
        buffer = np.full((2, height + 2, width + 3, pixel), beside, np.uint8)
        buffer[:, :height, :width] = case.tiles
        images = resize_tiles.plan(torch.from_numpy(buffer), *spans(case), target=TARGET).run()
        assert np.array_equal(images.numpy(), expected)


def pillows_weights(span, out):
    """(out, size): the weights that Pillow uses, from its resize of int32 images with a single pixel of 2²²."""
    ones = (np.eye(span.size) * (1 << 22)).astype(np.int32)
    resized = Image.fromarray(ones).resize(
        (out, span.size), Image.Resampling.BILINEAR, (span.start, 0, span.stop, span.size)
    )
    return np.asarray(resized).T


@pytest.mark.parametrize(
    ("span", "out"),
    [
        (Span(64, 0, 64), 64), (Span(64, 0.3, 63.9), 50), (Span(40, 0, 40), 64), (Span(300, 0.77, 299.1), 31),
        (Span(129, 0.001, 128.5), 64), (Span(7, 0.9, 6.1), 3),
    ],
)  # fmt: skip
def test_weights_are_those_of_the_installed_pillow(span, out):
    table = weights_of(span, out)
    dense = np.zeros((out, span.size), np.int64)
    for x, tap in itertools.product(range(out), range(table.weight.shape[1])):
        dense[x, table.first[x] + tap] += table.weight[x, tap]
    assert np.array_equal(dense, pillows_weights(span, out))
    assert (np.diff(table.first) >= 0).all()


def test_tiles_with_the_same_box_share_their_weights():
    shared = resampling([Span(20, 0, 20), Span(20, 0.5, 19.5), Span(20, 0, 20)], 8)
    assert shared.of.tolist() == [0, 1, 0]
    assert shared.first.shape == (2, 8)


def test_an_axis_shorter_than_the_windows_is_refused():
    with pytest.raises(KernelInputError, match="2 pixels is shorter than the 5"):
        resampling([Span(2, 0, 2), Span(17, 0, 17)], 8)


def resize_arguments(**changes):
    arguments = catalogue.inputs("resize_tiles", Problem(torch.uint8, 2, native_px=40, tile_px=16))
    return {**arguments, **changes}


WRONG = {
    "float pixels": ({"tiles": torch.zeros(2, 41, 41, 4)}, "give uint8"),
    "grey pixels": ({"tiles": torch.zeros(2, 41, 41, 1, dtype=torch.uint8)}, "3 or 4"),
    "one tile more": ({"tiles": torch.zeros(3, 41, 41, 4, dtype=torch.uint8)}, "across.of"),
    "too narrow": ({"tiles": torch.zeros(2, 41, 3, 4, dtype=torch.uint8)}, "41 × 3"),
    "a view": ({"tiles": torch.zeros(2, 41, 82, 4, dtype=torch.uint8)[:, :, ::2]}, "not contiguous"),
    "other images": ({"images": torch.zeros(2, 17, 16, 3, dtype=torch.uint8)}, "images"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(KernelInputError, match=words):
        resize_tiles.plan(**resize_arguments(**changes), target=TARGET)


def test_more_pixels_a_pixel_than_registers_hold_are_refused():
    arguments = catalogue.inputs("resize_tiles", Problem(torch.uint8, 1, native_px=300, tile_px=16))
    with pytest.raises(KernelInputError, match="block means first"):
        resize_tiles.plan(**arguments, target=TARGET)


@pytest.mark.parametrize("side", [0, 3, 2049])
def test_blocks_that_do_not_cover_the_tile_are_refused(side):
    tiles = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(KernelInputError, match="8 × 8"):
        block_means.plan(tiles, side, target=TARGET)
