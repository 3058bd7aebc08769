"""How far an engine may differ from the reference, by precision."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Frozen(BaseModel):
    """Base of every part of a card: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tolerance(Frozen):
    """The largest differences from the reference that an engine may show, at the 99.9th percentile over tiles.

    None stands for the default of the precision.
    """

    dp: Positive
    """Difference of a probability."""
    dmm: Positive
    """Difference of the depth in mm."""
    features_rms: Positive | None = None
    """Root mean square of the features' differences, relative to that of the features."""
    dlogit: Positive | None = None
    """Difference of a centred log-probability."""
    attention: Positive | None = None
    """Difference of the attention, which is in [0, 1]."""
    cam_correlation: Probability | None = None
    """Lowest correlation of a class activation map with the reference's."""


DEFAULT_TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(dp=1e-4, dmm=0.005, features_rms=1e-4, dlogit=1e-3, attention=1e-4, cam_correlation=0.9999),
    "bf16": Tolerance(dp=5e-3, dmm=0.02, features_rms=0.03, dlogit=0.3, attention=0.06, cam_correlation=0.95),
    "fp16": Tolerance(dp=5e-3, dmm=0.02, features_rms=0.01, dlogit=0.1, attention=0.02, cam_correlation=0.98),
    "int8": Tolerance(dp=2e-2, dmm=0.05, features_rms=0.10, dlogit=0.5, attention=0.10, cam_correlation=0.90),
}
"""For comparison, the demo bundle's random network, which amplifies rounding, differs on a CPU by: fp32 features 7e-7,
attention 5e-6, logits 3e-5, CAM 1 − 1e-9; fp16 1.5e-3, 8e-3, 0.024, 0.999; bf16 8e-3, 0.042, 0.18, 0.98. Rounding flips
ReLU masks in the backbone, which changes a map by a tenth of its RMS in fp16; so its correlation is bounded, not its
values."""
