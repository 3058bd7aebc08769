"""Tissue on planes whose truth was drawn: by shape, by colour, by area, and by what could not be read."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from slides_for_tests import (
    BACKGROUND,
    EOSIN,
    HAEMATOXYLIN,
    MELANIN,
    ArraySlide,
    facts_of,
    noise,
    reading,
    solid,
    write_image,
)

from melanoma_infer.errors import SlideFormatError, UsageError
from melanoma_infer.geometry import RectPx, Scale
from melanoma_infer.slides import open_slide
from melanoma_infer.tiles.plane import PLANE_PX_MAX, plane_level, read_plane
from melanoma_infer.tiles.tissue import SATURATION_THRESHOLD, find_tissue

QUICK = settings(deadline=None, max_examples=40, derandomize=True)
PLANE = Scale(8.0, 8.0)
"""At 8 µm a pixel the plane is the slide itself."""
GREEN_PEN, BLUE_PEN = (30, 140, 60), (30, 60, 180)


def found(*levels, scale=PLANE, source="auto", damaged=(), background=(255, 255, 255)):
    with reading(ArraySlide(*levels, damaged_l0=damaged, background=background)) as reader:
        return find_tissue(reader, scale, source)


def disc(width, height, radius, centre):
    y, x = np.mgrid[:height, :width]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def painted(shape, colour, on=BACKGROUND):
    pixels = solid(shape.shape[1], shape.shape[0], on)
    pixels[shape] = colour
    return pixels


@pytest.mark.parametrize("colour", [EOSIN, HAEMATOXYLIN, MELANIN, (25, 18, 15), (190, 40, 50)])
def test_stain_pigment_and_blood_of_known_shape_are_found_to_within_a_pixel(colour):
    shape = disc(301, 203, 60, (140, 95))
    tissue = found(painted(shape, colour))
    assert (tissue.mask & ~ndimage.binary_dilation(shape)).sum() == 0
    assert (ndimage.binary_erosion(shape) & ~tissue.mask).sum() == 0
    assert abs(int(tissue.mask.sum()) - int(shape.sum())) <= 0.01 * shape.sum()
    assert tissue.is_brightfield
    assert not tissue.ink.any()
    assert (tissue.source, tissue.px_l0) == ("found", 1.0)


def test_at_full_resolution_whole_boxes_of_tissue_give_exactly_their_area():
    slide = solid(1600, 1283)
    slide[160:800, 320:960] = EOSIN
    tissue = found(slide, scale=Scale(0.5, 0.5))
    assert tissue.px_l0 == 16
    assert tissue.mask.shape == (81, 100)
    expected = np.zeros((81, 100), bool)
    expected[10:50, 20:60] = True
    expected[[10, 10, 49, 49], [20, 59, 20, 59]] = tissue.mask[[10, 10, 49, 49], [20, 59, 20, 59]]
    np.testing.assert_array_equal(tissue.mask, expected)


def test_the_plane_is_read_from_the_coarsest_level_that_is_fine_enough():
    level0 = noise(640, 480)
    slide = ArraySlide(level0, level0[::4, ::4], level0[::32, ::32])
    with reading(slide) as reader:
        plane = read_plane(reader, Scale(0.5, 0.5))
    # 8 µm/px are 16 level-0 pixels: level 1 in boxes of 4, because level 2 is coarser.
    assert {level for level, _ in slide.reads} == {1}
    boxes = level0[::4, ::4].reshape(30, 4, 40, 4, 3).astype(int).sum(axis=(1, 3))
    np.testing.assert_array_equal(plane.rgb, (boxes + 8) // 16)
    assert plane.px_l0 == 16


def test_background_with_dust_holds_no_tissue():
    background = 242 + np.random.default_rng(3).integers(0, 7, (150, 220, 3), dtype=np.uint8)
    tissue = found(background)
    assert not tissue.mask.any()
    assert tissue.saturation_threshold == SATURATION_THRESHOLD[0]
    assert tissue.is_brightfield


@pytest.mark.parametrize("um", [0.3, 0.4, 0.5])
def test_the_background_of_a_small_image_is_not_taken_for_a_hole_in_tissue(um):
    assert not found(solid(512, 512), scale=Scale(um, um)).mask.any()


def orange_of(saturations):
    """Pixels with exactly these saturations: (255, 255 − s/2, 255 − s)."""
    rgb = np.full((*saturations.shape, 3), 255, np.uint8)
    rgb[..., 1], rgb[..., 2] = 255 - saturations // 2, 255 - saturations
    return rgb


def otsu_thresholds(values):
    """Every threshold at which the exact variance between the classes below and from it is largest."""
    variances = {}
    for threshold in range(1, 256):
        low, high = [v for v in values if v < threshold], [v for v in values if v >= threshold]
        if low and high:
            apart = Fraction(sum(high), len(high)) - Fraction(sum(low), len(low))
            variances[threshold] = len(low) * len(high) * apart**2
    best = max(variances.values(), default=0)
    return [threshold for threshold, variance in variances.items() if variance == best] or [0]


@QUICK
@given(values=st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_the_saturation_threshold_is_otsus_clipped_to_18_and_60(values):
    plane = orange_of(np.array(values, np.uint8).reshape(3, 4))
    threshold = found(plane).saturation_threshold
    if found(plane).is_brightfield:
        assert threshold in {min(max(threshold, 18), 60) for threshold in otsu_thresholds(values)}


@pytest.mark.parametrize(("background", "tissue", "threshold"), [(0, 25, 18), (30, 50, 31), (100, 250, 60)])
def test_the_threshold_is_between_background_and_tissue_and_never_outside_its_limits(background, tissue, threshold):
    saturations = np.full((100, 100), background, np.uint8)
    saturations[20:80, 20:80] = tissue
    assert found(orange_of(saturations)).saturation_threshold == threshold


@pytest.mark.parametrize("pen", [GREEN_PEN, BLUE_PEN])
def test_green_and_blue_pen_is_left_out_and_counted(pen):
    slide = solid(240, 160)
    slide[20:100, 20:100] = EOSIN
    slide[20:100, 150:200] = pen
    tissue = found(slide)
    assert int(tissue.ink.sum()) == 80 * 50
    assert tissue.ink[20:100, 150:200].all()
    assert not tissue.mask[:, 110:].any()
    assert tissue.mask[22:98, 22:98].all()


def test_pen_across_tissue_takes_only_its_own_area():
    slide = solid(200, 200)
    slide[40:160, 40:160] = EOSIN
    slide[90:110, 40:160] = GREEN_PEN
    tissue = found(slide)
    assert int(tissue.ink.sum()) == 20 * 120
    assert int(tissue.mask[40:160, 40:160].sum()) == 120 * 120 - 20 * 120


def test_small_greenish_specks_are_no_pen():
    slide = solid(200, 200)
    slide[40:160, 40:160] = EOSIN
    slide[50:150:10, 50:150:10] = GREEN_PEN
    slide[51:150:10, 50:150:10] = GREEN_PEN
    tissue = found(slide)
    assert not tissue.ink.any()
    assert tissue.mask[42:158, 42:158].all()


@pytest.mark.parametrize(("side", "is_ink"), [(27, False), (29, True)])
def test_pen_is_at_least_0_05_mm2(side, is_ink):
    slide = solid(150, 150)
    slide[40 : 40 + side, 40 : 40 + side] = BLUE_PEN  # 27² × 64 µm² = 0.047 mm², 29² × 64 µm² = 0.054 mm²
    tissue = found(slide)
    assert int(tissue.ink.sum()) == (side**2 if is_ink else 0)
    assert tissue.mask.any() == (not is_ink)


def test_fluorescence_is_not_brightfield_and_shows_no_tissue():
    slide = solid(200, 150, (4, 4, 6))
    slide[50:60, 50:60] = (20, 40, 250)
    tissue = found(slide)
    assert not tissue.is_brightfield
    assert tissue.luminance_p95 < 10
    assert not tissue.mask.any()
    assert tissue.saturation_threshold is None


def test_ycbcr_that_a_file_calls_rgb_is_refused(cmu):
    with open_slide(cmu) as slide:
        plane = read_plane(slide, Scale(0.499, 0.499)).rgb
    found(plane)
    found(np.repeat(plane.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8) // 2)  # grey, around 120
    with pytest.raises(SlideFormatError, match="its file says RGB, but its pixels are YCbCr"):
        found(np.asarray(Image.fromarray(plane).convert("YCbCr")))


def test_no_dark_slide_shows_tissue_even_where_it_cannot_be_read():
    damaged = (RectPx(0, 0, 40, 40),)
    tissue = found(solid(200, 150, (4, 4, 6)), damaged=damaged)
    assert not tissue.mask.any()
    assert not tissue.unread.any()


@pytest.mark.parametrize(("um", "side", "is_filled"), [(8.0, 27, True), (8.0, 29, False), (5.0, 29, True)])
def test_holes_below_0_05_mm2_are_filled(um, side, is_filled):
    slide = solid(200, 200)
    slide[30:170, 30:170] = EOSIN
    slide[60 : 60 + side, 60 : 60 + side] = BACKGROUND
    tissue = found(slide, scale=Scale(um, um))
    assert tissue.mask[62 : 58 + side, 62 : 58 + side].all() == is_filled
    assert tissue.mask[62 : 58 + side, 62 : 58 + side].any() == is_filled


@pytest.mark.parametrize(("um", "side", "is_kept"), [(8.0, 17, False), (8.0, 19, True), (5.0, 27, False)])
def test_specks_below_0_02_mm2_are_removed(um, side, is_kept):
    slide = solid(200, 200)
    slide[60 : 60 + side, 60 : 60 + side] = EOSIN
    assert int(found(slide, scale=Scale(um, um)).mask.sum()) == (side**2 if is_kept else 0)


def test_a_block_that_cannot_be_read_counts_as_tissue_and_is_marked():
    slide = solid(300, 200)
    slide[20:80, 20:80] = EOSIN
    bad = RectPx(201, 133, 10, 3)
    tissue, whole = found(slide, damaged=[bad]), found(slide)
    near = np.zeros_like(tissue.unread)
    near[bad.y - 8 : bad.bottom + 8, bad.x - 8 : bad.right + 8] = True
    assert tissue.unread[bad.y : bad.bottom, bad.x : bad.right].all()
    assert not (tissue.unread & ~near).any()
    np.testing.assert_array_equal(tissue.mask, whole.mask | tissue.unread)
    assert not whole.unread.any()


def test_a_slide_that_cannot_be_read_at_all_is_all_missing_tissue():
    tissue = found(solid(100, 70), damaged=[RectPx(0, 0, 100, 70)])
    assert tissue.unread.all()
    assert tissue.mask.all()


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_a_given_mask_of_any_size_is_the_tissue(tmp_path, factor):
    shape = np.zeros((100, 140), bool)
    shape[20:50, 40:90] = True
    image = Image.fromarray(shape.astype(np.uint8) * 9)
    image.resize((round(140 * factor), round(100 * factor)), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    tissue = found(solid(140, 100, EOSIN), source=str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(tissue.mask, shape)
    assert (tissue.source, tissue.saturation_threshold) == ("mask", None)


@pytest.mark.parametrize("size", [(140, 104), (146, 100), (100, 140)])
def test_a_given_mask_of_another_aspect_is_refused(tmp_path, size):
    mask = write_image(tmp_path / "mask.png", np.ones(size[::-1], np.uint8))
    with pytest.raises(UsageError, match="aspect ratio is not that of the slide"):
        found(solid(140, 100), source=str(mask))


def test_a_given_mask_that_is_inverted_is_refused(tmp_path):
    slide = solid(140, 100)
    slide[20:70, 40:100] = EOSIN
    tissue = np.zeros((100, 140), np.uint8)
    tissue[20:70, 40:90] = 255
    marked = found(slide, source=str(write_image(tmp_path / "mask.png", tissue)))
    np.testing.assert_array_equal(marked.mask, tissue > 0)
    with pytest.raises(UsageError, match="marks 100% of the background and 17% of the tissue"):
        found(slide, source=str(write_image(tmp_path / "inverted.png", 255 - tissue)))


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_a_given_mask_that_is_no_image_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(UsageError, match="--tissue cannot be read"):
        found(solid(140, 100), source=str(tmp_path / "mask.png"))


def test_all_is_everything_that_the_slide_covers_dark_or_bright():
    for colour in (BACKGROUND, (0, 0, 0)):
        tissue = found(solid(140, 100, colour), source="all")
        assert tissue.mask.shape == (100, 140)
        assert tissue.mask.all()
        assert tissue.source == "all"


@QUICK
@given(
    box=st.tuples(*[st.integers(0, 80)] * 2, *[st.integers(1, 60)] * 2),
    um=st.sampled_from([4.0, 5.0, 8.0, 11.0]),
    colour=st.sampled_from([EOSIN, GREEN_PEN, MELANIN]),
)
def test_pen_is_never_tissue_and_the_mask_never_reaches_beyond_the_slide(box, um, colour):
    slide = solid(120, 90)
    slide[50:80, 10:60] = EOSIN
    slide[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = colour
    tissue = found(slide, scale=Scale(um, um))
    assert not (tissue.mask & tissue.ink).any()
    assert tissue.mask.shape == tissue.ink.shape == tissue.unread.shape
    assert tissue.mask.shape[0] * tissue.px_l0 < 90 + tissue.px_l0


def test_a_real_section_of_skin_is_mostly_tissue_with_background_beside_it(cmu):
    with open_slide(cmu) as reader:
        tissue = find_tissue(reader, Scale(0.499, 0.499))
        plane = read_plane(reader, Scale(0.499, 0.499))
    assert tissue.is_brightfield
    assert not tissue.ink.any()
    assert not tissue.unread.any()
    pale = plane.rgb.min(axis=2) > 225
    assert tissue.mask[pale].mean() < 0.25
    assert tissue.mask[plane.rgb.min(axis=2) < 170].mean() > 0.95


def test_a_real_fluorescence_slide_is_not_brightfield(real_slides):
    with open_slide(real_slides / "test3-dapi-2.ndpi") as reader:
        tissue = find_tissue(reader, Scale(0.228, 0.228))
    assert not tissue.is_brightfield
    assert not tissue.mask.any()


@pytest.mark.parametrize(
    ("sizes", "um", "factor"),
    [
        ([(50_000, 40_000), (12_500, 10_000), (3125, 2500)], 0.5, 1),
        ([(100_000, 80_000), (25_000, 20_000), (6250, 5000)], 0.5, 2),
        ([(200_000, 160_000), (50_000, 40_000), (12_500, 10_000)], 0.5, 4),
        ([(100_000, 80_000), (25_000, 20_000), (3125, 2500)], 0.25, 1),
    ],
)
def test_the_plane_of_a_slide_as_large_as_a_background_is_coarser(sizes, um, factor):
    level, found = plane_level(facts_of(sizes), Scale(um, um))
    assert (level, found) == (2, factor)
    assert sizes[2][0] / factor * sizes[2][1] / factor <= PLANE_PX_MAX


def test_bands_do_not_show(monkeypatch):
    pixels = painted(disc(301, 203, 60, (140, 95)), EOSIN)
    pixels[20:60, 20:60] = GREEN_PEN
    pixels[90:100, 135:145] = BACKGROUND
    whole = found(pixels)
    monkeypatch.setattr("melanoma_infer.tiles.colour.BAND_ROWS", 7)
    banded = found(pixels)
    for name in ("mask", "ink", "unread"):
        np.testing.assert_array_equal(getattr(banded, name), getattr(whole, name))
    assert banded.luminance_p95 == whole.luminance_p95
    assert banded.saturation_threshold == whole.saturation_threshold
