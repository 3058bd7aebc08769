"""Annotations drawn in QuPath: GeoJSON → areas with the names of their classes, and lines along Breslow thicknesses.

The files of QuPath 0.2 and newer are read: a feature collection or a list of features, the class as a name, as a list
of names, or as text. Coordinates are pixels of level 0 in QuPath's frame, which begins at the bounds of the slide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import DatasetError
from melanoma_infer.runtime.plural import plural

UNCLASSIFIED = "Unclassified"
"""The name of an annotation without a class, as QuPath shows it."""
BRESLOW = "breslow"
"""The name or the class, in any case, of a line from the surface to the deepest tumour cell."""
OBJECT_TYPES = {"PathAnnotationObject": "annotation", "PathDetectionObject": "detection", "PathTileObject": "tile"}
"""QuPath 0.2 gave an object's type as its id."""
Ring = NDArray[np.float64]
"""Corners (n, 2) of a ring, as x and y."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass(frozen=True)
class Area:
    """One polygon of an annotation."""

    name: str
    """Its class, as the annotator called it."""
    rings: tuple[Ring, ...]
    """Its border, then its holes."""
    where: str
    """The file and the number of its feature, for errors."""

    @cached_property
    def box(self) -> Box:
        """Left, top, right and bottom."""
        return _box(self.rings[0])

    @cached_property
    def area(self) -> float:
        """Square pixels inside the border and outside the holes."""
        border, *holes = (abs(_signed_area(ring)) for ring in self.rings)
        return border - sum(holes)


@dataclass(frozen=True)
class BreslowLine:
    """A line from the surface to the deepest tumour cell."""

    ends: Ring
    """Its two ends (2, 2)."""
    where: str
    """The file and the number of its feature, for errors."""

    @cached_property
    def box(self) -> Box:
        """Left, top, right and bottom."""
        return _box(self.ends)


@dataclass(frozen=True)
class Annotations:
    """What was drawn on a slide."""

    areas: tuple[Area, ...]
    lines: tuple[BreslowLine, ...]

    def moved(self, x: float, y: float) -> Annotations:
        """The same, x pixels to the right and y pixels down."""
        by = np.array([x, y], np.float64)
        areas = (Area(area.name, tuple(ring + by for ring in area.rings), area.where) for area in self.areas)
        return Annotations(tuple(areas), tuple(BreslowLine(line.ends + by, line.where) for line in self.lines))


def find_annotations(folder: Path, slide: Path) -> Path:
    """The GeoJSON file of a slide: `<name>.geojson`, or `<name>.<suffix>.geojson` as QuPath proposes it.

    Raises:
        DatasetError: there is none, or there are both.
    """
    names = tuple(dict.fromkeys((f"{slide.stem}.geojson", f"{slide.name}.geojson")))
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise DatasetError(
            f"{slide.name} has no annotations: there is neither {' nor '.join(names)} in the folder. Export them from "
            "QuPath (File > Export objects as GeoJSON), also where nothing was drawn, or leave the slide out."
        )
    if len(found) > 1:
        raise DatasetError(f"{slide.name} has two files of annotations: {' and '.join(names)}. Keep one of them.")
    return found[0]


def read_annotations(path: Path) -> Annotations:
    """What is annotated in a GeoJSON file, in QuPath's frame; detections, cells and tiles beside it are left out.

    Raises:
        DatasetError: the file cannot be read, is not GeoJSON, holds objects and no annotation, or an annotation has
            no area and is no Breslow line.
    """
    areas: list[Area] = []
    lines: list[BreslowLine] = []
    others = 0
    for number, feature in enumerate(_features(_parsed(path)), start=1):
        where = f"{path.name}, feature {number}"
        if not isinstance(feature, dict):
            raise DatasetError(f"{where} is not a GeoJSON feature. Export the annotations from QuPath again.")
        properties = _dictionary(feature.get("properties"))
        if _object_type(feature, properties) != "annotation":
            others += 1
            continue
        geometry, name = _dictionary(feature.get("geometry")), _class_name(properties)
        if BRESLOW in {name.casefold(), str(properties.get("name", "")).strip().casefold()}:
            lines.append(BreslowLine(_ends(geometry, where), where))
        else:
            areas += [Area(name, rings, where) for rings in _polygons(geometry, where)]
    for area in areas:
        if not area.area > 0:
            raise DatasetError(f"{area.where} ({area.name}) has no area. Delete it in QuPath, or draw it again.")
    if others and not areas and not lines:
        raise DatasetError(
            f"{path.name} holds {plural(others, 'object')}, such as detections, and no annotation. Outline the lesions "
            "as annotations; if there is none, export the file without objects."
        )
    return Annotations(tuple(areas), tuple(lines))


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror}). Check its permissions.") from error
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        raise DatasetError(f"{path.name} is not JSON ({error}). Export the annotations from QuPath again.") from error


def _features(parsed: Any) -> Iterator[Any]:
    """The features in the order of the file; QuPath puts an object's children inside it if asked to."""
    if isinstance(parsed, dict) and isinstance(parsed.get("features"), list):
        parsed = parsed["features"]
    for feature in parsed if isinstance(parsed, list) else [parsed]:
        yield feature
        children = _dictionary(_dictionary(feature).get("properties")).get("childObjects")
        if isinstance(children, list):
            yield from _features(children)


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object_type(feature: dict[str, Any], properties: dict[str, Any]) -> str:
    """What kind of object QuPath says it is; other programs write annotations without saying so."""
    stated = properties.get("objectType", properties.get("object_type"))
    return str(stated or OBJECT_TYPES.get(str(feature.get("id")), "annotation"))


def _class_name(properties: dict[str, Any]) -> str:
    stated = properties.get("classification")
    if isinstance(stated, dict):
        names = stated.get("names")
        stated = ": ".join(map(str, names)) if isinstance(names, list) else stated.get("name")
    return str(stated or "").strip() or UNCLASSIFIED


def _polygons(geometry: dict[str, Any], where: str) -> Iterator[tuple[Ring, ...]]:
    """The rings of each polygon."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise DatasetError(
            f"{where} is a {kind or 'feature without geometry'}, which has no area. Draw a closed outline or delete "
            'it; the line of a thickness is named "Breslow".'
        )
    for polygon in [coordinates] if kind == "Polygon" else _list(coordinates, where):
        rings = tuple(_corners(ring, where) for ring in _list(polygon, where))
        if not rings:
            raise DatasetError(f"{where} is a polygon without a border. Delete it in QuPath, or draw it again.")
        yield rings


def _ends(geometry: dict[str, Any], where: str) -> Ring:
    if geometry.get("type") == "LineString":
        corners = _corners(geometry.get("coordinates"), where)
        if len(corners) == 2:
            return corners
    raise DatasetError(
        f"{where} is named Breslow, and is no line of two points. Draw it with QuPath's line tool, from the surface to "
        "the deepest tumour cell."
    )


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise DatasetError(f"{where}: its coordinates are not a list. Export the annotations from QuPath again.")
    return value


def _corners(value: Any, where: str) -> Ring:
    try:
        corners = np.array([(point[0], point[1]) for point in _list(value, where)], np.float64)
    except (TypeError, ValueError, LookupError, OverflowError):
        corners = np.array([])
    if corners.ndim != 2 or not np.isfinite(corners).all():
        raise DatasetError(f"{where}: a coordinate is no number. Export the annotations from QuPath again.")
    return corners


def _box(points: Ring) -> Box:
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def _signed_area(ring: Ring) -> float:
    x, y = (ring - ring[0]).T  # seen from its first corner: small products, and none for the side that closes it
    return float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / 2
