"""What the report says, what it must never say, and what hostile text cannot do to it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image
from results_for_tests import hand_made_card, hand_made_region, hand_made_result

from melanoma_infer.reports import drawing, report_html, report_pictures, words
from melanoma_infer.reports.frame import frame_of
from melanoma_infer.reports.plain_text import plain
from melanoma_infer.reports.repeat_command import repeat_command
from melanoma_infer.reports.report_html import render

FORBIDDEN = ("negative", "clear", "safe", "low risk", "diagnos", "confiden", "✓", "✔", "✅", "clinical", "validated")
UNTRAINED = {
    "verdict": "indeterminate",
    "outcome": "not-assessed",
    "reasons": [{"code": "model-untrained", "text": "The model is untrained: its numbers mean nothing."}],
}
PHANTOM_ONLY = {
    "verdict": "indeterminate",
    "outcome": "not-assessed",
    "reasons": [
        {
            "code": "model-knows-only-phantoms",
            "text": "The model has seen only drawn phantoms: its numbers mean nothing for this tissue.",
        }
    ],
}
RTL = "\u202egnp.exe\u2066\u200f\x07\x00"


class Page(HTMLParser):
    """A page taken apart: its elements, its text, and the text of each section by its heading."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.source = content.decode("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headline = ""
        self.grey = ""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.source)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("dt", "dd", "th", "td", "p", "figure"):
            self.handle_data(" ")
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if "style" in tags or "script" in tags:
            return
        self.text += data
        if "h1" in tags:
            self.headline += data
        if any(attrs.get("class") == "void" for _, attrs in self._open):
            self.grey += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def page_of(**changes: Any) -> Page:
    return Page(render(hand_made_result(**changes)))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of()


def test_the_page_is_in_reading_order(page):
    marks = [
        "Research use only", "slide-7", "Suspected melanoma in evaluable tissue (score 0.83, threshold 0.62)",
        "threshold 0.62",
        "(0.55–0.70)", "1.45 mm² of tissue, 94 % evaluable", "Where the evidence is", "Tiles to look at",
        "Highest-scoring", "Highest below the threshold", "Nearest to the threshold", "Regions", "What was evaluated",
        "Patient values used", "The model", "It knows two colours.", "What this result rests on", "How to repeat it",
        "Time spent", "infer 3.46 s",
    ]  # fmt: skip
    places = [page.words.index(mark) for mark in marks[:1]]
    for mark in marks[1:]:
        places.append(page.words.index(mark, places[-1]))
    assert places == sorted(places)


@pytest.mark.wheel
def test_the_page_is_one_file_that_loads_nothing(page):
    assert len(page.source) < 5_000_000
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name) is None or str(attrs[name]).startswith("data:")
    bare = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page.source)
    assert "http:" not in bare.replace("http-equiv", "")
    assert "https:" not in bare
    assert "url(" not in bare
    assert "@import" not in bare


def test_the_policy_runs_our_script_and_no_other(page):
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    script = re.search(r"<script>(.*)</script>", page.source, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        UNTRAINED,
        UNTRAINED | {"malignant_score": None},
        PHANTOM_ONLY,
        {"verdict": "not-detected", "outcome": "below-threshold"},
        {
            "verdict": "not-configured",
            "reasons": [{"code": "no-threshold", "text": "The model card sets no threshold."}],
        },
        {"patient": None, "regions": [], "outcome": "above-threshold"},
        {"thickness": {"state": "more-than", "mm": 3, "reason": ""}},
    ],
)
def test_no_word_makes_a_forbidden_promise_and_no_score_has_three_decimals(changes):
    page = page_of(**changes)
    said = (
        page.text
        + " ".join(str(v) for _, attrs in page.elements for k, v in attrs.items() if k in ("alt", "aria-label"))
    ).lower()
    for word in FORBIDDEN:
        assert word not in said
    template = report_html.TEMPLATE.read_text().lower().replace("unsafe-inline", "")
    assert not [word for word in FORBIDDEN if word in template]
    numbers = re.findall(r"\d+\.\d{3,}", re.sub(r"4\.0\.1|0\.1\.0|2026\.1", "", said))
    assert numbers == []


