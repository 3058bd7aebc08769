"""The scale in a TIFF's description: OME-XML, or the unit that ImageJ writes."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from melanoma_infer.geometry import Scale, SizePx

UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0}
"""Units of PhysicalSizeX and -Y; the first two are the micro sign and the Greek letter. Others are no lengths."""
IMAGEJ_NAMES = {"micron": "um", "microns": "um", "micrometer": "um", "inch": "in"}
"""Other names that ImageJ gives to these units."""


def ome_scale(description: str, size_l0: SizePx) -> Scale | None:
    """The scale of the first image of level 0's size; None if the description is not OME-XML or does not say it."""
    if "<OME" not in description or "<!DOCTYPE" in description:  # entities could expand without end
        return None
    try:
        root = ElementTree.fromstring(description.strip().encode())
    except (ElementTree.ParseError, UnicodeError):
        return None
    for element in root.iter():
        size = element.get("SizeX"), element.get("SizeY")
        if element.tag.endswith("Pixels") and size == (str(size_l0.width), str(size_l0.height)):
            x_um, y_um = _um(element, "X"), _um(element, "Y")
            return Scale(x_um, y_um) if x_um and y_um else None
    return None


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
