"""Making a data set: from annotated slides, or from ready-made tiles."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotated import CutSlide, DrawnSlide, SlideSource, cut_slide, drawn_slide
from melanoma_infer.datasets.annotations import find_annotations, read_annotations
from melanoma_infer.datasets.class_names import ClassNames
from melanoma_infer.datasets.contact_sheet import Outlines, contact_sheet
from melanoma_infer.datasets.folder import SHEET, new_folder
from melanoma_infer.datasets.labels import LabelledSlide, LabelledTile, Split
from melanoma_infer.datasets.ready_made import ReadyTile
from melanoma_infer.datasets.splits import split_of_cases
from melanoma_infer.datasets.table import class_counts, write_dataset
from melanoma_infer.datasets.tile_png import mask_name, save_mask, save_tile
from melanoma_infer.errors import DatasetError, MminferError, UsageError
from melanoma_infer.runtime.plural import plural

PARTLY = "partly lesion"
"""Why a tile under a mask is left out."""
TWICE = "a second time"
"""Why a tile is left out that is there already, with the same case and class."""
Tell = Callable[[str, CutSlide], None]
"""Is told each slide's name and tiles, as soon as they are cut."""


@dataclass(frozen=True)
class Recipe:
    """What holds for the whole data set."""

    card: ModelCard
    out: Path
    overwrite: bool = False
    shares: Sequence[float] | None = None
    """Of training, validation and test. None: the rows keep the splits that they have."""
    seed: int = 0
    """Decides which tissue is background, and which case is in which split."""
    origin: str | None = None
    """Where the data are from, in a sentence. None: how they were made."""


