"""A data set of drawn tiles: a phantom cohort, with the truth of every tile beside it.

A patient has two tiles of one section and one outcome. Cases in a headline style are for testing only.
"""

from __future__ import annotations

import csv
import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.area_rule import samples_inside
from melanoma_infer.datasets.folder import new_folder
from melanoma_infer.datasets.labels import LabelledSlide, LabelledTile, Split
from melanoma_infer.datasets.table import write_dataset
from melanoma_infer.datasets.tile_png import mask_name, save_mask, save_tile
from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.phantom.mark import GENERATOR
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import Kind
from melanoma_infer.phantom.styles import HEADLINE_STYLES
from melanoma_infer.phantom.tiles import PhantomCase, PlacedTile, draw_tile, phantom_case, place_tile
from melanoma_infer.phantom.truth import lesion_outlines, truth_of
from melanoma_infer.phantom.write import write_phantom
from melanoma_infer.runtime.files import why_not_written, write_atomically

CLASSES: dict[Kind, str] = {"none": "no_lesion", "nevus": "benign_melanocytic"}
TILES_A_CASE = 2
SHARES: dict[Split, float] = {"train": 0.64, "validation": 0.16, "test": 0.2}
SLIDE_UM_PER_PX = 1.0
"""A 10× scan: a quarter of a 20× scan's time, and far finer than any card's tile."""
TRUTH = "truth.csv"
_CASE, _SPLIT = 5000, 6000


@dataclass(frozen=True)
class Cohort:
    """What to draw: the number of tiles and slides, the seed, and the styles."""

    tiles: int
    slides: int
    seed: int
    styles: tuple[str, ...]


@dataclass(frozen=True)
class DrawnTile:
    """A row of tiles.csv, and what else is true of the tile."""

    row: LabelledTile
    truth: dict[str, object]


def write_cohort(out: Path, card: ModelCard, cohort: Cohort, *, processes: int) -> None:
    """Write a data set of drawn tiles and slides; `truth.csv` holds what only the drawer knows of each tile.

    Raises:
        UsageError: the card has not the classes that phantoms have, or there is something in the folder.
        OutputError: a file cannot be written.
    """
    outcome_classes(card)
    with new_folder(out, overwrite=False) as folder:
        _write_cohort(folder, card, cohort, processes)


