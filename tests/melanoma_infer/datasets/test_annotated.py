"""Tiles of annotated slides: exactly the places and labels that the drawing calls for, and pixels that are scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets_for_tests import breslow, feature, lesion_card, polygon, square, write_geojson
from PIL import Image
from slides_for_tests import BACKGROUND, EOSIN, solid, with_damaged_tile, write_svs

from melanoma_infer.datasets import annotated
from melanoma_infer.datasets.annotated import SlideSource, cut_slide, drawn_slide
from melanoma_infer.datasets.annotations import read_annotations
from melanoma_infer.errors import DatasetError, ScaleUnknownError
from melanoma_infer.geometry import RectPx
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles

CARD = lesion_card(tile_px=64, um_per_px=2.0, resize="pillow-bilinear")
SIDE = 256
"""Of a tile of 128 µm, in pixels of 0.5 µm."""
LABELS = {"Tumor": "melanoma", "Naevus": "naevus", "Artefact": None}
TUMOR = feature(polygon(square(512, 512, SIDE)), "Tumor")
NAEVUS = feature(polygon(square(1024, 512, 2 * SIDE, SIDE)), "Naevus")
NEST = feature(polygon(square(590, 990, 20)), "Tumor")
ARTEFACT = feature(polygon(square(1290, 1034, 200)), "Artefact")
DRAWN = (TUMOR, NAEVUS, NEST, ARTEFACT)


def grained(width=2048, height=1536) -> np.ndarray:
    """Pink grain on white, with a margin of 100 px: no two places look the same."""
    grain = np.random.default_rng(5).integers(-25, 26, (height, width, 3))
    pixels = np.clip(solid(width, height, EOSIN) + grain, 0, 255).astype(np.uint8)
    inner = np.zeros((height, width), bool)
    inner[100:-100, 100:-100] = True
    pixels[~inner] = BACKGROUND
    return pixels


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_svs(tmp_path_factory.mktemp("drawn") / "s1.svs", grained())


def source_of(slide, **changes):
    known = SlideSource(slide, "s1", "P1", Settings(), {"age": "63", "sex": "female"})
    return replace(known, **changes)


def drawn(tmp_path, slide, *features, card=CARD, **changes):
    path = write_geojson(tmp_path / "s1.geojson", *features)
    return drawn_slide(source_of(slide, **changes), read_annotations(path), LABELS, card)


def cut(tmp_path, slide, *features, backgrounds=0, seed=0, **changes):
    found = drawn(tmp_path, slide, *features, **changes)
    return cut_slide(found, CARD, tmp_path / "data", backgrounds=backgrounds, seed=seed)


def test_a_drawing_gives_exactly_its_tiles(tmp_path, slide):
    tiles = cut(tmp_path, slide, *DRAWN).tiles
    assert [(tile.x_l0, tile.y_l0, tile.label) for tile in tiles] == [
        (1024, 512, "naevus"),
        (1280, 512, "naevus"),
        (512, 512, "melanoma"),
        (600 - 128, 1000 - 128, "melanoma"),
    ]
    (first, *_) = tiles
    assert first.tile == "tiles/s1/x1024_y512.png"
    assert (first.slide, first.case_id, first.um_per_px) == ("s1", "P1", 2.0)
    assert first.values == {"age": "63", "sex": "female"}


def test_a_mask_is_white_where_a_lesion_is_outlined(tmp_path, slide):
    """The nest of 20 px of 0.5 µm is 5 px of the tile; what gives no label is no lesion."""
    tiles = cut(tmp_path, slide, *DRAWN, backgrounds=2).tiles
    white = {}
    for tile in tiles:
        if tile.label == "normal":
            assert tile.mask is None
            continue
        assert tile.mask == tile.tile.replace(".png", "-lesion.png")
        with Image.open(tmp_path / "data" / tile.mask) as mask:
            assert (mask.size, mask.mode) == ((64, 64), "1")
            white[tile.x_l0] = np.argwhere(np.asarray(mask))
    assert [len(white[x]) for x in (512, 1024, 1280, 472)] == [64 * 64, 64 * 64, 64 * 64, 25]
    corner = ((990 - 872) / 4, (590 - 472) / 4)
    assert np.abs(white[472].min(0) - corner).max() <= 0.5


def test_a_tile_s_pixels_are_those_that_pillow_makes_of_the_slide_there(tmp_path, slide):
    tiles = cut(tmp_path, slide, *DRAWN, backgrounds=3).tiles
    level0 = Image.fromarray(grained())
    for tile in tiles:
        box = (tile.x_l0, tile.y_l0, tile.x_l0 + SIDE, tile.y_l0 + SIDE)
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= level0.width and box[3] <= level0.height
        if inside:
            expected = np.asarray(level0.crop(box).resize((64, 64), Image.Resampling.BILINEAR))
            assert np.array_equal(np.asarray(Image.open(tmp_path / "data" / tile.tile)), expected)
    assert len(tiles) == 7


def test_a_tile_s_pixels_are_those_that_are_scored_at_that_place(tmp_path, cmu):
    """On a real slide of skin, in JPEG, with the pixels of `score`'s own plan."""
    card = lesion_card(tile_px=64, um_per_px=4.0, resize="reduce-bilinear")
    with open_slide(cmu) as slide:
        plan = plan_slide(slide, card, Settings())
        with read_tiles(slide, plan, Feed(1)) as pixels:
            scored = {(read.tile.rect_l0.x, read.tile.rect_l0.y): read.pixels for read in pixels}
    (x, y), known = list(scored.items())[len(scored) // 2]
    side = round(256 / 0.499)
    tumour = feature(polygon(square(x, y, side)), "Tumor")
    found = drawn(tmp_path, cmu, tumour, card=card)
    tiles = cut_slide(found, card, tmp_path / "data", backgrounds=4, seed=0).tiles
    assert (tiles[0].x_l0, tiles[0].y_l0, tiles[0].label) == (x, y, "melanoma")
    assert len(tiles) == 5
    for tile in tiles:
        own = np.asarray(Image.open(tmp_path / "data" / tile.tile))
        assert np.array_equal(own, scored[tile.x_l0, tile.y_l0])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "data" / tiles[0].tile)), known)