def test_reasons_replace_the_finding_in_the_headline():
    reasons = [
        {
            "code": "near-threshold",
            "text": "The score lies in the interval of the threshold, 0.55–0.70.",
            "value": 0.63,
            "limit": 0.62,
        },
        {
            "code": "low-evaluable-tissue",
            "text": "Too little of the tissue could be evaluated.",
            "value": 0.5,
            "limit": 0.8,
        },
    ]
    page = page_of(verdict="indeterminate", reasons=reasons)
    assert " ".join(page.headline.split()) == (
        "Indeterminate: The score lies in the interval of the threshold, 0.55–0.70. "
        "Too little of the tissue could be evaluated."
    )
    assert len(page.all("h1")) == 1
    assert "low-evaluable-tissue" in page.text


@pytest.mark.parametrize("changes", [UNTRAINED, PHANTOM_ONLY])
def test_meaningless_numbers_appear_only_in_the_grey_box(changes):
    """The score with and without the patient, the regions and the depth; and none of them in the headline."""
    page = page_of(**changes)
    outside = page.text.replace(page.grey, "")
    assert "These numbers mean nothing for this tissue" in page.grey
    for number in ("0.83", "0.73", "0.24", "0.72", "1.01 mm", "0.45"):
        assert number in page.grey
        assert number not in outside
    for tile_score in ("0.90", "0.85"):
        assert tile_score not in outside
    assert not re.search(r"\d", page.headline)
    assert words.means_nothing(hand_made_result(**changes)) in outside  # beside the heat too


@pytest.mark.parametrize("changes", [UNTRAINED, {"verdict": "not-detected", "outcome": "not-assessed"}])
def test_an_outcome_that_was_not_assessed_does_not_read_like_a_finding(changes):
    page = page_of(**changes, outcome_name="metastasis recorded within 5 years")
    assert page.words.count("Outcome Not assessed: metastasis recorded within 5 years.") == 1
    assert page.words.count("metastasis recorded") == 1


def test_breslow_thickness_is_shown_only_if_the_model_estimates_depth(page):
    from dataclasses import replace

    assert "Breslow thickness 1.01 mm" in page.words
    result = hand_made_result()
    without = result.carrying(replace(result.tiles, depth_mm=None), result.view, result.gallery, card=result.card)
    assert "Breslow" not in Page(render(without)).text


def test_the_numbers_of_an_undocumented_model_mean_something_and_stay_where_they_are():
    reason = {"code": "model-undocumented", "text": "The model card does not say what the model was trained on."}
    page = page_of(verdict="not-configured", outcome="not-assessed", reasons=[reason])
    assert " ".join(page.headline.split()) == "No verdict: The model card does not say what the model was trained on."
    assert page.grey == ""
    assert "score 0.83" in page.words


def test_a_phantom_is_called_one_and_the_caution_comes_first():
    phantom = hand_made_result().slide.model_dump() | {"is_phantom": True}
    page = page_of(slide=phantom, **UNTRAINED)
    assert page.words.index(words.PHANTOM) < page.words.index("Indeterminate:")
    assert "These numbers mean nothing for this phantom" in page.grey
    assert "for this tissue" not in page.text
    assert words.PHANTOM not in page_of().words


def test_meaningful_numbers_are_not_in_a_grey_box(page):
    assert page.grey == ""
    assert "mean nothing" not in page.text


def test_the_score_line_puts_score_threshold_and_interval_where_they_belong(page):
    styles = {attrs["class"]: attrs["style"] for attrs in page.all("i") if "class" in attrs}
    assert styles["dot"] == "left:83.49%"
    assert styles["threshold"] == "left:62.00%"
    assert styles["band"] == "left:55.00%;width:15.00%"
    (label,) = [attrs["aria-label"] for attrs in page.all("div") if attrs.get("class") == "score"]
    assert label == "Malignant score 0.83 on a line from 0 to 1; threshold 0.62, its interval 0.55 to 0.70."


