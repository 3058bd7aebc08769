"""Compares the results of the user's own code for a slide with this toolkit's on the same tiles, and explains why."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Engine, Outputs
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import Tile
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.pixels import read_tile
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.verification.hypotheses import Hypothesis, hypotheses

Array = NDArray[np.float64]

PLACE = ("minx", "miny", "width", "height")
TILES_MAX = 400
"""Most tiles of the user's that are compared, evenly spaced: more cost minutes and show nothing new."""
TRIED_TILES = 24
"""How many of the tiles that differ most each hypothesis is tried on."""
WORST = 5
MEAN_LIMIT = 0.003
"""Mean |Δp| that decoding and another resize implementation may cause; a correct port of a WSInfer model is below."""
EXPLAINED = 1 / 3
"""A hypothesis explains the difference when at most this share of it remains."""


@dataclass(frozen=True)
class ExpectedTile:
    """One row of the user's file: the tile in level-0 pixels, and the probabilities (K,) in the card's order."""

    rect_l0: RectPx
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class SideBySide:
    """A tile that differs: its position, its pixels, and the probabilities of both programs."""

    rect_l0: RectPx
    pixels: NDArray[np.uint8]
    ours: Array
    theirs: Array

    def as_json(self) -> dict[str, object]:
        """Position and probabilities, for `--json`."""
        return {**vars(self.rect_l0), "ours": self.ours.tolist(), "theirs": self.theirs.tolist()}


@dataclass(frozen=True)
class Tried:
    """A hypothesis, and the mean |Δp| that remains under it."""

    name: str
    mean_dp: float


@dataclass(frozen=True)
class Comparison:
    """The user's probabilities compared with the toolkit's."""

    classes: tuple[str, ...]
    given: int
    matched: int
    on_grid: int
    """Tiles on the grid that `score` would use."""
    mean_dp: float
    max_dp: float
    remarks: tuple[str, ...]
    worst: tuple[SideBySide, ...]
    before: float
    """Mean |Δp| of the tiles that hypotheses were tried on, without any hypothesis."""
    tried: tuple[Tried, ...]
    """Sorted: the hypothesis that explains most comes first."""
    mean_limit: float = MEAN_LIMIT

    @property
    def passed(self) -> bool:
        """Whether the mean difference is no more than decoding may cause."""
        return self.mean_dp <= self.mean_limit

    @property
    def cause(self) -> str | None:
        """The hypothesis that explains the difference; None when none does or there is no difference."""
        best = self.tried[0] if self.tried else None
        return best.name if best is not None and best.mean_dp <= EXPLAINED * self.before else None

    @property
    def diagnosis(self) -> str:
        """The likely cause, in a sentence."""
        if self.passed:
            return "Your numbers and the toolkit's agree."
        if not self.tried:
            return "No likely cause was found."
        best = self.tried[0]
        fall = f"from {self.before:.2g} to {best.mean_dp:.2g}"
        if self.cause is None:
            return f"None of {len(self.tried)} likely causes explains it; the nearest, {best.name}, takes it {fall}."
        return f"Likely cause in your code: {best.name}. With it the difference falls {fall}."

    def as_json(self) -> dict[str, object]:
        """The dictionary that `--json` prints."""
        return {
            "given": self.given, "matched": self.matched, "on_grid": self.on_grid, "mean_dp": self.mean_dp,
            "max_dp": self.max_dp, "passed": self.passed, "cause": self.cause, "diagnosis": self.diagnosis,
            "remarks": list(self.remarks), "before": self.before, "tried": [vars(each) for each in self.tried],
            "worst": [each.as_json() for each in self.worst],
        }  # fmt: skip