def test_background_is_the_grid_s_tissue_that_no_annotation_reaches(tmp_path, slide):
    with open_slide(slide) as opened:
        grid = {(tile.rect_l0.x, tile.rect_l0.y) for tile in plan_slide(opened, CARD, Settings()).tiles}
    annotated_at = [(512, 512, 256, 256), (1024, 512, 512, 256), (590, 990, 20, 20), (1290, 1034, 200, 200)]

    def free(x, y):
        return all(x + SIDE <= left or x >= left + w or y + SIDE <= top or y >= top + h for left, top, w, h in
                   annotated_at)  # fmt: skip

    tiles = cut(tmp_path, slide, *DRAWN, backgrounds=1000).tiles
    chosen = {(tile.x_l0, tile.y_l0) for tile in tiles if tile.label == "normal"}
    assert chosen == {place for place in grid if free(*place)}
    assert len(chosen) > 20


def test_which_background_is_cut_depends_on_the_seed_and_nothing_else(tmp_path, slide):
    def places(name, seed, *features):
        tiles = cut(tmp_path / name, slide, *features, backgrounds=6, seed=seed).tiles
        return [(tile.x_l0, tile.y_l0) for tile in tiles if tile.label == "normal"]

    first = places("a", 1, *DRAWN)
    assert len(first) == 6
    assert places("b", 1, *DRAWN[::-1]) == first
    assert places("c", 2, *DRAWN) != first


def test_two_nests_in_one_place_give_one_tile_and_slivers_none(tmp_path, slide):
    beside = feature(polygon(square(620, 990, 20)), "Tumor")
    found = cut(tmp_path / "nests", slide, NEST, beside)
    assert [(tile.x_l0, tile.y_l0) for tile in found.tiles] == [(472, 872)]
    # 2 px of the tumour reach into the tile of the naevus: 0.8 % of the tile, and of the tumour.
    sliver = feature(polygon(square(1024 - 254, 512, SIDE)), "Tumor")
    found = cut(tmp_path / "sliver", slide, sliver, feature(polygon(square(1024, 512, SIDE)), "Naevus"))
    assert [(tile.x_l0, tile.label) for tile in found.tiles] == [(1024 - 254, "melanoma")]
    assert found.left_out == {"ambiguous": 1}


def test_an_area_on_glass_gives_no_tile_and_is_counted(tmp_path):
    pixels = grained()
    pixels[:, :1024] = BACKGROUND
    slide = write_svs(tmp_path / "half.svs", pixels)
    found = cut(tmp_path, slide, TUMOR, NAEVUS)
    assert [tile.label for tile in found.tiles] == ["naevus", "naevus"]
    assert found.left_out == {"with too little tissue": 1}


