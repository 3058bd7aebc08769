"""Regions: where the evidence lies, how large it is, and the same outlines for every reader."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card

from melanoma_infer.card import ModelCard
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import TileTable, Tissue
from melanoma_infer.scoring.regions import StitchedMaps, find_regions, regions_note, stitch
from melanoma_infer.tiles.grid import Geometry

SIZE = SizePx(1000, 800)
SCALE = Scale(0.5, 0.5)
MAPPED = {
    "classes": ["normal", "naevus", "melanoma"],
    "malignant": ["melanoma"],
    "outputs": ["cam"],
    "cam_scale": 2.0,
    "region_threshold": 0.5,
}


def tissue(mask: np.ndarray | None = None, px_l0: float = 10.0) -> Tissue:
    mask = np.ones((80, 100), bool) if mask is None else mask
    return Tissue(mask, np.zeros_like(mask), np.zeros_like(mask), px_l0, None, 240.0, True, "mask")


def table(
    corners: list[tuple[int, int]], probabilities: np.ndarray, cam: np.ndarray | None, side: int = 400
) -> TileTable:
    n = len(corners)
    y, x = np.array(corners).reshape(n, 2).T
    return TileTable(
        classes=("normal", "naevus", "melanoma"), minx=x, miny=y, width=np.full(n, side), height=np.full(n, side),
        probabilities=probabilities, depth_mm=None, status=np.full(n, "ok"), tissue_fraction=np.ones(n),
        cause=np.full(n, ""), padded_fraction=np.zeros(n), features=None, attention=None, cam=cam,
    )  # fmt: skip


def mapped_card(**changes: object) -> ModelCard:
    return colour_rule_card(**(MAPPED | changes))


def maps_of(
    corners: list[tuple[int, int]], probabilities: np.ndarray, cam: np.ndarray | None, **more: object
) -> StitchedMaps:
    geometry = Geometry(200.0, float(more.get("stride_um", 200.0)), 64, True)
    card = mapped_card(**({} if cam is not None else {"outputs": [], "cam_scale": None}))
    place = {"size_l0": SIZE, "scale": SCALE, "geometry": geometry, "tissue": more.get("tissue", tissue())}
    return stitch(table(corners, probabilities, cam), card, **place)


def test_cell_evidence_is_the_lesion_s_probability_times_the_clipped_map():
    cam = np.zeros((1, 3, 4, 4), np.float32)
    cam[0, 0] = np.array([[-1, 0, 1, 2], [4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.5]])
    maps = maps_of([(0, 0)], np.array([[0.2, 0.3, 0.5]]), cam)
    assert maps.cell_l0 == (100.0, 100.0)
    assert maps.lesion.shape == (8, 10)
    assert maps.lesion[0, :4] == pytest.approx([0, 0, 0.4, 0.8])
    assert maps.lesion[1, 0] == pytest.approx(0.8)
    assert maps.lesion[3, 3] == pytest.approx(0.2)
    assert maps.malignant[0, 3] == pytest.approx(0.5)
    assert np.isnan(maps.lesion[4:]).all()
    assert np.isnan(maps.lesion[:, 4:]).all()


def test_overlapping_tiles_are_averaged():
    cam = np.full((2, 3, 4, 4), 2, np.float32)
    maps = maps_of([(0, 0), (0, 200)], np.array([[0, 0, 1.0], [0.6, 0.4, 0]]), cam, stride_um=100.0)
    assert maps.lesion[0, :6] == pytest.approx([1, 1, 0.7, 0.7, 0.4, 0.4])
    assert maps.malignant[0, :6] == pytest.approx([1, 1, 0.5, 0.5, 0, 0])


def test_the_order_of_tiles_changes_no_bit():
    luck = np.random.default_rng(5)
    corners = [(y, x) for y in range(0, 800, 200) for x in range(0, 1000, 200)]
    probabilities = luck.dirichlet([1, 1, 1], len(corners))
    cam = luck.normal(1, 1, (len(corners), 3, 4, 4)).astype(np.float32)
    one = maps_of(corners, probabilities, cam, stride_um=100.0)
    assert one.lesion.shape == (8, 10)
    assert np.isfinite(one.lesion).all()


def test_there_is_no_heat_over_glass():
    mask = np.zeros((80, 100), bool)
    mask[:, :20] = True
    maps = maps_of([(0, 0)], np.array([[0, 0, 1.0]]), np.full((1, 3, 4, 4), 9, np.float32), tissue=tissue(mask))
    assert np.isfinite(maps.lesion[:4, :2]).all()
    assert np.isnan(maps.lesion[:, 2:]).all()


def test_without_maps_a_cell_is_a_tile_and_that_is_said():
    maps = maps_of([(0, 0), (400, 400)], np.array([[0.1, 0, 0.9], [0.7, 0.3, 0]]), None)
    assert maps.lesion.shape == (2, 3)
    assert maps.lesion[0, 0] == pytest.approx(0.9)
    assert maps.lesion[1, 1] == pytest.approx(0.3)
    assert regions_note(maps, SCALE) == "The model gives no maps: drawn at the resolution of the tiles, 200 µm."


def test_no_lesion_is_a_role_and_not_a_position():
    card = mapped_card(classes=["melanoma", "normal", "naevus"], no_lesion="normal")
    assert card.lesion_columns == (0, 2)
    assert mapped_card(classes=["melanoma", "normal", "naevus"]).lesion_columns == (0, 2)


def regions_of(lesion: np.ndarray, malignant: np.ndarray | None = None, **more: object):
    maps = StitchedMaps(lesion, lesion if malignant is None else malignant, (100.0, 100.0), "cam")
    return find_regions(maps, mapped_card(), size_l0=SIZE, scale=SCALE, tissue=more.get("tissue", tissue()))


def test_area_diameter_class_and_outline_are_geometry_s():
    lesion = np.full((8, 10), 0.1)
    lesion[2:4, 3:7] = 0.8
    (region,) = regions_of(lesion, lesion * 0.25)
    assert region.outline == [[300, 200], [700, 200], [700, 400], [300, 400], [300, 200]]
    assert region.area_mm2 == pytest.approx(0.2 * 0.1)
    assert region.diameter_mm == pytest.approx(np.hypot(0.2, 0.1))
    assert (region.class_, region.score, region.malignant_share) == ("benign", pytest.approx(0.8), pytest.approx(0.25))
    assert regions_of(lesion, lesion * 0.5)[0].class_ == "malignant"


@pytest.mark.parametrize("radius", [5, 100, 620])  # few corners, some, and so many that their hull is found first
def test_the_diameter_is_the_largest_distance_between_two_corners(radius):
    y, x = np.mgrid[:1300, :1300] - 650
    lesion = (np.hypot(x, 1.5 * y + 0.3 * x) < radius) * 0.9
    whole = tissue(np.ones((130, 130), bool))
    maps = StitchedMaps(lesion, lesion, (1.0, 1.0), "cam")
    (region,) = find_regions(maps, mapped_card(), size_l0=SizePx(1300, 1300), scale=Scale(0.5, 0.4), tissue=whole)
    corners = np.array(region.outline) * (0.5, 0.4) / 1000
    longest = max(np.hypot(*(corners - corner).T).max() for corner in corners)
    assert region.diameter_mm == pytest.approx(longest, rel=1e-12)


def test_the_threshold_belongs_to_the_region():
    lesion = np.zeros((8, 10))
    lesion[0, 0], lesion[0, 2], lesion[0, 4] = 0.5, 0.4999, np.nan
    assert [region.outline[0] for region in regions_of(lesion)] == [[0, 0]]


def test_cells_that_touch_at_a_corner_only_are_two_regions():
    lesion = np.zeros((8, 10))
    lesion[1, 1] = lesion[2, 2] = 0.9
    assert len(regions_of(lesion)) == 2


def test_a_hole_is_no_part_of_its_region():
    lesion = np.zeros((8, 10))
    lesion[1:6, 1:6] = 0.9
    lesion[3, 3] = 0.0
    (region,) = regions_of(lesion)
    assert len(region.holes) == 1
    assert region.area_mm2 == pytest.approx(24 * 0.05**2)


def test_regions_end_where_the_slide_ends():
    lesion = np.zeros((8, 10))
    lesion[7, 9] = 0.9
    maps = StitchedMaps(lesion, lesion, (110.0, 110.0), "cam")
    (region,) = find_regions(maps, mapped_card(), size_l0=SIZE, scale=SCALE, tissue=tissue())
    assert max(x for x, _ in region.outline) == 1000
    assert max(y for _, y in region.outline) == 800
    assert region.area_mm2 == pytest.approx((1000 - 990) * (800 - 770) * 0.25e-6)


def test_each_region_is_counted_on_its_tissue_section():
    mask = np.zeros((80, 100), bool)
    mask[:, :45] = mask[:, 55:] = True
    lesion = np.zeros((8, 10))
    lesion[1:3, 1:3] = lesion[5:7, 7] = 0.9
    assert [(region.id, region.tissue_section) for region in regions_of(lesion, tissue=tissue(mask))] == [
        ("R1", 1),
        ("R2", 2),
    ]


@pytest.mark.parametrize("steps", [1, 4])
def test_regions_geojson_gives_the_same_outlines_and_areas_to_another_reader(cmu, tmp_path, colour_bundle, steps):
    """Read back with nothing but json and the shoelace formula; counts and areas equal result.json's.

    Corners are rounded to a hundredth of a pixel, areas are not.
    """
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.pipeline.flow import score_slide
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.reports import regions_geojson
    from melanoma_infer.settings import Settings

    result = score_slide(cmu, Scorer(open_bundle(colour_bundle)), settings=Settings(stride_um=256 / steps))
    features = json.loads(regions_geojson.render(result))["features"]
    assert len(features) == len(result.regions) > 0
    for feature, region in zip(features, result.regions, strict=True):
        areas = []
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            x, y = np.array(ring).T
            areas.append(abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2)
        assert (areas[0] - sum(areas[1:])) * 0.499**2 / 1e6 == pytest.approx(region.area_mm2, rel=1e-4)
        assert np.abs(np.array(feature["geometry"]["coordinates"][0]) - np.array(region.outline)).max() <= 0.5
        measured = feature["properties"]["measurements"]
        assert measured["area_mm2"] == region.area_mm2
        assert feature["properties"]["classification"]["name"] == region.class_
        assert feature["properties"]["objectType"] == "annotation"
    # The rule calls dark tiles tumour: the regions are on dark tissue, and none over background.
    dark = sum(region.area_mm2 for region in result.regions)
    assert 0 < dark < result.tissue_mm2