def compare_with_expected(scorer: Scorer, path: Path, expected: Path, settings: Settings) -> Comparison:
    """Compare a slide's tiles, each read at the position in the user's file.

    Raises:
        UsageError: the file has not WSInfer's columns, not the card's classes, or no tile of the slide.
        MminferError: the slide cannot be read.
    """
    bundle, engine = scorer.bundle, scorer.engine
    given = read_expected(expected, bundle.card.classes)
    chosen = [given[int(i)] for i in np.linspace(0, len(given) - 1, min(len(given), TILES_MAX))]
    with open_slide(path) as slide:
        plan = plan_slide(slide, bundle.card, settings)
        reads = [read_tile(slide, Tile(0, each.rect_l0, 1.0, 0.0), plan.reading) for each in chosen]
        rows = [i for i, read in enumerate(reads) if read.pixels is not None]
        if not rows:
            raise UsageError("None of the file's tiles can be read from this slide. Was it made from another one?")
        theirs = np.array([chosen[i].probabilities for i in rows])
        pixels = np.stack([each for each in (read.pixels for read in reads) if each is not None])
        ours = _probabilities(bundle, engine.infer(pixels))
        dp = np.abs(ours - theirs)
        order = np.argsort(-dp.max(axis=1), kind="stable")
        worst = [SideBySide(chosen[rows[i]].rect_l0, pixels[i], ours[i], theirs[i]) for i in order[:WORST]]
        tried: tuple[Tried, ...] = ()
        most = order[:TRIED_TILES]
        if dp.mean() > MEAN_LIMIT:
            rects = [chosen[rows[i]].rect_l0 for i in most]
            tried = _try(hypotheses(bundle, plan), engine, bundle, slide, rects, theirs[most])
    grid = {tile.rect_l0 for tile in plan.tiles}
    remarks: list[str] = []
    side_um = float(np.median([each.rect_l0.width for each in chosen])) * plan.scale.scale.x_um
    if abs(side_um - plan.geometry.tile_um) > 0.02 * plan.geometry.tile_um:
        remarks.append(f"Your tiles are {side_um:.0f} µm wide; the model was made for {plan.geometry.tile_um:.0f} µm.")
    if len(rows) < len(reads):
        remarks.append(f"{len(reads) - len(rows)} of your tiles cannot be read here.")
    return Comparison(
        classes=bundle.card.classes,
        given=len(given),
        matched=len(rows),
        on_grid=sum(chosen[i].rect_l0 in grid for i in rows),
        mean_dp=float(dp.mean()),
        max_dp=float(dp.max()),
        remarks=tuple(remarks),
        worst=tuple(worst),
        before=float(dp[most].mean()),
        tried=tried,
    )


def read_expected(path: Path, classes: Sequence[str]) -> list[ExpectedTile]:
    """The rows of a file with columns minx, miny, width, height, prob_<class>; rows without numbers are skipped.

    Raises:
        UsageError: it cannot be read, a column is missing, or a cell is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            scores = [f"prob_{each}" for each in classes]
            if missing := [name for name in (*PLACE, *scores) if name not in (reader.fieldnames or ())]:
                raise UsageError(
                    f"--expected: the column {missing[0]!r} is missing. Give {', '.join(PLACE)} in level-0 pixels and "
                    f"{', '.join(scores)}."
                )
            rows = [_row(row, number, classes) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("--expected: the file cannot be read as CSV. Give a text file in UTF-8.") from error
    found = [row for row in rows if row is not None]
    if not found:
        raise UsageError("--expected: the file has no row with numbers. Write one row for each tile.")
    return found


def _row(row: Mapping[str, str], number: int, classes: Sequence[str]) -> ExpectedTile | None:
    cells = [row[name] for name in PLACE], [row[f"prob_{each}"] for each in classes]
    if not all(cells[1]):
        return None
    try:
        place, probabilities = ([float(cell) for cell in each] for each in cells)
        if not all(math.isfinite(each) for each in (*place, *probabilities)) or min(place[2:]) < 1:
            raise ValueError(number)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--expected: line {number} has a value that is not a number. Correct it.") from error
    x, y, width, height = (round(each) for each in place)
    return ExpectedTile(RectPx(x, y, width, height), tuple(probabilities))


def _probabilities(bundle: Bundle, outputs: Outputs) -> Array:
    """Probabilities for an unknown patient."""
    unknown = one_hot(Patient(), bundle.card.patient_fields)
    return fused(bundle, outputs["probabilities"], outputs.get("features"), unknown)


def _try(
    candidates: Sequence[Hypothesis],
    engine: Engine,
    bundle: Bundle,
    slide: Slide,
    rects: Sequence[RectPx],
    theirs: Array,
) -> tuple[Tried, ...]:
    """The difference that remains under each hypothesis, the smallest first."""
    found: list[Tried] = []
    for candidate in candidates:
        reads = [candidate.read(slide, rect) for rect in rects]
        readable = [(i, each) for i, each in enumerate(reads) if each is not None]
        if not readable:
            continue
        rows, tiles = [i for i, _ in readable], np.stack([each for _, each in readable])
        ours = _probabilities(bundle, (candidate.engine or engine).infer(tiles))
        found.append(Tried(candidate.name, float(np.abs(ours - theirs[rows]).mean())))
    return tuple(sorted(found, key=lambda each: each.mean_dp))