def test_a_damaged_place_gives_no_tile_and_is_counted(tmp_path):
    whole = write_svs(tmp_path / "whole.svs", grained(), compression="jpeg")
    damaged = with_damaged_tile(whole, tmp_path / "s1.svs", tile=2 * 8 + 2)  # 8 tiles of 256 px a row
    found = cut(tmp_path, damaged, TUMOR, NAEVUS)
    assert [tile.label for tile in found.tiles] == ["naevus", "naevus"]
    assert found.left_out == {"unreadable": 1}


def test_a_line_gives_the_thickness_and_a_tile_that_holds_both_ends(tmp_path, slide):
    """A line of 200 × 150 px of 0.5 µm is 0.125 mm long; its middle is (600, 675), on the border of two tiles."""
    large = feature(polygon(square(300, 300, 3 * SIDE)), "Tumor")
    tiles = cut(tmp_path, slide, large, breslow([500, 600], [700, 750]), NAEVUS, breslow_mm=3.0).tiles
    *others, last = tiles
    assert (last.x_l0, last.y_l0, last.label) == (600 - 128, 675 - 128, "melanoma")
    assert (last.breslow_mm, last.surface_in_tile) == (0.125, True)
    rest = [tile for tile in others if tile.label == "melanoma"]
    # Nine over the square, and the one over the naevus into which the square reaches.
    assert [(tile.breslow_mm, tile.surface_in_tile) for tile in rest] == [(0.125, False)] * 10
    assert {(tile.breslow_mm, tile.surface_in_tile) for tile in tiles if tile.label == "naevus"} == {(None, None)}


def test_a_line_that_a_tile_over_the_area_holds_gives_no_tile_of_its_own(tmp_path, slide):
    found = cut(tmp_path, slide, TUMOR, breslow([520, 530], [560, 560]))
    assert [(tile.x_l0, tile.breslow_mm, tile.surface_in_tile) for tile in found.tiles] == [(512, 0.025, True)]


def test_a_line_that_no_malignant_tile_can_hold_is_counted(tmp_path, slide):
    found = cut(tmp_path, slide, TUMOR, breslow([520, 530], [820, 530]), breslow([1400, 900], [1440, 930]))
    assert [(tile.x_l0, tile.breslow_mm, tile.surface_in_tile) for tile in found.tiles] == [(512, 0.15, False)]
    assert found.left_out["thickness in no malignant tile"] == 2


def test_a_thickness_without_an_outlined_tumour_is_refused(tmp_path, slide):
    with pytest.raises(DatasetError, match=r"feature 2 is a thickness, but nothing malignant is outlined"):
        cut(tmp_path, slide, NAEVUS, breslow([520, 530], [560, 560]), backgrounds=3)


def test_a_manifest_s_thickness_without_an_outlined_tumour_is_refused(tmp_path, slide):
    with pytest.raises(DatasetError, match=r"states a thickness of 1.2 mm, but nothing malignant is outlined"):
        cut(tmp_path, slide, NAEVUS, backgrounds=3, breslow_mm=1.2)


def test_a_line_of_no_length_is_refused(tmp_path, slide):
    with pytest.raises(DatasetError, match=r"feature 2: 0 is no thickness above 0"):
        cut(tmp_path, slide, TUMOR, breslow([520, 530], [520, 530]))


def test_a_manifest_s_thickness_alone_does_not_say_where_it_is(tmp_path, slide):
    tiles = cut(tmp_path, slide, TUMOR, NAEVUS, backgrounds=1, breslow_mm=1.2).tiles
    assert [(tile.label, tile.breslow_mm, tile.surface_in_tile) for tile in tiles] == [
        ("naevus", None, None),
        ("naevus", None, None),
        ("melanoma", 1.2, None),
        ("normal", None, None),
    ]


def test_coordinates_are_counted_from_the_bounds_that_the_slide_names(tmp_path, slide, monkeypatch):
    def with_bounds(path):
        opened = open_slide(path)
        opened.facts = replace(opened.facts, bounds=RectPx(100, 60, 1800, 1400))
        return opened

    monkeypatch.setattr(annotated, "open_slide", with_bounds)
    seen = feature(polygon(square(512 - 100, 512 - 60, SIDE)), "Tumor")
    line = breslow([520 - 100, 520 - 60], [560 - 100, 550 - 60])
    found = cut(tmp_path, slide, seen, line)
    assert [(tile.x_l0, tile.y_l0) for tile in found.tiles] == [(512, 512)]
    assert found.tiles[0].breslow_mm == 0.025