def test_patient_values_as_used_and_the_score_with_and_without(page):
    assert "age 55 to 69" in page.words
    assert "Score with these patient values: 0.83 . Score without any: 0.73 ." in page.words.replace(
        "0.83.", "0.83 ."
    ).replace("0.73.", "0.73 .")
    assert "None were given" in page_of(patient=None).words


def test_a_scale_entered_by_hand_is_red_and_shown_beside_the_slide_s():
    scale = {
        "x_um_per_px": 0.25,
        "y_um_per_px": 0.25,
        "source": "override",
        "slide_x_um_per_px": 0.5,
        "slide_y_um_per_px": 0.5,
    }
    page = page_of(scale=scale)
    assert page.words.count("Entered by hand: 0.25 × 0.25 µm/px") == 2
    assert "The slide states 0.5 × 0.5 µm/px." in page.words
    assert [attrs for attrs in page.all("span") if attrs.get("class") == "alarm"]
    assert "--mpp 0.25,0.25" in page.words


def test_the_command_repeats_only_what_differs():
    card = hand_made_card()
    patient = {
        "values": {"age": "55_to_69", "sex": "unknown", "braf": "mutated"},
        "ulceration": "yes",
        "malignant_score_without": 0.5,
    }
    assert repeat_command(hand_made_result(patient=None), card) == "mminfer score SLIDE --bundle hand"
    geometry = hand_made_result().geometry.model_dump() | {
        "tile_um": 256.0, "stride_um": 128.0, "tissue_source": "mask", "aggregator": "max",
    }  # fmt: skip
    result = hand_made_result(
        patient=patient,
        geometry=geometry,
        stain="H&E",
        numerics={"engine": "torch", "version": "2", "precision": "bf16", "device": "cpu"},
    )
    assert repeat_command(result, card) == (
        "mminfer score SLIDE --bundle hand --engine torch --precision bf16 --tile-um 256 --stride-um 128 --tissue MASK "
        "--aggregate max --stain 'H&E' --age AGE --patient braf=VALUE --ulceration ULCERATION"
    )
    assert "55" not in repeat_command(result, card)
    assert "mutated" not in repeat_command(result, card)


def test_a_rescored_result_is_repeated_by_rescore():
    patient = {
        "values": {"age": "55_to_69"},
        "ulceration": "unknown",
        "malignant_score_without": 0.5,
        "breslow_mm": 1.236,
    }
    result = hand_made_result(patient=patient)
    assert (
        repeat_command(result, result.card) == "mminfer rescore FOLDER --bundle hand --age AGE --breslow-mm BRESLOW_MM"
    )
    assert "1.24 (measured)" in page_of(patient=patient).words


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }}" + RTL


def test_hostile_text_is_only_text():
    million = "A" * 1_000_000
    changes = {
        "id": HOSTILE,
        "case_id": million,
        "slide": hand_made_result().slide.model_dump() | {"vendor": HOSTILE, "reader": million},
        "warnings": [HOSTILE, million],
        "outcome_name": HOSTILE,
        "regions_note": HOSTILE,
        "stain": HOSTILE,
        "patient": {
            "values": {HOSTILE: HOSTILE, "age": million},
            "ulceration": HOSTILE,
            "malignant_score_without": 0.5,
        },
        "verdict": "indeterminate",
        "reasons": [{"code": "near-threshold", "text": HOSTILE, "value": HOSTILE, "limit": million}],
        "run": {"timings_ms": {HOSTILE: 1.0}, "folder": HOSTILE},
        "regions": [hand_made_region(id=HOSTILE).model_dump(by_alias=True)],
        "bundle": hand_made_result().bundle.model_dump() | {"name": HOSTILE},
    }
    card = hand_made_card(name="x" + HOSTILE, training_data=HOSTILE, limits=million)
    page = Page(render(hand_made_result(card=card, **changes)))
    quiet = page_of()
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in quiet.elements} | {"bdi", "span"}
    assert "<script>alert(1)</script>" in page.text  # as text
    assert "{{ 7*7 }}" in page.text
    assert "49" not in page.headline
    assert len(page.source) < len(quiet.source) + 40_000
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08]", page.source)
    assert page.source.count("AAAA…") >= 4


