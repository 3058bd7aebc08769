"""A region drawn at a known place of a phantom is found there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.write import truth_file, write_phantom
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.settings import Settings

RASTER_L0 = 5
SIZE_UM = (6000.0, 4500.0)


def raster(size_l0: tuple[int, int], rings: list[list[list[float]]]) -> np.ndarray:
    image = Image.new("1", (size_l0[0] // RASTER_L0, size_l0[1] // RASTER_L0))
    for ring in rings:
        ImageDraw.Draw(image).polygon([(x / RASTER_L0, y / RASTER_L0) for x, y in ring], fill=1)
    return np.array(image)


def test_the_colour_rule_outlines_the_drawn_lesion(dark_bundle: Path, tmp_path: Path):
    slide = tmp_path / "phantom.svs"
    write_phantom(
        slide, make_scene(4, "melanoma", SIZE_UM, Options(cases=frozenset({"dark", "large"}), depth_mm=1.1)), 1.0
    )
    truth = json.loads(truth_file(slide).read_text())
    scorer = Scorer(open_bundle(dark_bundle))
    result = score_slide(slide, scorer, settings=Settings(stride_um=128))
    size = (result.slide.width_px, result.slide.height_px)
    drawn = raster(size, truth["sections"][0]["outlines_l0"])
    found = raster(size, [region.outline for region in result.regions])
    found &= ~raster(size, [hole for region in result.regions for hole in region.holes])
    # Colour finds the solid part, and not the paler cells below it.
    assert (drawn & found).sum() / found.sum() >= 0.97
    assert (drawn & found).sum() / drawn.sum() >= 0.55
    assert result.view is not None
    y, x = (((np.arange(side) + 0.5) * RASTER_L0 / result.view.px_l0).astype(int) for side in found.shape)
    assert result.view.tissue[np.ix_(y, x)][found].mean() > 0.98  # Pillow fills the border's pixels, too
    assert sum(region.area_mm2 for region in result.regions) <= result.tissue_mm2
    assert result.verdict == "suspected"
    assert result.regions[0].class_ == "malignant"