def _write_cohort(folder: Path, card: ModelCard, cohort: Cohort, processes: int) -> None:
    cases = -(-cohort.tiles // TILES_A_CASE)
    tiles_of, slide_of = partial(_tiles_of, folder, card, cohort), partial(_slide_of, folder, card, cohort)
    numbers = range(cases, cases + cohort.slides)
    try:
        (folder / "tiles").mkdir(parents=True, exist_ok=True)
        if processes == 1:
            by_case, slides = list(map(tiles_of, range(cases))), list(map(slide_of, numbers))
        else:
            with ProcessPoolExecutor(processes) as pool:
                by_case, slides = list(pool.map(tiles_of, range(cases))), list(pool.map(slide_of, numbers))
        drawn = [tile for tiles in by_case for tile in tiles][: cohort.tiles]
        write_atomically(folder / TRUTH, _truth_csv([tile.truth for tile in drawn]))
    except OSError as error:
        raise OutputError(f"--out: the cohort cannot be written: {why_not_written(error)}") from error
    origin = f"Phantoms ({GENERATOR}), styles {', '.join(cohort.styles)}, seed {cohort.seed}: drawn, not tissue."
    write_dataset(folder, [tile.row for tile in drawn], card, domain="phantom", origin=origin, slides=slides)


def outcome_classes(card: ModelCard) -> dict[bool, str]:
    """The card's malignant classes by outcome; one class for both if it has one malignant class only.

    Raises:
        UsageError: the card has not the classes that phantoms have.
    """
    missing = [name for name in CLASSES.values() if name not in card.classes]
    if missing or not card.malignant or len(card.malignant) > 2:
        raise UsageError(
            f"The card's classes are {', '.join(card.classes)}. A phantom cohort needs {', '.join(CLASSES.values())} "
            "and one or two malignant classes. Name them so, or use the demo bundle's card."
        )
    bad = [name for name in card.malignant if card.outcome is not None and name in card.outcome.classes]
    other = [name for name in card.malignant if name not in bad]
    return {True: (bad or other)[0], False: (other or bad)[0]}


def _case_of(cohort: Cohort, number: int) -> tuple[PhantomCase, str, Split]:
    """A case, its id, and what it is for."""
    case = phantom_case(int(stream(cohort.seed, _CASE + number)), cohort.styles)
    u = draws(1, stream(cohort.seed, _SPLIT + 2 * _CASE * 1000 + number))[0]
    split: Split = "test"
    if case.scene.options.style not in HEADLINE_STYLES:
        split = "train" if u < SHARES["train"] else "validation" if u < 1 - SHARES["test"] else "test"
    return case, f"phantom-{number:06d}", split


def _tiles_of(folder: Path, card: ModelCard, cohort: Cohort, number: int) -> list[DrawnTile]:
    case, case_id, split = _case_of(cohort, number)
    (folder / "tiles" / case_id).mkdir(exist_ok=True)
    return [_tile_of(folder, card, (case, case_id, split), place) for place in range(TILES_A_CASE)]


def _tile_of(folder: Path, card: ModelCard, known: tuple[PhantomCase, str, Split], place: int) -> DrawnTile:
    case, case_id, split = known
    um_per_px = card.tile_side_um / card.tile_px
    tile = place_tile(case, place, card.tile_px, um_per_px)
    name = f"tiles/{case_id}/{place}.png"
    save_tile(folder / name, draw_tile(case, tile), is_phantom=True)
    mask = None
    if tile.shows != "none":
        mask = mask_name(name)
        save_mask(folder / mask, _lesion_in(case, tile))
    malignant = tile.shows == "melanoma"
    fields = {field.name for field in card.patient_fields}
    row = LabelledTile(
        tile=name,
        slide="",
        case_id=case_id,
        x_l0=None,
        y_l0=None,
        um_per_px=um_per_px,
        label=outcome_classes(card)[case.person.outcome] if malignant else CLASSES[tile.shows],
        breslow_mm=None if tile.breslow_mm is None else round(tile.breslow_mm, 4),
        surface_in_tile=tile.surface_in_tile,
        values={name: value for name, value in case.person.values().items() if name in fields},
        outcome=case.person.outcome if malignant and card.outcome is not None else None,
        split=split,
        mask=mask,
    )
    place_px = {"x_px": tile.rect.x, "y_px": tile.rect.y}
    return DrawnTile(row, {"tile": name, "case_id": case_id, "shows": tile.shows, **_truth(case), **place_px})


def _lesion_in(case: PhantomCase, tile: PlacedTile) -> NDArray[np.bool_]:
    """Where a tile shows its lesions, bool (tile_px, tile_px)."""
    side = tile.rect.width
    inside = np.zeros((side, side), np.bool_)
    for outline in lesion_outlines(case.scene.sections[0]):
        inside |= samples_inside([np.array(outline) / tile.um_per_px], tile.rect, side)
    return inside


def _truth(case: PhantomCase) -> dict[str, object]:
    """What is true of a case; probabilities only where there is an outcome."""
    person, truth = case.person, case.truth
    known: dict[str, object] = {
        "seed": case.seed,
        "style": case.scene.options.style,
        "kind": case.scene.kind,
        "cases": " ".join(sorted(case.scene.options.cases)),
        "breslow_mm": truth.breslow_mm,
        "clark": truth.clark,
        "ulcerated": person.ulcerated,
    }
    if case.scene.kind == "melanoma":
        known |= {
            "outcome": person.outcome,
            "p_outcome": round(person.probability, 6),
            "p_visible": round(person.visible, 6),
            "p_image": round(person.in_image, 6),
        }
    return known


def _slide_of(folder: Path, card: ModelCard, cohort: Cohort, number: int) -> LabelledSlide:
    case, case_id, _ = _case_of(cohort, number)
    (folder / "slides").mkdir(exist_ok=True)
    path = folder / "slides" / f"{case_id}.svs"
    write_phantom(path, case.scene, SLIDE_UM_PER_PX, threads=1)
    kind = truth_of(case.scene, SLIDE_UM_PER_PX).lesion
    label = outcome_classes(card)[case.person.outcome] if kind == "melanoma" else CLASSES[kind]
    split: Split = "validation" if number % 2 and case.scene.options.style not in HEADLINE_STYLES else "test"
    return LabelledSlide(case_id, f"slides/{path.name}", case_id, label, split)


def _truth_csv(rows: list[dict[str, object]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return file.getvalue().encode()
