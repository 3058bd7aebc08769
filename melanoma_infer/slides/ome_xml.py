"""The scale in the OME-XML of a TIFF's description."""

from __future__ import annotations

from xml.etree import ElementTree

from melanoma_infer.geometry import Scale, SizePx

UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0}
"""Units of PhysicalSizeX and -Y; the first two are the micro sign and the Greek letter. Others are no lengths."""


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
        return float(pixels.get(f"PhysicalSize{axis}", "")) * per_unit if per_unit else None
    except ValueError:
        return None