def test_lone_surrogates_and_control_characters_are_removed():
    text = "".join(map(chr, range(32))) + "\ud800é\u0000\u2028z"
    assert plain(text) == "   éz"
    assert "éz" in page_of(id=text).text


@pytest.mark.parametrize("chars", [10, 400])
def test_long_texts_are_truncated(chars):
    assert plain("b" * chars, chars) == "b" * chars
    assert plain("b" * (chars + 1), chars) == "b" * (chars - 1) + "…"
    assert plain("\u202e" * 5 * chars + "b", chars) == "…"


def test_every_picture_has_an_alt_text_and_every_control_a_label(page):
    assert all(attrs.get("alt") for attrs in page.all("img"))
    labelled = {attrs.get("for") for attrs in page.all("label")}
    assert {attrs["id"] for attrs in page.all("input")} <= labelled
    assert page.all("html")[0]["lang"] == "en"
    for attrs in page.all("svg"):
        assert attrs.get("aria-label")


def test_each_tile_is_shown_raw_then_attention_then_the_maps(page):
    names = [attrs["alt"] for attrs in page.all("img") if str(attrs["alt"]).startswith("Tile at 800, 0:")]
    assert [str(name).rpartition(": ")[2] for name in names] == [
        "as scanned.", "attention.", "lesion.", "malignant.", "outcome.",
    ]  # fmt: skip
    assert "at 800, 0" in page.words
    without = page_of(maps=False)
    assert "the model has no maps" in without.words
    assert not [a for a in without.all("img") if "attention" in str(a["alt"])]


