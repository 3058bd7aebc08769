"""Colours, lengths and positions on the pictures, checked as numbers."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from results_for_tests import (
    PX_L0,
    RING,
    UNREADABLE,
    hand_made_card,
    hand_made_region,
    hand_made_result,
    hand_made_view,
)

from melanoma_infer.reports import drawing, heatmap, layers, overlay, picture_key, pictures_npz
from melanoma_infer.reports.frame import frame_of, round_mm, sampled, scale_bar
from melanoma_infer.result import SlideResult

MARGIN = picture_key.MARGIN
SLIDES = Path(os.environ.get("MMINFER_TEST_SLIDES", "/nowhere"))


def pixels_of(png: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


class Seen:
    """A picture, addressed in l0 pixels."""

    def __init__(self, result: SlideResult, png: bytes) -> None:
        assert result.view is not None
        self.frame = frame_of(result, result.view)
        self.pixels = pixels_of(png)
        self.left = (self.pixels.shape[1] - self.frame.shape[1]) // 2

    def at(self, x_l0: float, y_l0: float) -> NDArray[np.int64]:
        x, y = x_l0 / self.frame.px_l0 + self.left, y_l0 / self.frame.px_l0 + MARGIN
        return np.asarray(self.pixels[int(y), int(x)])

    def area(self, x_l0: float, y_l0: float, side_l0: float) -> NDArray[np.int64]:
        x, y = int(x_l0 / self.frame.px_l0) + self.left, int(y_l0 / self.frame.px_l0) + MARGIN
        side = int(side_l0 / self.frame.px_l0)
        return np.asarray(self.pixels[y : y + side, x : x + side])


@pytest.fixture(scope="module")
def result() -> SlideResult:
    return hand_made_result(regions=[])


@pytest.fixture(scope="module")
def on_slide(result: SlideResult) -> Seen:
    return Seen(result, overlay.render(result))


@pytest.fixture(scope="module")
def alone(result: SlideResult) -> Seen:
    return Seen(result, heatmap.render(result))


def test_the_ramp_darkens_all_the_way():
    """So it stays ordered when printed in grey; luminance as sRGB defines it."""
    shares = drawing.RAMP / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16
    assert (np.diff(lightness) <= 0).all()
    assert (np.diff(lightness[::5]) < -0.4).all()  # 51 steps, each of them seen
    assert (lightness[0], lightness[-1]) == pytest.approx((96, 20), abs=1)
    grey = np.asarray(Image.fromarray(drawing.RAMP[None]).convert("L")).astype(int)[0]
    assert (np.diff(grey) <= 0).all()
    assert grey[0] - grey[-1] > 180


@pytest.mark.parametrize("column", [2, 3, 4, 5, 6, 7])
def test_a_cell_has_the_colour_of_its_evidence(alone, on_slide, column):
    """Cell (column, 2) holds column / 10; its colour does not depend on what else the slide holds."""
    x, y, value = column * 400 + 200, 2 * 400 + 200, np.float32(column / 10)
    assert alone.at(x, y) == pytest.approx(drawing.RAMP[round(float(value) * 255)], abs=2)  # one step of the ramp
    alpha = 0.40 * np.sqrt(value)
    expected = alpha * drawing.RAMP[round(float(value) * 255)] + (1 - alpha) * np.array([230, 180, 205])
    assert on_slide.at(x, y) == pytest.approx(expected, abs=2)  # 8-bit alpha and rounding


def test_the_scale_is_fixed():
    """Halving all evidence changes the colours: nothing is stretched to what the slide holds."""
    view = hand_made_view()
    half = replace(view, evidence=replace(view.evidence, values=view.evidence.values / 2))
    darker = Seen(hand_made_result(regions=[]), heatmap.render(hand_made_result(regions=[])))
    lighter = Seen(hand_made_result(regions=[], view=half), heatmap.render(hand_made_result(regions=[], view=half)))
    assert lighter.at(6 * 400 + 200, 1000).tolist() == darker.at(3 * 400 + 200, 1000).tolist()


def test_cells_have_their_true_size_and_hard_edges(alone):
    """Between two cells the colour changes within one pixel, at their border."""
    row = alone.pixels[MARGIN + int(1000 / alone.frame.px_l0), alone.left :]
    for border in (1200, 1600, 2000, 2400, 2800):
        place = round(border / alone.frame.px_l0)
        assert (row[place - 2] != row[place + 1]).any()
        assert (row[place - 6 : place - 1] == row[place - 2]).all()
        assert (row[place + 1 : place + 6] == row[place + 1]).all()


def test_there_is_no_heat_on_background_ink_or_unread_areas(result):
    view = hand_made_view()
    ink = np.zeros_like(view.ink)
    ink[60:90, 60:90] = True
    changed = hand_made_result(regions=[], view=replace(view, ink=ink))
    assert changed.view is not None
    frame = frame_of(changed, changed.view)
    alpha = np.asarray(layers.heat_layer(changed.view, frame, 0.5).convert("RGBA"))[..., 3]
    on_tissue = sampled(view.tissue & ~ink, (PX_L0, PX_L0), frame, False)
    assert alpha[~on_tissue].max() == 0
    assert alpha[on_tissue].max() == round(0.5 * np.sqrt(0.7) * 255)
    background = Seen(changed, overlay.render(changed))
    assert background.at(400, 1000).tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("kind", "x", "y"),
    [("unreadable", *UNREADABLE), ("not evaluated", 2400, 420), ("beyond the slide (padded)", 1000, 3010)],
)
def test_areas_without_evidence_are_hatched(result, on_slide, alone, kind, x, y):
    view = result.view
    kinds = layers.hatched(result, view, on_slide.frame)
    lines = layers.hatch_lines(kind, on_slide.frame.shape)
    place = int((y + 100) / on_slide.frame.px_l0), int((x + 100) / on_slide.frame.px_l0)
    assert kinds[kind][place]
    for seen in (on_slide, alone):
        patch = seen.area(x + 20, y + 20, 150).reshape(-1, 3)
        dark = (patch == drawing.QUIET).all(axis=1)
        assert 0.1 < dark.mean() < 0.5
        assert (patch[~dark].min(axis=1) > 200).all()
    assert lines.mean() == pytest.approx(1 / 6 if kind != "unreadable" else 1 - 25 / 36, abs=0.02)


@pytest.mark.parametrize("code", ["model-untrained", "model-knows-only-phantoms"])
def test_where_numbers_mean_nothing_the_overlay_shows_neither_heat_nor_outlines(code):
    """A dark line above both pictures says so; the overlay's tissue keeps its colour."""
    reasons = [{"code": code, "text": "The numbers mean nothing."}]
    result = hand_made_result(reasons=reasons, verdict="indeterminate")
    plain = Seen(hand_made_result(regions=[]), overlay.render(hand_made_result(regions=[])))
    for render, tissue in ((overlay.render, [230, 180, 205]), (heatmap.render, drawing.RAMP[153].tolist())):
        pixels = pixels_of(render(result))
        assert pixels.shape[1] == plain.pixels.shape[1]
        assert (pixels[2] == drawing.INK).all()
        assert ((pixels[: picture_key.HEADLINE_HEIGHT] == 255).all(axis=2)).any()  # words on it
        x, y = 2600 / plain.frame.px_l0 + plain.left, 1000 / plain.frame.px_l0 + MARGIN + picture_key.HEADLINE_HEIGHT
        assert pixels[int(y), int(x)].tolist() == tissue
    assert (plain.pixels[2] == 255).all()
    drawn = pixels_of(overlay.render(result))
    assert not (drawn[MARGIN + picture_key.HEADLINE_HEIGHT :][: plain.frame.height] == drawing.INK).all(axis=2).any()


