"""Training tiles."""

from collections import Counter

import numpy as np
import pytest

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.labels import Label, draw_labels
from melanoma_infer.phantom.tiles import draw_tile, patient_of, phantom_case, place_tile

PX, UM = 128, 3000 / 128


@pytest.fixture(scope="module")
def placed() -> list:
    cases = [phantom_case(seed, ("A", "C")) for seed in range(24)]
    return [(case, place_tile(case, number, PX, UM)) for case in cases for number in (0, 1)]


def test_a_tile_shows_what_it_is_called(placed):
    for case, tile in placed:
        labels = draw_labels(case.scene, tile.rect, UM)
        wanted = {"melanoma": Label.MELANOMA, "nevus": Label.NEVUS}.get(case.scene.kind)
        area = 0.0 if wanted is None else (labels == wanted).sum() * UM**2 / 1e6
        if tile.shows == "none":
            assert area < 0.02
        else:
            assert tile.shows == case.scene.kind
            assert area > 0.005


def test_depth_is_in_a_tile_if_surface_and_deepest_cell_are(placed):
    seen = Counter()
    for case, tile in placed:
        seen[tile.surface_in_tile] += 1
        if tile.shows != "melanoma":
            assert (tile.breslow_mm, tile.surface_in_tile) == (None, None)
            continue
        ends = np.array([case.truth.surface_um, case.truth.deepest_um]) / UM - (tile.rect.x, tile.rect.y)
        assert tile.surface_in_tile == bool((ends > 1).all() and (ends < PX - 1).all())
        assert tile.breslow_mm == case.truth.breslow_mm == pytest.approx(case.person.breslow_mm, abs=0.06)
    assert seen[True] > 6
    assert seen[False] > 0


def test_all_kinds_styles_and_backgrounds_occur(placed):
    assert {tile.shows for _, tile in placed} == {"melanoma", "nevus", "none"}
    assert {case.scene.options.style for case, _ in placed} == {"A", "C"}
    background = [(draw_labels(case.scene, tile.rect, UM) == Label.BACKGROUND).mean() for case, tile in placed]
    assert max(background) > 0.6
    assert min(background) < 0.1


def test_a_tile_is_the_block_of_its_slide(placed):
    case, tile = placed[0]
    rect = tile.rect
    half = RectPx(rect.x, rect.y + 40, rect.width, 30)
    np.testing.assert_array_equal(draw_tile(case, tile)[40:70], draw(case.scene, half, UM))


def test_hard_cases_are_as_frequent_in_nevi_as_in_melanomas():
    counts = {kind: Counter() for kind in ("melanoma", "nevus", "none")}
    totals = Counter()
    for seed in range(2000):
        _, kind, options = patient_of(seed, ("A",))
        totals[kind] += 1
        counts[kind].update(options.cases)
    for name in ("dark", "infiltrate", "unpigmented", "large"):
        shares = [counts[kind][name] / totals[kind] for kind in ("melanoma", "nevus")]
        assert abs(shares[0] - shares[1]) < 0.15, name