def test_a_map_is_drawn_in_its_own_cells_on_the_card_s_scale():
    """A map of 2 × 2 cells: its colours against the ramp over the grey of a white tile."""
    values = np.array([[0.0, 0.25], [0.5, 1.0]])
    uri = report_pictures.map_over(report_pictures.pale_grey(np.full((64, 64, 3), 255, np.uint8)), values)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(float)
    grey = 120 + 0.53 * 255
    for (row, column), value in np.ndenumerate(values):
        part = float(drawing.opacity(np.array(value), 0.70))
        expected = part * drawing.RAMP[round(value * 255)] + (1 - part) * grey
        side = report_pictures.MAP_PX // 2
        assert picture[row * side + side // 2, column * side + side // 2] == pytest.approx(expected, abs=4)  # JPEG


def test_the_scale_bar_of_a_tile_is_as_long_as_it_says():
    uri = report_pictures.scanned(np.full((64, 64, 3), 255, np.uint8), hand_made_result().geometry.tile_um)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L")).astype(int)
    assert picture.shape == (384, 384)
    bar = (picture[384 - 22 + 4] < 90).sum()
    assert bar / 384 * 0.4 == pytest.approx(0.1, abs=0.003)  # 0.1 mm of a tile of 0.4 mm


def test_the_scale_bar_on_the_slide_is_as_long_as_it_says():
    result = hand_made_result()
    assert result.view is not None
    stage = report_pictures.stage_of(result, result.view)
    width_mm = stage.width * frame_of(result, result.view, report_pictures.STAGE_PX).px_l0 * 0.5 / 1000
    assert stage.bar_share * width_mm == pytest.approx(stage.bar_mm, rel=0.005)


def test_outlines_are_drawn_at_their_place():
    result = hand_made_result()
    assert result.view is not None
    stage = report_pictures.stage_of(result, result.view)
    numbers = np.array(re.findall(r"[\d.]+", stage.outlines[0].path), np.float64).reshape(-1, 2)
    l0 = numbers * frame_of(result, result.view, report_pictures.STAGE_PX).px_l0
    assert l0 == pytest.approx(np.array(result.regions[0].outline[:-1]), abs=0.2)


def test_small_regions_are_folded_into_one_line(page):
    assert "R1 malignant 0.24 0.72 0.45 0.90 1" in page.words
    assert page.all("details") == []
    large = [hand_made_region(id=f"R{i}", area_mm2=0.05).model_dump(by_alias=True) for i in range(1, 6)]
    small = [hand_made_region(id=f"R{i}", area_mm2=0.003).model_dump(by_alias=True) for i in range(6, 126)]
    folded = page_of(regions=large + small)
    table, _, rest = folded.words.partition("120 smaller regions, together 0.36 mm²")
    assert "R5 malignant 0.05" in table
    assert "R6" not in table.partition("Tissue section 1:")[2]
    assert "R6 malignant < 0.01" in rest
    assert "R105 malignant" in rest
    assert "R106" not in rest
    assert "20 more are in regions.geojson." in rest
    labels = re.findall(r"<text [^>]*>(R\d+)</text>", folded.source)
    assert labels == ["R1", "R2", "R3", "R4", "R5"]
    assert folded.source.count('class="line malignant small"') == 120
    assert "1 smaller region, together < 0.01 mm²" in page_of(regions=large + small[:1]).words
    assert "No region reaches the card's region threshold." in page_of(regions=[]).words


def test_heat_begins_at_two_fifths_and_off_where_numbers_mean_nothing(page):
    def begins(page: Page) -> tuple[str | None, str | None, bool, int]:
        inputs = {attrs["id"]: attrs for attrs in page.all("input")}
        (style,) = [attrs["style"] for attrs in page.all("section") if attrs.get("id") == "picture"]
        hidden = [attrs for attrs in page.all("span") if attrs.get("class") == "heat-key" and "hidden" in attrs]
        return style, inputs["heat"]["value"], "checked" in inputs["lines"], len(hidden)

    assert begins(page) == ("--heat:0.4", "40", True, 0)
    assert begins(page_of(**UNTRAINED)) == ("--heat:0.0", "0", False, 3)
    assert "So heat and outlines are off." in page_of(**UNTRAINED).words


def test_case_and_padding_are_named(page):
    assert "slide-7 · scored by" in page.words
    assert "slide-7 · case C-12 · scored by" in page_of(case_id="C-12").words
    assert "at 800, 2400 25 % padded" in page.words.replace("\xa0", " ")
    assert "never scanned" not in page.words


def test_padded_tiles_are_explained():
    from dataclasses import replace

    result = hand_made_result()
    for padding, said in (
        (np.full(len(result.tiles), 0.4), "Every tile of this slide is padded: a part of it was never scanned."),
        (np.where(np.arange(len(result.tiles)) == 0, 0.4, 0), "One padded tile scores higher than one of these"),
    ):
        tiles = replace(result.tiles, padded_fraction=padding)
        gallery = result.gallery if padding.all() else result.gallery[1:]
        assert said in Page(render(result.carrying(tiles, result.view, gallery, card=result.card))).words


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ("2026-11-29T06:23:18Z", "29 November 2026, 06:23:11–06:23:18 UTC"),
        ("2026-12-01T00:00:05Z", "29 November 2026, 06:23:11–1 December 2026, 00:00:05 UTC"),
    ],
)
def test_times_are_said_with_the_date_once(finished, expected):
    assert words.when("2026-11-29T06:23:11Z", finished) == expected