@pytest.mark.parametrize(("cell_l0", "said"), [(400.0, "0.2 mm"), (37.2, "0.019 mm"), (8.0, "0.004 mm")])
def test_notes_have_plain_letters_only_and_widths_of_two_digits(cell_l0, said):
    """Pillow's font draws a box for a micro sign."""
    view = hand_made_view()
    result = hand_made_result(view=replace(view, evidence=replace(view.evidence, cell_l0=(cell_l0, cell_l0))))
    notes = " ".join(picture_key._notes(result, on_slide=True))
    assert notes.isascii()
    assert f": {said}. " in notes


def test_the_largest_regions_are_labelled_and_of_small_ones_three():
    sizes = [1.0] * 14
    assert len(layers.listed([hand_made_region(area_mm2=size) for size in sizes])) == 12
    for sizes, count in (([1.0, 0.2, 0.05, 0.05, 0.049, 0.01], 4), ([0.01] * 110, 3), ([0.01], 1), ([], 0)):
        assert len(layers.listed([hand_made_region(area_mm2=size) for size in sizes])) == count


def test_evaluated_tissue_and_background_are_not_hatched(result, on_slide):
    kinds = layers.hatched(result, result.view, on_slide.frame)
    for x, y in ((1000, 1000), (400, 400), (3600, 2900)):
        place = int(y / on_slide.frame.px_l0), int(x / on_slide.frame.px_l0)
        assert not any(mask[place] for mask in kinds.values())
    assert "pen ink, excluded" not in kinds