def test_a_scale_given_by_hand_is_used_for_tiles_and_lengths(tmp_path, slide):
    settings = Settings(mpp_um=(1.0, 1.015))
    found = cut(tmp_path, slide, TUMOR, breslow([600, 600], [640, 630]), settings=settings)
    assert (found.size_l0.width, found.size_l0.height) == (128, 126)
    assert [tile.breslow_mm for tile in found.tiles if tile.surface_in_tile] == [0.0503]  # 40 × 30.45 µm


def test_the_slide_s_label_is_its_highest(tmp_path, slide):
    assert drawn(tmp_path, slide, NAEVUS, TUMOR, ARTEFACT).labelled(CARD).label == "melanoma"
    assert drawn(tmp_path, slide, NAEVUS).labelled(CARD).label == "naevus"
    assert drawn(tmp_path, slide, ARTEFACT).labelled(CARD).label == "normal"
    row = drawn(tmp_path, slide, split="test").labelled(CARD)
    assert (row.slide, row.path, row.case_id, row.label, row.split) == ("s1", str(slide), "P1", "normal", "test")


def test_the_annotations_of_another_slide_are_refused(tmp_path, slide):
    beyond = feature(polygon(square(2048, 10, 50)), "Tumor")
    with pytest.raises(DatasetError, match=r"s1.geojson, feature 2 is not on the slide of 2048 × 1536 pixels"):
        drawn(tmp_path, slide, TUMOR, beyond)
    with pytest.raises(DatasetError, match=r"s1.geojson, feature 1 is not on the slide"):
        drawn(tmp_path, slide, breslow([5000, 10], [5010, 10]))


@pytest.mark.parametrize(
    ("corner", "reaches"),
    [
        ((-300, 500), "0.15"),
        ((500, -900), "0.45"),
        ((2048 - 512 + 260, 500), "0.13"),
        ((500, 1536 - 512 + 300), "0.15"),
    ],
)
def test_annotations_that_reach_beyond_the_slide_are_doubted(tmp_path, slide, corner, reaches):
    beyond = feature(polygon(square(*corner, 1024 if min(corner) < 0 else 512)), "Tumor")
    said = f"s1.geojson, feature 2 reaches {reaches} mm beyond the slide. Check that the file is this slide's."
    assert said in drawn(tmp_path, slide, TUMOR, beyond).all_doubts


def test_a_hand_that_crosses_the_slide_s_edge_raises_no_doubt(tmp_path, slide):
    over_the_edge = feature(polygon(square(-200, 500, 600)), "Tumor")  # 200 px are 100 µm
    assert drawn(tmp_path, slide, over_the_edge).all_doubts == drawn(tmp_path, slide, TUMOR).all_doubts


def test_the_annotation_that_reaches_farthest_beyond_the_slide_is_named(tmp_path, slide):
    areas = [feature(polygon(square(x, 500, 1024)), "Tumor") for x in (-300, -600, -400)]
    (said,) = [doubt for doubt in drawn(tmp_path, slide, *areas).all_doubts if "beyond" in doubt]
    assert "feature 2 reaches 0.30 mm" in said
    line = breslow([2000, 900], [2048 + 1500, 900])
    (said,) = [doubt for doubt in drawn(tmp_path, slide, *areas, line).all_doubts if "beyond" in doubt]
    assert "feature 4 reaches 0.75 mm" in said


def test_an_outcome_that_the_class_contradicts_is_refused_before_anything_is_cut(tmp_path, slide):
    with pytest.raises(DatasetError, match=r"The column outcome of the manifest: it is no, but the class melanoma"):
        drawn(tmp_path, slide, TUMOR, outcome=False)
    assert drawn(tmp_path, slide, TUMOR, outcome=True).source.outcome


def test_a_slide_without_a_scale_is_refused(tmp_path):
    slide = write_svs(tmp_path / "s1.svs", grained(512, 512), mpp="0")
    with pytest.raises(ScaleUnknownError, match="--mpp"):
        drawn(tmp_path, slide)
