"""`mminfer dataset`: tiles with labels, from annotated slides or from ready-made tiles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import loudness, note, say, say_json
from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import DatasetError, PatientValueError, UsageError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.card import ModelCard
    from melanoma_infer.datasets.annotated import CutSlide, SlideSource
    from melanoma_infer.datasets.class_names import ClassNames
    from melanoma_infer.datasets.making import Made, Recipe
    from melanoma_infer.datasets.ready_made import ReadyTile
    from melanoma_infer.patients.manifest import Manifest

DATA, LABELS = "Data set", "Labels and splits"
FROM_SLIDES, FROM_TILES = "Annotated slides", "Ready-made tiles"
MORE_COLUMNS = ("breslow_mm", "outcome", "split")
"""What the manifest of a data set may say beside what any manifest says."""
NO_PATIENTS = (
    "warning: there is no {missing}, so each {each} counts as a patient of its own. If a patient has several {each}s, "
    "training and test may share that patient."
)
CAUTION = "Tiles are drawn, or the card's domain is phantom: a model that learns from them says nothing about tissue."


def dataset(
    card: Annotated[
        Path,
        typer.Option(
            metavar="FILE.toml",
            help="The card of the model: its classes, and the size and the scale of a tile.",
            rich_help_panel=DATA,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(parser=opt.named_path, metavar="DATA", help="The folder for the data set.", rich_help_panel=DATA),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing data set.", rich_help_panel=DATA)
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Where the data are from, in a sentence for the card of the trained model.",
            rich_help_panel=DATA,
        ),
    ] = None,
    mpp: Annotated[
        str | None,
        typer.Option(
            help="µm per pixel: of ready-made tiles, or of level 0 in place of the scale stored in the slides.",
            rich_help_panel=DATA,
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=CLASS",
            help="Which class of the card, or `malignant`, a class of annotations or a folder is; repeat the option "
            "for more.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A class of annotations, or a folder, that gives no label; repeat the option for more.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Percentages of the patients for training, validation and test, such as 64,16,20.  [default: none; "
            "the training makes them]",
            rich_help_panel=LABELS,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Another seed gives other background and another split.", rich_help_panel=LABELS),
    ] = 0,
    slides: opt.SlidesArgument = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder with a GeoJSON file from QuPath for each slide, named after it.",
            rich_help_panel=FROM_SLIDES,
        ),
    ] = None,
    background: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tiles a slide from tissue that is not annotated, as tissue without a lesion. Give 0 if some lesions "
            "are not annotated.",
            rich_help_panel=FROM_SLIDES,
        ),
    ] = 20,
    patients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="A manifest as for `score`, with the columns breslow_mm, outcome and split, too.",
            rich_help_panel=FROM_SLIDES,
        ),
    ] = None,
    tiles: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A CSV file with the columns of tiles.csv, or a folder that has a folder of pictures for each class.",
            rich_help_panel=FROM_TILES,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Masks, white where the lesion is, for the pictures in the folder --tiles: squares of the card's size "
            "are cut from these.",
            rich_help_panel=FROM_TILES,
        ),
    ] = None,
    case_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="What of a picture's file name is the patient: the expression's first group, or all it matches.",
            rich_help_panel=FROM_TILES,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON and nothing else.", rich_help_panel=opt.TERMINAL),
    ] = False,
    quiet: opt.QuietOption = False,
) -> None:
    """Make a data set for training: tiles with labels from annotated slides, or from ready-made tiles."""
    from melanoma_infer.datasets.class_names import class_names
    from melanoma_infer.datasets.folder import require_free
    from melanoma_infer.datasets.making import Recipe, from_tiles
    from melanoma_infer.datasets.splits import split_shares
    from mminfer_export.card_toml import read_training_card

    with loudness(quiet=quiet, verbose=False):
        if (tiles is None) == (annotations is None):
            raise UsageError("Give annotated slides (SLIDES --annotations DIR), or ready-made tiles (--tiles PATH).")
        require_free(out, overwrite=overwrite)
        known = read_training_card(card)
        recipe = Recipe(known, out, overwrite, split_shares(split) if split else None, seed, origin)
        names = class_names(classes or (), ignore or (), known)
        if annotations is not None:
            if masks is not None or case_from is not None:
                raise UsageError("--masks and --case-from are for ready-made tiles (--tiles). Leave them out.")
            if not annotations.is_dir():
                raise UsageError(
                    f"--annotations {annotations.name}: there is no such folder. Give the one with GeoJSON."
                )
            sources = _sources(slides or (), patients, known, mpp)
            made = _from_slides(sources, annotations, names, recipe, background)
        else:
            if slides or patients is not None:
                raise UsageError("SLIDES and --patients are for annotated slides (--annotations). Leave them out.")
            assert tiles is not None  # one of the two is given
            made = from_tiles(_ready_tiles(tiles, masks, names, known, mpp=mpp, case_from=case_from), recipe)
        _tell(made, known, json=json)


def _from_slides(
    sources: Sequence[SlideSource], annotations: Path, names: ClassNames, recipe: Recipe, backgrounds: int
) -> Made:
    from melanoma_infer.datasets.making import from_slides

    done = 0

    def tell(name: str, cut: CutSlide) -> None:
        nonlocal done
        done += 1
        for doubt in cut.drawn.all_doubts:
            note(f"warning: {name}: {doubt}")
        note(f"{done} of {len(sources)} {name}: {plural(len(cut.tiles), 'tile')}{_left_out(cut.left_out)}")

    return from_slides(sources, annotations, names, recipe, backgrounds=backgrounds, tell=tell)


def _left_out(counts: Mapping[str, int]) -> str:
    return "".join(f", {count} {reason} left out" for reason, count in counts.items())


def _sources(slides: Sequence[Path], patients: Path | None, card: ModelCard, mpp: str | None) -> list[SlideSource]:
    """The slides, with what the manifest says about them.

    Raises:
        UsageError: there is no slide.
        DatasetError, PatientValueError: the manifest does not say enough, or what is not understood.
    """
    from melanoma_infer.datasets.annotated import SlideSource
    from melanoma_infer.datasets.cells import Cells
    from melanoma_infer.datasets.checks import SplitCell, require_whole_split
    from melanoma_infer.pipeline.cohort import match_rows
    from melanoma_infer.runtime.privacy import slide_name
    from melanoma_infer.slides.search import find_slides

    manifest = _manifest(patients, card) if patients is not None else None
    if not slides and manifest is None:
        raise UsageError("No slide was given. Give slides, a folder or a manifest: mminfer dataset SLIDES")
    found = find_slides(slides or [row.path for row in manifest.rows] if manifest else slides).paths
    _require_distinct(found)
    if manifest is None:
        note(NO_PATIENTS.format(missing="manifest (--patients)", each="slide"))
        nothing = {field.name: "" for field in card.patient_fields}
        return [SlideSource(path, slide_name(path), slide_name(path), checked_settings(mpp), nothing) for path in found]
    sources, splits = [], []
    for path, match in zip(found, match_rows(found, manifest), strict=True):
        if match is None:
            raise DatasetError(f"{slide_name(path)} is not in the manifest. Add a row for it, or leave the slide out.")
        cells, row = Cells("the manifest", match.row.row), match.row
        if row.case_id is None:
            raise cells.fault("case_id", "it is blank. Give the patient's id: all slides of a patient share it.")
        values = {field.name: cells.text(field.name) for field in card.patient_fields}
        settings = checked_settings(row.mpp_um or mpp)
        sources.append(
            SlideSource(path, row.id, row.case_id, settings, values, cells.breslow_mm(), cells.outcome(), cells.split())
        )
        splits.append(SplitCell("the manifest", row.line, row.case_id, sources[-1].split))
    require_whole_split(splits)
    return sources


def _manifest(path: Path, card: ModelCard) -> Manifest:
    """The manifest, of which every value is understood: what is misread is not learned from."""
    from melanoma_infer.patients.manifest import read_manifest
    from melanoma_infer.pipeline.cohort import require_distinct_rows

    manifest = read_manifest(path, card, MORE_COLUMNS)
    require_distinct_rows(manifest)
    misread = [(row, column, why) for row in manifest.rows for column, why in row.misread.items()]
    if misread:
        row, column, why = misread[0]
        raise PatientValueError(f"Line {row.line} of the manifest, column {column}: {why}")
    for doubt in manifest.doubts:
        note(f"manifest: {doubt}")
    return manifest


def _require_distinct(slides: Sequence[Path]) -> None:
    from melanoma_infer.slides.duplicates import same_bytes

    for group in same_bytes(slides):
        names = ", ".join(path.name for path in group)
        raise DatasetError(f"The same bytes are in {names}. Keep one of them, and check which patient's it is.")


def _ready_tiles(
    tiles: Path, masks: Path | None, names: ClassNames, card: ModelCard, *, mpp: str | None, case_from: str | None
) -> Iterator[ReadyTile | None]:
    from melanoma_infer.datasets.ready_made import tiles_of_folders, tiles_of_masks, tiles_of_table

    um_per_px = _tile_scale(mpp)
    if not tiles.is_dir():
        if masks is not None or case_from is not None:
            raise UsageError("--masks and --case-from are for a folder of pictures, and --tiles is a file.")
        return tiles_of_table(tiles, card, um_per_px=um_per_px)
    if um_per_px is None:
        raise UsageError("--mpp is missing: pictures in a folder do not say their scale. Give their µm per pixel.")
    if case_from is None:
        note(NO_PATIENTS.format(missing="--case-from", each="picture"))
    pattern = _pattern(case_from)
    if masks is not None:
        return tiles_of_masks(tiles, masks, card, um_per_px=um_per_px, case_from=pattern)
    return tiles_of_folders(tiles, names, card, um_per_px=um_per_px, case_from=pattern)


def _tile_scale(mpp: str | None) -> float | None:
    from melanoma_infer.patients.numbers import parse_scale

    if mpp is None:
        return None
    x, y = parse_scale(mpp)
    if x != y:
        raise UsageError(f"--mpp {mpp}: the pixels of a tile are square. Give one number.")
    return x


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"--case-from is no regular expression: {error}. An example: '^(P[0-9]+)_'") from error


def _tell(made: Made, card: ModelCard, *, json: bool) -> None:
    from melanoma_infer.datasets.folder import SHEET
    from melanoma_infer.datasets.labels import SPLITS, known_labels, no_lesion

    if json:
        say_json({
            "out": str(made.folder), "domain": made.domain, "tiles": len(made.tiles),
            "slides": len({tile.slide for tile in made.tiles if tile.slide}),
            "cases": len({tile.case_id for tile in made.tiles}),
            "counts": made.counts, "left_out": made.left_out, "contact_sheet": str(made.folder / SHEET),
        })  # fmt: skip
        return
    labels = [label for label in known_labels(card) if any(label in row for row in made.counts.values())]
    splits = ("all",) if "all" in made.counts else SPLITS
    rows = [[name, *(str(made.counts.get(split, {}).get(name, 0)) for split in splits)] for name in labels]
    say(table(rows, ("class", *("tiles" if split == "all" else split for split in splits))))
    note(f"{plural(len(made.tiles), 'tile')} of {plural(len({tile.case_id for tile in made.tiles}), 'case')}"
         f"{_left_out(made.left_out)}")  # fmt: skip
    if no_lesion(card) not in labels:
        note(f"No tile is of class {no_lesion(card)}: a model needs some to learn from (--background).")
    if made.domain == "phantom":
        note(CAUTION)
    say(str(made.folder / SHEET))