@dataclass(frozen=True)
class Made:
    """A data set that was made."""

    folder: Path
    domain: str
    """"tissue" or "phantom"."""
    tiles: tuple[LabelledTile, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Tiles by split and class."""
    left_out: Mapping[str, int]
    """The number of places that gave no tile, by reason."""


def from_slides(
    sources: Sequence[SlideSource],
    annotations: Path,
    names: ClassNames,
    recipe: Recipe,
    *,
    backgrounds: int,
    tell: Tell,
) -> Made:
    """Cut the tiles of annotated slides.

    Args:
        sources: the slides.
        annotations: a folder with a GeoJSON file for each slide.
        names: what the annotations' classes mean.
        recipe: for the whole data set.
        backgrounds: tiles a slide of tissue without annotation. If there are any, every lesion is annotated, and so the
            slide's highest class is known, too.
        tell: called after each slide.

    Raises:
        MminferError: a slide or its annotations cannot be used; it is named, and nothing is written.
    """
    card = recipe.card
    with new_folder(recipe.out, overwrite=recipe.overwrite) as folder:
        _require_one_split([source.split for source in sources], recipe)
        drawn = _drawn(sources, annotations, names, card)
        cut: dict[str, CutSlide] = {}
        for slide in drawn:
            name = slide.source.name
            with _about(name):
                cut[name] = cut_slide(slide, card, folder, backgrounds=backgrounds, seed=recipe.seed)
            tell(name, cut[name])
        parts = _Parts(
            tiles=[tile for each in cut.values() for tile in each.tiles],
            slides=[slide.labelled(card) for slide in drawn] if backgrounds else [],
            domain="phantom" if any(slide.is_phantom for slide in drawn) else card.domain,
            made_of=plural(len(drawn), "annotated slide"),
            left_out=sum((Counter(each.left_out) for each in cut.values()), Counter()),
        )
        return _finished(folder, parts, recipe, lambda tile: cut[tile.slide].outlines(tile, card.tile_px))


def from_tiles(tiles: Iterable[ReadyTile | None], recipe: Recipe) -> Made:
    """Copy ready-made tiles as PNG.

    Args:
        tiles: from ready_made; None for one that is left out.
        recipe: for the whole data set.

    Raises:
        MminferError: a tile cannot be used; it is named, and nothing is written.
    """
    left_out: Counter[str] = Counter()
    rows: list[LabelledTile] = []
    drawn, seen = False, _Pictures()
    with new_folder(recipe.out, overwrite=recipe.overwrite) as folder:
        for tile in tiles:
            if tile is None:
                left_out[PARTLY] += 1
                continue
            if seen.again(tile):
                left_out[TWICE] += 1
                continue
            path = folder / tile.row.tile
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tile(path, tile.pixels, is_phantom=tile.is_phantom)
            drawn |= tile.is_phantom
            mask = None if tile.lesion is None else mask_name(tile.row.tile)
            if mask is not None and tile.lesion is not None:
                save_mask(folder / mask, tile.lesion)
            rows.append(replace(tile.row, mask=mask))
        parts = _Parts(rows, [], "phantom" if drawn else recipe.card.domain, "ready-made tiles", left_out)
        return _finished(folder, parts, recipe, lambda _tile: ())


class _Pictures:
    """The pictures that were taken so far."""

    def __init__(self) -> None:
        self._rows: dict[bytes, LabelledTile] = {}

    def again(self, tile: ReadyTile) -> bool:
        """Whether the same pixels were taken before.

        Raises:
            DatasetError: they were, for another case, class or split.
        """
        row = tile.row
        if (tile.pixels == tile.pixels[0, 0]).all():  # of one colour, as saturated background: it is nobody's
            return False
        first = self._rows.setdefault(hashlib.sha256(tile.pixels.tobytes()).digest(), row)
        if first is row:
            return False
        if (first.case_id, first.label, first.split) != (row.case_id, row.label, row.split):
            raise DatasetError(
                f"The same picture is there twice: as {first.tile} of case {first.case_id}, and as {row.tile} of case "
                f"{row.case_id}. A picture shows one patient, and has one class and one split. Remove one of them."
            )
        return True


@dataclass(frozen=True)
class _Parts:
    """What a data set is put together from."""

    tiles: Sequence[LabelledTile]
    slides: Sequence[LabelledSlide]
    domain: str
    made_of: str
    left_out: Mapping[str, int]


def _finished(folder: Path, parts: _Parts, recipe: Recipe, outlines: Outlines) -> Made:
    """Write the tables and the contact sheet beside the pictures."""
    card, tiles, slides = recipe.card, parts.tiles, parts.slides
    if not tiles:
        left_out = [f"{count} {reason}" for reason, count in parts.left_out.items()]
        why = ", ".join(left_out) or "nothing is annotated, and there is no background"
        raise DatasetError(f"No tile was made: {why}. Annotate more; check that tissue was found in the slides.")
    _require_one_split([tile.split for tile in tiles], recipe)
    if recipe.shares is not None:
        split = split_of_cases([*tiles, *slides], recipe.shares, card, seed=recipe.seed)
        tiles = [replace(tile, split=split[tile.case_id]) for tile in tiles]
        slides = [replace(slide, split=split[slide.case_id]) for slide in slides]
    cases = plural(len({tile.case_id for tile in tiles}), "case")
    origin = recipe.origin or f"{plural(len(tiles), 'tile')} of {cases}, from {parts.made_of}."
    write_dataset(folder, tiles, card, domain=parts.domain, origin=origin, slides=slides)
    (folder / SHEET).write_bytes(contact_sheet(folder, tiles, card, recipe.origin or "", outlines))
    return Made(recipe.out, parts.domain, tuple(tiles), class_counts(tiles, card), parts.left_out)


def _require_one_split(splits: Iterable[Split | None], recipe: Recipe) -> None:
    if recipe.shares is not None and any(splits):
        raise UsageError("--split: the rows have a split already. Leave out --split, or the column split.")


def _drawn(sources: Sequence[SlideSource], folder: Path, names: ClassNames, card: ModelCard) -> list[DrawnSlide]:
    """The slides with their annotations, each of which has a known class."""
    folders: set[str] = set()
    for source in sources:
        if source.tile_folder.casefold() in folders:
            raise UsageError(f"Two slides are called {source.name}. Give each an id in a manifest (--patients).")
        folders.add(source.tile_folder.casefold())
    annotations = [read_annotations(find_annotations(folder, source.path)) for source in sources]
    labels = names.labels(area.name for each in annotations for area in each.areas)
    drawn = []
    for source, found in zip(sources, annotations, strict=True):
        with _about(source.name):
            drawn.append(drawn_slide(source, found, labels, card))
    return drawn


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Name the slide in its errors."""
    try:
        yield
    except MminferError as error:
        raise type(error)(f"{name}: {error}") from error
