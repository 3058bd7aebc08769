"""What a TIFF's description says of its scale and its planes: OME-XML, or the unit that ImageJ writes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from melanoma_infer.geometry import Scale, SizePx

UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0}
"""Units of PhysicalSizeX and -Y; the first two are the micro sign and the Greek letter. Others are no lengths."""
IMAGEJ_NAMES = {"micron": "um", "microns": "um", "micrometer": "um", "inch": "in"}
"""Other names that ImageJ gives to these units."""


def ome_scale(description: str, size_l0: SizePx) -> Scale | None:
    """The scale of the first image of level 0's size; None if the description is not OME-XML or does not say it."""
    for pixels in _ome_pixels(description, size_l0):
        x_um, y_um = _um(pixels, "X"), _um(pixels, "Y")
        return Scale(x_um, y_um) if x_um and y_um else None
    return None


def ome_planes(description: str, size_l0: SizePx) -> int:
    """The channels × focal planes × time points of an image of level 0's size; 0 if the description is not OME-XML."""
    images = _ome_pixels(description, size_l0)
    return max((math.prod(_count(image.get(f"Size{axis}", "")) for axis in "CZT") for image in images), default=0)


def _count(text: str) -> int:
    """A count of up to 6 digits; 1 if it is none."""
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else 1


def _ome_pixels(description: str, size_l0: SizePx) -> Iterator[ElementTree.Element]:
    """The Pixels elements of level 0's size; none if the description is not OME-XML."""
    if "<OME" not in description or "<!DOCTYPE" in description:  # entities could expand without end
        return
    try:
        root = ElementTree.fromstring(description.strip().encode())
    except (ElementTree.ParseError, UnicodeError):
        return
    for element in root.iter():
        size = element.get("SizeX"), element.get("SizeY")
        if element.tag.endswith("Pixels") and size == (str(size_l0.width), str(size_l0.height)):
            yield element


def _um(pixels: ElementTree.Element, axis: str) -> float | None:
    """The pixel's side in µm; None if it is not stated, or in no unit of length."""
    per_unit = UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        um = float(pixels.get(f"PhysicalSize{axis}", "")) * per_unit if per_unit else math.nan
    except ValueError:
        return None
    return um if math.isfinite(um) else None


def imagej_um_per_unit(description: str) -> float | None:
    """The µm of the unit in which ImageJ counts the resolution; None if it names none, or no length."""
    unit = re.search(r"^unit=(.+)$", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    if unit is None:
        return None
    name = unit[1].strip().replace(r"\u00B5", "µ")
    return UM_PER_UNIT.get(IMAGEJ_NAMES.get(name, name))
