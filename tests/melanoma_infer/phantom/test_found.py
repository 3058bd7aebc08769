"""A model that tells dark from pale finds the lesion where it was drawn: coordinates, scale and tiles agree."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from melanoma_infer import Scorer, open_bundle, score_slide
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.truth import truth_of
from melanoma_infer.phantom.write import write_phantom

SIZE_UM = (5000.0, 3600.0)
DARK = Options(cases=frozenset({"dark", "large"}), depth_mm=0.9)


@pytest.fixture(scope="module")
def scorer(dark_bundle):
    return Scorer(open_bundle(str(dark_bundle)))


@pytest.mark.parametrize("um_per_px", [pytest.param(0.8, marks=pytest.mark.slow), 1.0])
def test_the_lesion_is_found_at_its_place(scorer, tmp_path, um_per_px):
    scene = make_scene(4, "melanoma", SIZE_UM, DARK)
    write_phantom(tmp_path / "s.svs", scene, um_per_px)
    result = score_slide(tmp_path / "s.svs", scorer)
    truth = truth_of(scene, um_per_px)
    drawn, found = Image.new("1", truth.size_l0), Image.new("1", truth.size_l0)
    for outline in truth.sections[0].outlines_l0:
        ImageDraw.Draw(drawn).polygon(outline, fill=1)
    tiles = result.tiles
    for place in np.flatnonzero(tiles.probabilities[:, 1] >= 0.5):
        x, y = tiles.minx[place], tiles.miny[place]
        ImageDraw.Draw(found).rectangle((x, y, x + tiles.width[place] - 1, y + tiles.height[place] - 1), fill=1)
    a, b = np.asarray(drawn), np.asarray(found)
    assert result.verdict == "suspected"
    assert (a & b).sum() / (a | b).sum() >= 0.6


def test_nothing_is_found_where_nothing_was_drawn(scorer, tmp_path):
    write_phantom(tmp_path / "s.svs", make_scene(8, "none", SIZE_UM, DARK), 1.0)
    result = score_slide(tmp_path / "s.svs", scorer)
    assert (result.tiles.probabilities[:, 1] < 0.5).all()
    assert result.verdict == "not-detected"