@pytest.mark.parametrize(
    ("mm", "expected"), [(0.256, "0.26 mm"), (0.1, "0.10 mm"), (0.0641, "64 µm"), (0.0001, "1 µm")]
)
def test_small_widths_are_in_micrometres(mm, expected):
    assert words.width(mm) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.005, "0.01"), (1.005, "1.01"), (0.125, "0.13"), (2.675, "2.68"), (0.0049999, "0.00"), (3, "3.00")],
)
def test_millimetres_are_rounded_half_up(value, expected):
    assert words.mm(value) == expected


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"state": "estimated", "mm": 1.005, "low_mm": 0.8, "high_mm": 1.3, "reason": ""},
            "1.01 mm (0.80 to 1.30 mm), estimated.",
        ),
        ({"state": "estimated", "mm": 1.005, "reason": ""}, "1.01 mm, estimated."),
        ({"state": "more-than", "mm": 3.0, "reason": ""}, "More than 3.00 mm."),
        ({"state": "not-assessable", "reason": "No window."}, "Not assessable. No window."),
    ],
)
def test_thickness_is_shown_with_its_interval_or_its_reason(state, said):
    assert words.thickness(hand_made_result(thickness=state)) == said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("above-threshold", "Above the upper threshold for spread recorded (score 0.50)."),
        ("between-thresholds", "Nothing is claimed: between the thresholds for spread recorded (score 0.50)."),
        ("below-threshold", "Below the lower threshold for spread recorded (score 0.50)."),
        ("not-assessed", "Not assessed: spread recorded."),
    ],
)
def test_the_outcome_is_placed_against_its_thresholds(state, said):
    assert words.outcome(hand_made_result(outcome=state)) == said
    assert words.outcome(hand_made_result(outcome=state, outcome_name=None)) == ""


def test_the_page_is_small_even_where_the_tissue_is_noise():
    """The worst case for JPEG: every pixel of the slide and of ten tiles differs."""
    from dataclasses import replace

    from results_for_tests import hand_made_view

    rng = np.random.default_rng(0)
    view, gallery = hand_made_view(), hand_made_result().gallery
    shape = (1900, 2000)
    noise = rng.integers(0, 256, (*shape, 3), np.uint8)
    nothing = np.zeros(shape, np.bool_)
    view = replace(view, thumbnail=noise, px_l0=2.0, tissue=~nothing, ink=nothing, unread=nothing)
    tiles = tuple(replace(tile, pixels=rng.integers(0, 256, (512, 512, 3), np.uint8)) for tile in gallery)
    result = hand_made_result(view=view)
    assert len(render(result.carrying(result.tiles, view, tiles, card=result.card))) < 5_000_000


def test_a_small_thumbnail_is_embedded_as_it_is_with_the_colour_of_every_pixel():
    from dataclasses import replace

    result = hand_made_result()
    assert result.view is not None
    thumbnail = np.full_like(result.view.thumbnail, 240)
    thumbnail[:, ::2] = (200, 60, 120)
    stage = report_pictures.stage_of(result, replace(result.view, thumbnail=thumbnail))
    embedded = np.asarray(Image.open(io.BytesIO(base64.b64decode(stage.slide.partition(",")[2]))).convert("RGB"))
    height, width = thumbnail.shape[:2]
    assert height <= len(embedded) < stage.height
    off = np.abs(embedded[:height, :width].astype(int) - thumbnail)
    assert off.mean() < 6


def test_the_same_result_gives_the_same_bytes():
    assert render(hand_made_result()) == render(hand_made_result())


def test_a_result_read_from_a_file_has_a_page_without_pictures():
    result = hand_made_result()
    page = Page(render(result.model_copy().carrying(result.tiles, card=result.card)))
    assert "No picture: the slide was not read for this result." in page.text
    assert page.all("img") == []
    assert "0.83" in page.headline


def test_the_escaped_source_holds_the_id_once_escaped():
    source = render(hand_made_result(id="a<b&c")).decode()
    assert "a<b" not in source
    assert html.escape("a<b&c") in source


def test_the_report_says_when_the_slide_was_scored(page):
    assert "Scored 29 November 2026, 06:23:11–06:23:15 UTC" in page.words
    assert "Scored" not in page_of(run={}).words
