"""Bytes counted in the interpreter: exact on a kernel whose bytes are known, and within the bounds at small sizes."""

from dataclasses import replace

import pytest
import torch

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_proofs import traffic

pytestmark = pytest.mark.interpreter


def by_argument(name, problem):
    return {row.argument: row for row in traffic.rows_of(name, problem)}


def test_masked_lanes_do_not_count():
    rows = by_argument("normalize_tiles", Problem(torch.float16, 3, tile_px=5))
    assert (rows["tiles"].loaded_bytes, rows["tiles"].stored_bytes, rows["tiles"].argument_bytes) == (225, 0, 225)
    assert (rows["images"].loaded_bytes, rows["images"].stored_bytes, rows["images"].argument_bytes) == (0, 450, 450)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("channels", "side"), [(2048, 16), (2044, 15), (64, 7)])
def test_attention_tail_reads_x_and_w1_once_a_tile(dtype, channels, side):
    rows = by_argument("attention_tail", Problem(dtype, 2, channels, side, side))
    assert rows["x"].loaded_bytes == rows["x"].argument_bytes
    assert rows["w1_image"].loaded_bytes == 2 * rows["w1_image"].argument_bytes
    assert not rows["x"].stored_bytes


@pytest.mark.parametrize("name", KERNELS)
def test_the_networks_traffic_is_within_its_bounds(name):
    problem = Problem(catalogue.dtypes(name)[0], 1, tile_px=128 if name in catalogue.OF_PIXELS else 512)
    assert list(traffic.problems(traffic.rows_of(name, problem))) == []


def test_repetitions_count_for_caches_and_once_for_memory():
    rows = by_argument("resize_tiles", Problem(torch.uint8, 1, tile_px=16))
    tiles = rows["tiles"]
    assert tiles.loaded_bytes > tiles.argument_bytes >= tiles.sector_bytes > 0.9 * tiles.argument_bytes
    none = [replace(row, sector_bytes=0) for row in rows.values()]
    assert "resize_tiles moves 0.0000 of tiles for tiles, from memory: at most 1.0" in list(traffic.problems(none))


def test_a_second_pass_over_x_is_a_problem():
    rows = traffic.rows_of("attention_tail", Problem(torch.float16, 1, 64, 7, 7))
    twice = [replace(row, loaded_bytes=2 * row.loaded_bytes) if row.argument == "x" else row for row in rows]
    assert "attention_tail moves 2.0000 of x for x: at most 1.0" in list(traffic.problems(twice))
