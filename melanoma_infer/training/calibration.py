"""What a card says after training: outputs, origin, threshold, map scale; set on the validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import ModelCard, Threshold
from melanoma_infer.datasets.labels import LabelledSlide
from melanoma_infer.datasets.table import Dataset
from melanoma_infer.errors import DatasetError, MminferError
from melanoma_infer.evaluation.bootstrap import auc_interval
from melanoma_infer.evaluation.figures import auc
from melanoma_infer.evaluation.maps import fitted_region_threshold, map_scale, region_threshold
from melanoma_infer.evaluation.thresholds import SetThreshold, set_threshold
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.runtime.plural import plural
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.scale import known_scale
from melanoma_infer.training.settings import TrainingSettings
from melanoma_infer.training.splits import Division
from melanoma_infer.training.tile_files import TileFiles

CHANCE = 0.5
"""The AUC of answers that do not depend on the tile."""
CHUNK = 32
"""Tiles in memory at once."""


@dataclass(frozen=True)
class Calibrated:
    """A complete card, and what its threshold was set on."""

    card: ModelCard
    on: str
    """"slides" or "tiles"."""


def trained_card(card: ModelCard, data: Dataset, division: Division, *, depth: bool) -> ModelCard:
    """The card of a network trained on these data, before anything is calibrated.

    Without `depth` no tile's thickness was known: the graph then has no depth at all, because an untrained number must
    not be shown.
    """
    outputs = ("depth_mm", "attention", "cam", "features") if depth else ("attention", "cam", "features")
    tiles = [data.tiles[row] for row in division.train]
    patients = len({tile.case_id for tile in tiles})
    origin = data.origin.rstrip(". ")
    return card.model_copy(
        update={
            "trained": True,
            "outputs": outputs,
            "domain": "phantom" if data.domain == "phantom" else card.domain,
            "training_data": f"{origin}. {plural(len(tiles), 'tile')} of {plural(patients, 'patient')}.",
            "threshold": None,
            "cam_scale": None,
        }
    )


def calibrated(
    bundle: Bundle,
    data: Dataset,
    files: TileFiles,
    division: Division,
    settings: TrainingSettings,
    *,
    tell: Callable[[str], None] = lambda _text: None,
) -> Calibrated:
    """The bundle's card with map scale, region threshold and threshold, set on the validation split.

    Without a threshold where the validation data do not exclude that the model answers by chance.

    Args:
        bundle: in memory, its card without them.
        data: its slides of validation set the threshold, if there are malignant and other ones; else its tiles do.
        files: the tiles.
        division: says which are for validation.
        settings: the rule for the threshold.
        tell: gets sentences about what could not be used.

    Raises:
        UsageError: the validation data do not allow a threshold.
        MminferError: a validation slide cannot be scored.
    """
    scorer = Scorer(bundle)
    rows = division.validation
    probabilities, maps = _validated(scorer, files, rows)
    labels = files.labels.of(rows)
    lesion, card = labels.lesion(bundle.card), bundle.card
    scale = map_scale(maps, lesion)
    if scale is None:
        tell("No map speaks for a lesion in a validation tile: regions are drawn at the resolution of the tiles.")
    else:
        evidence = fitted_region_threshold(maps, probabilities, _shares(files, rows), card=card, scale=scale)
        if evidence is None:
            evidence = region_threshold(maps, probabilities, lesion, card=card, scale=scale)
        card = card.model_copy(
            update={"cam_scale": scale, **({} if evidence is None else {"region_threshold": evidence})}
        )
    slides = _validation_slides(data, division)
    positive = np.array([slide.label in (*card.malignant, "malignant") for slide in slides], np.bool_)
    if positive.any() and not positive.all():
        on, patients = "slides", [slide.case_id for slide in slides]
        scores = np.array([_slide_score(slide, data, scorer) for slide in slides])
        read = ~np.isnan(scores)
        if not read.all():
            tell(f"{plural(int((~read).sum()), 'validation slide')} without tissue set no threshold.")
        positive, scores = positive[read], scores[read]
        patients = [patient for patient, kept in zip(patients, read, strict=True) if kept]
    else:
        if slides:
            tell("The validation slides are all of one kind, so the threshold is set on validation tiles.")
        on, patients = "tiles", [data.tiles[row].case_id for row in rows]
        positive = labels.malignant(card)
        scores = probabilities[:, list(card.malignant_columns)].sum(1).astype(np.float64)
    found = set_threshold(positive, scores, patients, sensitivity=settings.sensitivity)
    if (doubt := chance_doubt(positive, scores, patients, on)) is not None:
        tell(f"{doubt} It gets no threshold, and judges no slide.")
        return Calibrated(card.model_copy(update={"limits": f"{card.limits} {doubt}".strip()}), on)
    threshold = Threshold(
        value=min(1.0, found.value), low=max(0.0, found.low), high=min(1.0, found.high),
        how=how_set(found, on, len(set(patients))),
    )  # fmt: skip
    return Calibrated(card.model_copy(update={"threshold": threshold}), on)


def chance_doubt(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], patients: Sequence[str], on: str
) -> str | None:
    """A sentence if the AUC on the validation data does not exclude chance; else None."""
    found, interval = auc(positive, scores), auc_interval(positive, scores, patients)
    if found is None or (interval is not None and interval[0] > CHANCE):
        return None
    within = "" if interval is None else f" ({interval[0]:.2f}–{interval[1]:.2f})"
    return f"It may be no better than chance: its AUC on the validation {on} was {found:.2f}{within}."


def require_slides(data: Dataset, division: Division) -> None:
    """Open each slide that is to set the threshold: what cannot be scored should not be found out after the training.

    Raises:
        DatasetError: a slide cannot be opened, or its scale is not known.
    """
    for slide in _validation_slides(data, division):
        try:
            with open_slide(data.folder / slide.path) as opened:
                known_scale(opened.facts, None)
        except MminferError as error:
            raise DatasetError(f"slides.csv, the row of {slide.slide}: {error}") from error


def how_set(found: SetThreshold, on: str, patients: int) -> str:
    """How a threshold was set: the rule, on what, on how many, at which prevalence."""
    cases = found.positive + found.negative
    caution = "" if on == "slides" else "; no validation slides were named, and slides may score otherwise than tiles"
    return (
        f"{found.rule} on {cases} validation {on} of {plural(patients, 'patient')}, of which {found.positive} "
        f"({found.positive / cases:.0%}) are malignant, each for an unknown patient; interval: 95 %, patient bootstrap"
        f"{caution}"
    )


def _validation_slides(data: Dataset, division: Division) -> Sequence[LabelledSlide]:
    """The slides of the validation split, or of its cases where the data state no splits."""
    cases = {data.tiles[row].case_id for row in division.validation}
    return [
        slide for slide in data.slides
        if slide.split == "validation" or (slide.split is None and slide.case_id in cases)
    ]  # fmt: skip


def _slide_score(slide: LabelledSlide, data: Dataset, scorer: Scorer) -> float:
    score = score_slide(data.folder / slide.path, scorer).malignant_score
    return math.nan if score is None else score


def _shares(files: TileFiles, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """The share of each cell of the maps that shows a lesion, (N, h, w), NaN where it is not known."""
    return np.stack([files.shares(int(row)) for row in rows])


def _validated(
    scorer: Scorer, files: TileFiles, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (N, K) and lesion maps (N, h, w) of tiles, for an unknown patient."""
    probabilities, maps = [], []
    for start in range(0, len(rows), CHUNK):
        outputs = scorer.engine.infer(files.pixels(rows[start : start + CHUNK]))
        probabilities.append(outputs["probabilities"])
        maps.append(outputs["cam"][:, 0])
    return np.concatenate(probabilities), np.concatenate(maps)
