"""A model card written by hand: reads TOML, and writes a commented template."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from melanoma_infer.card import ModelCard, OptionalOutput
from melanoma_infer.errors import OutputError, UsageError

TEMPLATE = """\
# A model card. The first eight lines are needed; each other line shows its default, or an example after "e.g.".
# An unknown key is an error. `mminfer bundle create OUT --onnx model.onnx --card card.toml` reads this file.

name = "my model"
classes = ["normal", "tumour"]      # in the order of the model's outputs
malignant = ["tumour"]              # which of them are malignant: some, not all
tile_px = 224                       # side of the model's input
um_per_px = 0.5                     # its scale; or tile_um = 112.0, the side of a tile in µm
mean = [0.485, 0.456, 0.406]        # of x/255; [0, 0, 0] and [1, 1, 1] for a model that normalises by itself
std = [0.229, 0.224, 0.225]
resize = "pillow-bilinear"          # antialiased, as PIL and torchvision do; or "reduce-bilinear"

# What it is: shown in results, not used in any computation. Without intended_use and training_data, every verdict is
# not-configured.
# intended_use = ""                 # what the model may be used for
# training_data = ""                # what it was trained on: how many cases, from where, of which years
# version = ""
# limits = ""
# finding = "tumour"                # e.g.; "Suspected tumour"; left out: the only malignant class, else "malignancy"
# domain = "tissue"                 # or "phantom": then every verdict on other slides is indeterminate
# trained = true                    # false: every verdict is indeterminate

# How slides are read.
# read_from = "pyramid"             # the lowest level that is fine enough; or "level0"
# histogram_equalisation = false
# allow_scale_override = true       # false: a scale entered by hand makes the verdict indeterminate
# evaluable_floor = 0.8             # share of the tissue that must have been evaluated
# padding_limit = 0.5               # share of the evaluated area that may be unscanned
# stain = "H&E"                     # e.g.; left out: a stated stain is not compared
# specimen = "primary"              # e.g.; left out: a stated specimen is not compared

# What the model gives besides the classes, and the roles of the classes.
# outputs = []                      # of "depth_mm", "attention", "cam", "features"; without depth_mm no thickness
# no_lesion = "normal"              # e.g.; left out: the first class that is not malignant
# precision = "fp32"                # the precision that you verified
# region_threshold = 0.5            # evidence from which a region is drawn
# cam_scale = 0.1                   # e.g.; the activation that counts as full evidence, for models with `cam`
# report_t_category = false
# thickness_residual_quantiles_mm = [-0.3, 0.4]    # e.g.; left out: no interval, and then no T category

# How tiles become the slide's score. [tables] must come last.
# [aggregator]
# kind = "top-area-mean"            # or "mean", "max"
# area_mm2 = 1.0                    # e.g.; left out: the area of one tile

# Without a threshold, every verdict is not-configured.
# [threshold]
# value = 0.5
# low = 0.45                        # scores in [low, high) are too close to the threshold to decide
# high = 0.55
# how = "on what data, how many cases, at which prevalence"

# What some of the malignant classes say about the patient rather than the tile. Without it no outcome is shown.
# [outcome]
# name = "metastasis recorded"
# classes = ["tumour"]
# horizon = "5 years"
# [outcome_thresholds]
# low = 0.3
# high = 0.7
# how = "on what data"

# Class frequencies, to correct probabilities for another population.
# [class_priors]
# trained = { normal = 0.5, tumour = 0.5 }
# stated = { normal = 0.9, tumour = 0.1 }

# How far an engine may differ from the reference. These are the defaults.
# [tolerances]
# fp32 = { dp = 1e-4, dmm = 0.005 }
# bf16 = { dp = 5e-3, dmm = 0.02 }
# fp16 = { dp = 5e-3, dmm = 0.02 }
# int8 = { dp = 2e-2, dmm = 0.05 }

# Only for this project's network (`mminfer train`, or --weights, which show the width): width and patient fields.
# [network]
# width = 64                        # tile_px must then be a multiple of 64, such as 512
# [[patient_fields]]
# name = "age"
# values = ["under_40", "40_to_54", "55_and_over"]
# edges = [40.0, 55.0]
"""


def read_card(path: Path, **more: Any) -> ModelCard:
    """The card in a TOML file, with these values for keys that the file lacks.

    Raises:
        UsageError: it cannot be read, or is not a valid card.
    """
    return card_of({**more, **card_values(path)})


def read_training_card(path: Path) -> ModelCard:
    """The card of a network that is to be trained, in a TOML file: it has every output unless the file says otherwise.

    Raises:
        UsageError: it cannot be read, or is not a valid card.
    """
    return read_card(path, outputs=get_args(OptionalOutput))


def card_values(path: Path) -> dict[str, Any]:
    """The values of a card in a TOML file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"{path.name} cannot be read ({error.strerror}). `mminfer bundle init card.toml` writes one to begin with."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}. Correct that place.") from error


def card_of(values: Mapping[str, Any]) -> ModelCard:
    """The card of these values.

    Raises:
        UsageError: one is missing, unknown or impossible.
    """
    try:
        return ModelCard.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "card"
        why = problem["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"The card is not valid: {where}: {why}. `mminfer bundle init` writes one with every field."
        ) from error


def write_template(path: Path) -> Path:
    """Write a commented card to `path` and return it.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError as error:
        raise OutputError(f"{path.name} exists. Remove it, or choose another name.") from error
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror}). Choose another folder.") from error
    return path
