"""Slides as large as a whole glass slide are written, read and scored in memory that does not grow with them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEAK_BYTES_MAX = 1.5e9
GROWTH_MAX = 1.10
"""Largest growth of memory for a slide four times as large."""


def written(source, out, width, height):
    script = [sys.executable, str(BENCHMARKS / "large_slide.py"), str(source), str(out)]
    subprocess.run([*script, "--width", str(width), "--height", str(height)], check=True, timeout=600)
    return out


def measured(slide, *options):
    mminfer = Path(sys.executable).parent / "mminfer"
    command = [mminfer, "bench", "slide", slide, "--rounds", "1", "--json", *options]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200).stdout)


def test_the_written_slide_is_the_mirrored_source_on_background(cmu, tmp_path):
    with (
        openslide.OpenSlide(cmu) as source,
        openslide.OpenSlide(written(cmu, tmp_path / "s.svs", 9000, 9000)) as slide,
    ):
        assert slide.level_dimensions == ((9000, 9000), (2250, 2250), (562, 562))
        assert slide.properties["openslide.mpp-x"] == source.properties["openslide.mpp-x"]
        cropped = np.asarray(source.read_region((0, 0), 0, (2048, 2048)).convert("RGB")).astype(int)
        once = np.asarray(slide.read_region((4096, 4096), 0, (2048, 2048)).convert("RGB")).astype(int)
        turned = np.asarray(slide.read_region((2048, 4096), 0, (2048, 2048)).convert("RGB")).astype(int)
        corner = np.asarray(slide.read_region((0, 0), 0, (2048, 2048)).convert("RGB")).astype(int)
    assert np.abs(once - cropped).mean() < 3
    assert np.abs(turned - cropped[:, ::-1]).mean() < 3
    assert np.abs(corner - 244).max() <= 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_slide(cmu, tmp_path):
    """100,000 × 80,000 px with the demo's tiles of 3 mm, compared with a quarter of it."""
    quarter = measured(written(cmu, tmp_path / "quarter.svs", 50_000, 40_000))
    whole = measured(written(cmu, tmp_path / "whole.svs", 100_000, 80_000))
    assert whole["tiles"] > 3.5 * quarter["tiles"]
    assert whole["peak_rss_bytes"] <= PEAK_BYTES_MAX
    assert whole["peak_rss_bytes"] <= GROWTH_MAX * quarter["peak_rss_bytes"]


@pytest.mark.slow
def test_many_small_tiles_take_no_more_memory(cmu, tmp_path):
    """256 µm tiles on a tenth of that area."""
    found = measured(written(cmu, tmp_path / "tenth.svs", 32_000, 25_000), "--tile-um", "256")
    assert found["tiles"] > 1400
    assert found["peak_rss_bytes"] <= PEAK_BYTES_MAX