def test_unread_blocks_are_hatched_as_unreadable(result):
    view = hand_made_view()
    unread = np.zeros_like(view.unread)
    unread[60:70, 60:70] = True
    changed = hand_made_result(regions=[], view=replace(view, unread=unread))
    frame = frame_of(changed, changed.view)
    assert layers.hatched(changed, changed.view, frame)["unreadable"][
        round(65 * PX_L0 / frame.px_l0), round(65 * PX_L0 / frame.px_l0)
    ]


@pytest.mark.parametrize("kind", ["malignant", "benign"])
def test_an_outline_passes_through_its_points(kind):
    """Within one thumbnail pixel of every l0 corner there is the outline's dark colour."""
    result = hand_made_result(regions=[hand_made_region(**{"class": kind})])
    seen = Seen(result, overlay.render(result))
    reach = PX_L0 / seen.frame.px_l0
    for x, y in RING:
        column, row = x / seen.frame.px_l0 + seen.left, y / seen.frame.px_l0 + MARGIN
        around = seen.pixels[int(row - reach) : int(row + reach) + 1, int(column - reach) : int(column + reach) + 1]
        assert (around == drawing.INK).all(axis=2).any()
    middle = seen.pixels[int(800 / seen.frame.px_l0) + MARGIN]
    share = (middle == drawing.INK).all(axis=1).sum() / ((2000 - 800) / seen.frame.px_l0)
    assert share > 0.95 if kind == "malignant" else 0.4 < share < 0.8


def test_holes_are_outlined_too():
    hole = [[1200.0, 1000.0], [1200.0, 1200.0], [1600.0, 1200.0], [1600.0, 1000.0], [1200.0, 1000.0]]
    result = hand_made_result(regions=[hand_made_region(holes=[hole])])
    seen = Seen(result, overlay.render(result))
    assert (seen.area(1180, 1080, 40) == drawing.INK).all(axis=2).any()


@pytest.mark.parametrize("um", [0.25, 0.499, 1.0])
def test_the_scale_bar_is_as_long_as_it_says(um):
    scale = {"x_um_per_px": um, "y_um_per_px": um, "source": "slide", "slide_x_um_per_px": um, "slide_y_um_per_px": um}
    result = hand_made_result(regions=[], scale=scale)
    assert result.view is not None
    frame = frame_of(result, result.view)
    mm, length = scale_bar(frame, um)
    assert mm in (0.2, 0.5, 1.0)
    below = pixels_of(overlay.render(result))[frame.shape[0] + MARGIN :]
    drawn = (below == drawing.INK).all(axis=2)
    longest = max(_run(row) for row in drawn)
    assert longest == length
    assert longest * frame.px_l0 * um / 1000 == pytest.approx(mm, rel=0.005)  # half a pixel of 150


def _run(row: NDArray[np.bool_]) -> int:
    """The longest run of true values."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return int((ends[1::2] - ends[::2]).max(initial=0))


@pytest.mark.parametrize(("longest", "expected"), [(1.0, 1), (0.99, 0.5), (2.3, 2), (5, 5), (0.049, 0.02), (11, 10)])
def test_scale_bars_are_round(longest, expected):
    assert round_mm(longest) == pytest.approx(expected)


def test_the_threshold_is_marked_on_the_colour_bar():
    """A dark line crosses the bar at the card's 0.40 and nowhere else."""
    result = hand_made_result(regions=[])
    seen = Seen(result, overlay.render(result))
    row = seen.pixels[seen.frame.shape[0] + MARGIN + 40 - 3]  # just above the bar
    dark = np.flatnonzero((row == drawing.INK).all(axis=1))
    assert len(dark) == 2
    assert dark == pytest.approx(MARGIN + 0.4 * 299, abs=1.5)


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_the_label_of_the_threshold_stays_between_the_0_and_the_1(threshold):
    """Dark pixels below the bar: the 0, a gap, the label, a gap, the 1; the label of 0.02 once ran off the picture."""
    bare = hand_made_result(regions=[])
    card = hand_made_card(region_threshold=threshold)
    result = bare.carrying(bare.tiles, bare.view, bare.gallery, card=card)
    seen = Seen(result, overlay.render(result))
    top = seen.frame.shape[0] + MARGIN + 40 + 16 + 6
    dark = np.flatnonzero((seen.pixels[top : top + 18, : MARGIN + 330] < 128).all(axis=2).any(axis=0))
    assert dark.min() >= MARGIN
    assert dark.max() <= MARGIN + 305
    assert not np.isin(np.arange(MARGIN + 11, MARGIN + 17), dark).any()
    assert not np.isin(np.arange(MARGIN + 284, MARGIN + 289), dark).any()


