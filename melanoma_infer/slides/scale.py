"""The scale of a slide: it is known, or the slide is refused. Millimetres are only as right as the µm per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melanoma_infer.errors import ScaleUnknownError
from melanoma_infer.geometry import Scale
from melanoma_infer.records import SlideFacts

NEXT_STEP = (
    "If you know the true scale of level 0, give it: --mpp X or --mpp X,Y (µm per pixel, for example --mpp 0.25)."
)


@dataclass(frozen=True)
class KnownScale:
    """The scale in use, and its origin."""

    scale: Scale
    source: Literal["slide", "override"]


def known_scale(facts: SlideFacts, override_um: tuple[float, float] | None) -> KnownScale:
    """The slide's own scale, or the one given in its place. It is never guessed from the magnification.

    Raises:
        ScaleUnknownError: there is none, it is implausible, or x and y disagree.
    """
    if override_um is not None:
        scale = Scale(*override_um)
        if scale.implausible:
            raise ScaleUnknownError(f"The scale given with --mpp is not a slide's: {scale.implausible}.")
        return KnownScale(scale, "override")
    if facts.scale is None:
        raise ScaleUnknownError(f"The slide does not say its scale. {NEXT_STEP}")
    if facts.scale.implausible:
        raise ScaleUnknownError(f"The slide's scale cannot be right: {facts.scale.implausible}. {NEXT_STEP}")
    return KnownScale(facts.scale, "slide")
