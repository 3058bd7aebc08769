"""What a model that was trained on phantoms is worth: on styles and seeds that it has never seen, next to the truth.

``python benchmarks/phantom_model.py [BUNDLE] --save benchmarks/results/phantom-model.json``

Every figure is about drawings. The outcome's ceiling is the AUC of the probability from which it was drawn, given what
image and patient show: no model can be expected to exceed it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.card import ModelCard
from melanoma_infer.engines import load_engine
from melanoma_infer.evaluation.bootstrap import auc_interval, interval, patient_bootstrap
from melanoma_infer.evaluation.figures import auc, depth_errors
from melanoma_infer.patients.patient import lenient_patient, one_hot
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import Kind, Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.styles import HEADLINE_STYLES
from melanoma_infer.phantom.tiles import PhantomCase, draw_tile, patient_of, phantom_case, place_tile
from melanoma_infer.phantom.truth import section_truth
from melanoma_infer.runtime.cores import available_cores

SEED = 900_000_000
"""The first of the seeds; a cohort's are spread over all 32 bits."""
DEPTH_MAX_MM = 2.5
"""Deeper lesions rarely fit a tile together with their surface."""
PAIR = {"deep": (2.0, 1.5), "wide": (0.75, 4.0)}
"""Thickness and width in mm of two lesions of the same area."""
PAIR_SIDE_UM = 18_000.0
AHEAD = 64
"""Tiles in memory at once."""
_TURN = 7000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A tile, and what is true of it."""

    pixels: NDArray[np.uint8]
    shows: Kind
    breslow_mm: float | None
    """None unless the surface and the deepest cell are in the tile."""
    case_mm: float | None
    """The patient's thickness, whatever the tile shows."""
    values: dict[str, str]
    outcome: bool
    visible: float
    """The outcome's probability given what image and patient show."""


@dataclass(frozen=True)
class Answer:
    """What the model says about a tile; the first two with the patient's values."""

    malignant: float
    outcome: float
    """Of the malignant classes' probability, the share of those with the outcome."""
    depth_mm: float
    shuffled: float
    """`outcome` with the values of another patient."""


@dataclass(frozen=True)
class Answers:
    """Tiles without their pixels, and what the model says about each."""

    tiles: tuple[Drawn, ...]
    answers: tuple[Answer, ...]

    def column(self, of: Callable[[Drawn, Answer], float]) -> Floats:
        """One number a tile."""
        return np.array([of(*pair) for pair in zip(self.tiles, self.answers, strict=True)], np.float64)


def drawn(case: PhantomCase, card: ModelCard, *, erased: bool = False) -> Drawn:
    """The first tile of a case, or the same place without the lesion."""
    tile = place_tile(case, 0, card.tile_px, card.tile_side_um / card.tile_px)
    shown = replace(case, scene=case.scene.without_lesion()) if erased else case
    person = case.person
    return Drawn(
        draw_tile(shown, tile), "none" if erased else tile.shows, tile.breslow_mm if tile.surface_in_tile else None,
        case.truth.breslow_mm, person.values(), person.outcome, person.visible,
    )  # fmt: skip


def any_tile(card: ModelCard, seed: int) -> Drawn:
    """The tile of a case as a cohort has them: melanomas, nevi, and skin without either."""
    return drawn(phantom_case(seed, HEADLINE_STYLES), card)


def erased_tile(card: ModelCard, seed: int) -> Drawn:
    """The same place without its lesion."""
    return drawn(phantom_case(seed, HEADLINE_STYLES), card, erased=True)


def pair_tile(card: ModelCard, which: str, seed: int) -> Drawn:
    """One of two lesions of the same area in the same skin."""
    depth_mm, width_mm = PAIR[which]
    turn, style = draws(2, stream(seed, _TURN))
    options = Options(
        style=HEADLINE_STYLES[int(style * len(HEADLINE_STYLES))],
        depth_mm=depth_mm,
        width_mm=width_mm,
        angle_deg=360 * turn - 180,
    )
    scene = make_scene(seed, "melanoma", (PAIR_SIDE_UM, PAIR_SIDE_UM), options)
    somebody, _, _ = patient_of(seed, HEADLINE_STYLES)
    return drawn(PhantomCase(seed, somebody, scene, section_truth(scene.sections[0], 1.0)), card)


def melanomas(number: int) -> list[int]:
    """Seeds of cases with a melanoma."""
    return list(islice((seed for seed in count(SEED) if patient_of(seed, HEADLINE_STYLES)[1] == "melanoma"), number))