def test_a_picture_is_at_most_about_1600_px_and_the_same_twice(result):
    for render in (overlay.render, heatmap.render):
        png = render(result)
        assert png == render(hand_made_result(regions=[]))
        assert max(Image.open(io.BytesIO(png)).size) <= 1650


def test_a_result_read_from_a_file_has_a_picture_that_says_so(result):
    bare = result.model_copy().carrying(result.tiles)
    assert overlay.render(bare) == heatmap.render(bare) == picture_key.without_view()


@pytest.mark.skipif(not (SLIDES / "cmu-1-small-region.svs").exists(), reason="MMINFER_TEST_SLIDES is not set")
def test_on_a_real_slide_heat_and_outlines_are_on_the_tissue(colour_bundle):
    """The picture against the slide itself: the pixels under heat are tissue, the shift that fits best is none."""
    from openslide import OpenSlide

    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.pipeline.flow import score_slide
    from melanoma_infer.pipeline.scorer import Scorer

    path = SLIDES / "cmu-1-small-region.svs"
    result = score_slide(path, Scorer(open_bundle(colour_bundle)))
    assert result.view is not None
    frame = frame_of(result, result.view)
    with OpenSlide(path) as slide:
        thumbnail = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
    truth = np.asarray(thumbnail.resize((frame.width, frame.height), Image.Resampling.BOX)).astype(float)
    drawn = np.asarray(layers.slide_layer(result.view, frame)).astype(float)[: frame.height, : frame.width]
    cell = round(result.view.evidence.cell_l0[0] / frame.px_l0)
    assert _best_shift(truth, drawn, cell) <= 0.05 * cell
    colourful = np.ptp(truth, axis=2) > 20
    heat = layers.heat_steps(result.view, frame)[1][: frame.height, : frame.width]
    assert colourful[heat].mean() > 0.85
    for region in result.regions:
        mean_inside = _darkness_inside(truth, frame.points(region.outline))
        assert mean_inside > 0.28  # the colour rule is sure from a darkness of 0.30


def _best_shift(truth: NDArray[np.float64], drawn: NDArray[np.float64], reach: int) -> float:
    """How far, in pixels, the drawn picture must be moved to fit best, by phase correlation."""
    a, b = (np.fft.rfft2(255 - picture.mean(axis=2)) for picture in (truth, drawn))
    cross = np.fft.irfft2(a * np.conj(b), s=truth.shape[:2])
    y, x = np.unravel_index(int(cross.argmax()), cross.shape)
    dy, dx = min(y, cross.shape[0] - y), min(x, cross.shape[1] - x)
    assert max(dy, dx) < reach
    return float(np.hypot(dy, dx))


def _darkness_inside(truth: NDArray[np.float64], ring: list[tuple[float, float]]) -> float:
    from PIL import ImageDraw

    mask = Image.new("1", truth.shape[1::-1])
    ImageDraw.Draw(mask).polygon(ring, fill=1)
    return float(1 - truth[np.asarray(mask)].mean() / 255)


def test_what_the_pictures_are_drawn_from_is_read_back(tmp_path):
    result = hand_made_result()
    (tmp_path / "pictures.npz").write_bytes(pictures_npz.render(result))
    view, tiles = pictures_npz.read(tmp_path / "pictures.npz")
    assert view is not None
    assert result.view is not None
    for name in ("tissue", "ink", "unread"):
        assert np.array_equal(getattr(view, name), getattr(result.view, name))
    assert np.array_equal(view.evidence.values, result.view.evidence.values, equal_nan=True)
    assert (view.px_l0, view.evidence.cell_l0) == (result.view.px_l0, result.view.evidence.cell_l0)
    assert view.evidence.source == result.view.evidence.source
    assert np.abs(view.thumbnail.astype(int) - result.view.thumbnail).mean() < 2
    assert set(tiles) == {tile.row for tile in result.gallery} != set()
    for tile in result.gallery:
        assert np.abs(tiles[tile.row].astype(int) - tile.pixels).mean() < 2


def test_pictures_that_cannot_be_read_are_none(tmp_path):
    assert pictures_npz.read(tmp_path / "pictures.npz") == (None, {})
    (tmp_path / "pictures.npz").write_bytes(b"PK")
    assert pictures_npz.read(tmp_path / "pictures.npz") == (None, {})
