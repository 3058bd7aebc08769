"""The card that `bundle init` writes names every field, with the default that the field has."""

from __future__ import annotations

import re
import tomllib

import pytest

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_export.card_toml import TEMPLATE, read_card, write_template

EXAMPLES = {"stain", "specimen", "no_lesion", "cam_scale", "thickness_residual_quantiles_mm", "threshold", "outcome",
            "outcome_thresholds", "class_priors", "network", "patient_fields", "aggregator", "finding"}  # fmt: skip
"""Fields that the template shows by an example, because their default is that they are left out."""


def uncommented() -> str:
    """The template with every field switched on."""
    return re.sub(r"^# (?=[a-z_0-9]+ = |\[)", "", TEMPLATE, flags=re.MULTILINE)


def test_the_template_is_a_valid_card_of_eight_lines(tmp_path):
    card = read_card(write_template(tmp_path / "card.toml"))
    lines = [line for line in TEMPLATE.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 8
    assert (card.tile_px, card.um_per_px, card.classes) == (224, 0.5, ("normal", "tumour"))


def test_the_template_names_every_field_of_the_card():
    named = tomllib.loads(uncommented())
    assert set(named) == set(ModelCard.model_fields) - {"tile_um"}
    assert "tile_um" in TEMPLATE


def test_the_template_shows_each_field_s_default():
    named = tomllib.loads(uncommented()) | {"tile_px": 256}  # as [network] needs it
    # Patient fields need the output `features`, which the template leaves out.
    shown = ModelCard.model_validate({k: v for k, v in named.items() if k != "patient_fields"})
    for name, field in ModelCard.model_fields.items():
        if not field.is_required() and name not in EXAMPLES | {"um_per_px", "tile_um", "tolerances"}:
            assert getattr(shown, name) == field.get_default(call_default_factory=True), name
    assert shown.aggregator.kind == "top-area-mean"
    for precision, tolerance in DEFAULT_TOLERANCES.items():
        assert (shown.tolerances[precision].dp, shown.tolerances[precision].dmm) == (tolerance.dp, tolerance.dmm)


def test_every_example_of_the_template_is_valid():
    named = tomllib.loads(uncommented()) | {"tile_px": 256, "outputs": ["depth_mm", "attention", "cam", "features"]}
    card = ModelCard.model_validate(named)
    assert card.patient_fields[0].columns == 4
    assert card.threshold is not None
    assert card.network is not None


def test_a_card_that_stands_there_is_not_overwritten(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_template(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("tile_px = 224", "tile_px = 'big'"), "tile_px"),
        (("tile_px = 224", ""), "tile_px: Field required"),
        (("tile_px = 224", "tile_px = 224\nsurprise = 1"), "surprise"),
        (("tile_px = 224", "tile_px = "), "is not TOML"),
        (("std = [0.229, 0.224, 0.225]", "std = [0.229, 0, 0.225]"), "std"),
    ],
)
def test_a_card_that_is_not_valid_is_refused_with_the_place(tmp_path, change, words):
    path = tmp_path / "card.toml"
    path.write_text(TEMPLATE.replace(*change))
    with pytest.raises(UsageError, match=words):
        read_card(path)


@pytest.mark.parametrize(
    ("mean", "std", "written"),
    [
        (
            [178.5, 135.15, 163.2],
            [47.0, 59.0, 44.0],
            r"mean = \[0.7, 0.53, 0.64\] and std = \[0.184314, 0.231373, 0.172549\]",
        ),
        ([0.7, 0.5, 0.6], [58.395, 57.12, 57.375], r"mean = \[0.7, 0.5, 0.6\] and std = \[0.229, 0.224, 0.225\]"),
        (
            [123.675, 116.28, 103.53],
            [1, 1, 1],
            r"mean = \[0.485, 0.456, 0.406\] and std = \[0.00392157, 0.00392157, 0.00392157\]",
        ),
        ([0, 0, 0], [255, 255, 255], r"mean = \[0.0, 0.0, 0.0\] and std = \[1.0, 1.0, 1.0\]"),
    ],
)
def test_a_mean_or_std_of_0_to_255_is_refused_with_the_values_to_write(tmp_path, mean, std, written):
    path = tmp_path / "card.toml"
    given = TEMPLATE.replace("[0.485, 0.456, 0.406]", str(mean)).replace("[0.229, 0.224, 0.225]", str(std))
    path.write_text(given)
    with pytest.raises(UsageError, match=rf"those of x / 255.*Write {written}"):
        read_card(path)


@pytest.mark.parametrize(
    ("malignant", "noun"),
    [
        (["tumour"], "tumour"),
        (["Tumor"], "Tumor"),
        (["basal_cell_carcinoma"], "basal cell carcinoma"),
        (["luminal", "basal"], "malignancy"),
        (["1"], "malignancy"),
        (["p > 0.5"], "malignancy"),
    ],
)
def test_without_a_finding_the_only_malignant_class_is_suspected_and_else_a_malignancy(tmp_path, malignant, noun):
    path = tmp_path / "card.toml"
    lines = TEMPLATE.replace('malignant = ["tumour"]', f"malignant = {malignant}")
    path.write_text(lines.replace('["normal", "tumour"]', str(["normal", *malignant])))
    assert read_card(path).noun == noun


@pytest.mark.parametrize("noun", ["melanoma", "Merkel cell carcinoma", "in-situ melanoma", "Crohn’s disease"])
def test_a_card_names_its_finding(tmp_path, noun):
    path = tmp_path / "card.toml"
    path.write_text(TEMPLATE.replace('# finding = "tumour"', f'finding = "{noun}"'))
    assert read_card(path).noun == noun


@pytest.mark.parametrize(
    "noun",
    [
        "",
        " ",
        "m",
        "1",
        "a melanoma",
        "The tumour",
        "skin_cancer",
        "melanoma.",
        "melanoma ",
        "two  spaces",
        "x" * 61,
        "a\\nb",
    ],
)
def test_a_finding_that_is_no_short_noun_is_refused(tmp_path, noun):
    path = tmp_path / "card.toml"
    path.write_text(TEMPLATE.replace('# finding = "tumour"', f'finding = "{noun}"'))
    with pytest.raises(UsageError, match='finding is a noun without an article or a full stop, such as "melanoma"'):
        read_card(path)


def test_a_card_that_is_missing_is_refused_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(UsageError, match="bundle init"):
        read_card(tmp_path / "card.toml")