class Model:
    """A bundle on an engine, with the head for each tile's own patient."""

    def __init__(self, bundle: Bundle, precision: str) -> None:
        assert bundle.head is not None, "the bundle takes no patient"
        self.card, self.head = bundle.card, bundle.head
        self.engine = load_engine(bundle, precision=precision).engine

    def answers(self, tiles: Iterable[Drawn]) -> Answers:
        """What it says about tiles, in order."""
        kept: list[Drawn] = []
        said: list[Answer] = []
        for some in _chunks(tiles):
            outputs = self.engine.infer(np.stack([tile.pixels for tile in some]))
            for i, tile in enumerate(some):
                other = some[(i + 1) % len(some)]
                malignant, outcome = self._scores(outputs["features"][i], tile.values)
                _, shuffled = self._scores(outputs["features"][i], other.values)
                said.append(Answer(malignant, outcome, float(outputs["depth_mm"][i]), shuffled))
                kept.append(replace(tile, pixels=np.empty(0, np.uint8)))
        return Answers(tuple(kept), tuple(said))

    def _scores(self, features: NDArray[np.float32], values: dict[str, str]) -> tuple[float, float]:
        patient, _ = lenient_patient({name: value for name, value in values.items() if value}, self.card.patient_fields)
        p = self.head.probabilities(features[None], one_hot(patient, self.card.patient_fields))[0]
        malignant = float(p[list(self.card.malignant_columns)].sum())
        return malignant, float(p[list(self.card.outcome_columns)].sum()) / malignant


def detection(answers: Answers) -> dict[str, Any]:
    """Melanoma against everything else."""
    positive = np.array([tile.shows == "melanoma" for tile in answers.tiles])
    scores = answers.column(lambda _, answer: answer.malignant)
    nevus_or_melanoma = np.array([tile.shows != "none" for tile in answers.tiles])
    return {
        "tiles": len(positive),
        "melanoma": int(positive.sum()),
        "auc": auc(positive, scores),
        "auc_95": auc_interval(positive, scores, _each_alone(scores)),
        "auc_against_nevi": auc(positive[nevus_or_melanoma], scores[nevus_or_melanoma]),
    }


def depth(answers: Answers) -> dict[str, Any]:
    """Estimated against true thickness, where surface and deepest cell are in the tile."""
    true = answers.column(lambda tile, _: math.nan if tile.breslow_mm is None else tile.breslow_mm)
    estimated = answers.column(lambda _, answer: answer.depth_mm)
    counts = true <= DEPTH_MAX_MM
    errors = depth_errors(true[counts], estimated[counts])
    return {"up_to_mm": DEPTH_MAX_MM, **(asdict(errors) if errors else {})}


def outcome(answers: Answers) -> dict[str, Any]:
    """The outcome among melanomas: the model, its ceiling, thickness alone, and the model with other patients."""
    occurred = np.array([tile.outcome for tile in answers.tiles])
    scores = answers.column(lambda _, answer: answer.outcome)
    thickness = answers.column(lambda tile, _: tile.case_mm or 0.0)

    def better(rows: NDArray[np.intp]) -> float:
        pair = auc(occurred[rows], scores[rows]), auc(occurred[rows], thickness[rows])
        return math.nan if None in pair else float(np.subtract(*pair))

    return {
        "melanomas": len(occurred),
        "occurred": int(occurred.sum()),
        "auc": auc(occurred, scores),
        "ceiling": auc(occurred, answers.column(lambda tile, _: tile.visible)),
        "breslow_alone": auc(occurred, thickness),
        "above_breslow_95": interval(patient_bootstrap(better, _each_alone(scores))),
        "patients_shuffled": auc(occurred, answers.column(lambda _, answer: answer.shuffled)),
    }


def _each_alone(scores: Floats) -> list[str]:
    """Every tile is of another patient."""
    return [str(i) for i in range(len(scores))]


def _chunks(tiles: Iterable[Drawn]) -> Iterator[list[Drawn]]:
    tiles = iter(tiles)
    while some := list(islice(tiles, AHEAD)):
        yield some


def figures(model: Model, tiles: int, pairs: int, pool: Executor) -> dict[str, Any]:
    """All figures of a model; `tiles` tiles, as many melanomas, and `pairs` pairs."""

    def asked(draw: Callable[[int], Drawn], seeds: Sequence[int]) -> Answers:
        return model.answers(pool.map(draw, seeds, chunksize=4))

    mixed = asked(partial(any_tile, model.card), range(SEED, SEED + tiles))
    seeds = melanomas(tiles)
    melanoma = asked(partial(any_tile, model.card), seeds)
    erased = asked(partial(erased_tile, model.card), seeds[: tiles // 4])
    two = {which: asked(partial(pair_tile, model.card, which), range(SEED, SEED + pairs)) for which in PAIR}
    deep, wide = (two[which].column(lambda _, answer: answer.depth_mm) for which in PAIR)
    threshold = model.card.threshold
    scores = erased.column(lambda _, answer: answer.malignant)
    return {
        "engine": str(model.engine.numerics),
        "styles": list(HEADLINE_STYLES),
        "detection": detection(mixed),
        "depth": depth(mixed),
        "outcome": outcome(melanoma),
        "lesion_erased": {
            "tiles": len(scores),
            "below_threshold": None if threshold is None else float((scores < threshold.value).mean()),
        },
        "pairs": {"pairs": pairs, "deeper_is_deeper": int((deep > wide).sum())},
    }


def main() -> None:
    """Print the figures as JSON, and save them where the command line says."""
    parser = argparse.ArgumentParser(description="Measure a model that was trained on phantoms.")
    parser.add_argument("bundle", nargs="?", default="demo")
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    with ProcessPoolExecutor(available_cores()) as pool:
        found = {"bundle": bundle.digest, **figures(Model(bundle, given.precision), given.tiles, given.pairs, pool)}
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.save:
        given.save.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
