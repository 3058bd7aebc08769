"""How a network is trained; the defaults are the paper's (2.2, 2.7) where it states a value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainingSettings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, lt=2**32)
    """Of the weights, the order, the augmentation and the divisions of the data: the same seed gives the same weights
    on the same machine."""
    epochs: int = Field(50, ge=1)
    """Passes over the training tiles at most. The paper's."""
    patience: int = Field(10, ge=1)
    """Epochs without a lower validation loss after which training stops. The paper's."""
    batch: int = Field(32, ge=2)
    """Tiles in a step. The paper's; batch normalisation needs two."""
    learning_rate: Positive = 1e-3
    """Adam's. The paper's."""
    schedule: Literal["constant", "cosine"] = "constant"
    """"constant" as in the paper; "cosine": falls to zero at the last of `epochs`, for a run of a known length."""
    augment: bool = True
    """Whether training tiles are varied. The paper says both, that they were (2.2) and that they were not (2.1); with
    few slides a network learns these slides by heart, so they are. Off: each tile is used as it is."""
    free_share: Share = 0.5
    """Share of the tiles that are turned by any angle and scaled. Every tile is turned by right angles and mirrored,
    which costs no sharpness; the other half stays as sharp as the tiles that the model will score."""
    angle_deg: float = Field(45, ge=0, le=45)
    """Largest free angle in degrees. 45 beside right angles covers the circle: tissue has no up on a slide."""
    scale: float = Field(1.2, ge=1, le=1.5)
    """Largest free magnification, and its inverse the smallest; thickness in the picture scales with it. More than the
    error of a slide's stated scale, and less than would change a cell's looks."""
    colour: Amount = 0.08
    """Largest relative change of each colour channel, as between stainings of one laboratory."""
    saturation: Amount = 0.2
    """Largest relative change of the distance from grey."""
    contrast: Amount = 0.15
    """Largest relative change of the distance from the tile's mean brightness."""
    brightness: Amount = 0.06
    """Largest shift of all channels, as a share of 255."""
    patient_dropout: Share = 0.25
    """Chance that all patient values of a tile become "unknown", and else of each single value: the graph answers for
    an unknown patient, and slides often come with some values missing, so both must be trained."""
    dropout: Amount = 0.0
    """Chance that a channel of the image features is hidden from the classifier in a step; the others are enlarged to
    make up for it. Outcomes are few and noisy, and without it a network soon knows its training patients by their
    pictures. The paper says nothing of it."""
    measured_depth: Share = 0.0
    """Chance that the classifier is given a tile's known thickness in place of the estimate. 0 as in the paper. Without
    it the classifier may read the outcome from the picture and give the thickness any sign: a thickness that is
    measured later (`rescore --breslow-mm`) then moves the outcome the wrong way."""
    depth_weight: Weight = 1.0
    """Weight of the depth loss (smooth L1 in mm) beside the class loss (cross-entropy in nats); the two do not share a
    layer, so the value changes little under Adam."""
    depth_tiles: int = Field(32, ge=0)
    """Tiles of known thickness that the depth module sees alone in each step, besides those of the batch. Few tiles of
    a data set have one, and the module is small: this shows it each of them several times as often."""
    map_weight: Weight = 0.0
    """Weight of the map loss (cross-entropy per place) beside the class loss: the lesion map learns where outlined
    lesions are. 0 as in the paper, which trains on tiles alone: the map then shows what speaks for the class, which may
    be a part of the lesion, or lie beside it."""
    depth_smooth_mm: Positive = 0.1
    """Error in mm up to which the depth loss is quadratic: below it pathologists differ from one another."""
    sensitivity: Annotated[float, Field(gt=0, le=1)] | None = None
    """The sensitivity that the threshold must have on the validation data. None: Youden's index, which weighs a missed
    and a falsely suspected case alike."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """"bf16": products in bfloat16, weights and depth in float32, for a CPU or GPU that computes in bfloat16 (a CPU
    with AVX-512 BF16 or AMX). "fp32" because the paper says nothing of less."""
    devices: int = Field(1, ge=1)
    """GPUs that share each step; each takes `batch` tiles."""
