"""The scale of a slide: it is known, or the slide is refused. Millimetres are only as right as the µm per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melanoma_infer.errors import ScaleUnknownError
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import SlideFacts, StatedScale
from melanoma_infer.slides.image_description import imagej_um_per_unit, ome_scale

NEXT_STEP = (
    "If you know the true scale of level 0, give it: --mpp X or --mpp X,Y (µm per pixel, for example --mpp 0.25)."
)


CONTRADICTION_MIN = 1.8
"""Two scales that are this far apart contradict each other. Scanners differ from the nominal 10 µm over magnification
by up to 1.5; the next magnification is a factor of 2 away."""
TAG, OME = "TIFF tag", "OME-XML"
"""The sources of a TIFF's scale."""
OBJECTIVE_ONLY = ("mirax", "zeiss", "dicom")
"""Vendors whose magnification is the objective's: their cameras sample at up to twice its nominal scale."""


UM_PER_TIFF_UNIT = {"inch": 25_400.0, "centimeter": 10_000.0}
"""The units of a TIFF's resolution; "none" is the third."""


@dataclass(frozen=True)
class TiffTags:
    """What the first page of a TIFF says of its scale, whichever reader opens it."""

    x_per_unit: float | None
    """Pixels a unit; None if the file does not say it."""
    y_per_unit: float | None
    unit: str
    """"inch", "centimeter", or anything else for none."""
    description: str
    """OME-XML or ImageJ's lines may be in it."""

    @property
    def scale(self) -> Scale | None:
        """The scale in the resolution tags. Where they have no unit, ImageJ states it in the description."""
        um = UM_PER_TIFF_UNIT.get(self.unit) or imagej_um_per_unit(self.description)
        if not (um and self.x_per_unit and self.y_per_unit):
            return None
        return Scale(um / self.x_per_unit, um / self.y_per_unit)


def tiff_scales(tags: TiffTags, size_l0: SizePx) -> tuple[StatedScale, ...]:
    """The scales that a TIFF states, the one to use first.

    A resolution for printing (72 dots an inch) is no slide's: it counts only if nothing else is stated, so that the
    refusal can name it.
    """
    ome, tag = ome_scale(tags.description, size_l0), tags.scale
    stated = [] if ome is None else [StatedScale(OME, ome)]
    if tag is not None and not (stated and tag.implausible):
        stated.insert(0, StatedScale(TAG, tag))
    return tuple(stated)


@dataclass(frozen=True)
class KnownScale:
    """The scale in use, and its origin."""

    scale: Scale
    source: Literal["slide", "override"]
    contradiction: str | None = None
    """The scales that the slide states, with their sources, if two of them cannot both be right."""


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
    return KnownScale(facts.scale, "slide", _contradiction(facts))


def _contradiction(facts: SlideFacts) -> str | None:
    """The stated scales in words, if two of them contradict each other."""
    stated = list(facts.stated_scales)
    if facts.objective_power and facts.objective_power > 0 and facts.vendor not in OBJECTIVE_ONLY:
        nominal = 10 / facts.objective_power
        stated.append(StatedScale(f"magnification {facts.objective_power:g}×, nominally", Scale(nominal, nominal)))
    for sides in ([each.scale.x_um for each in stated], [each.scale.y_um for each in stated]):
        if sides and max(sides) >= CONTRADICTION_MIN * min(sides):
            scales = ((each.source, each.scale.x_um, each.scale.y_um) for each in stated)
            return "; ".join(f"{source} {x:.4g}{f' × {y:.4g}' if y != x else ''} µm/px" for source, x, y in scales)
    return None
