"""Verify a bundle: compare every engine and precision that loads with the reference, on the same tiles.

The reference is our own network in PyTorch if the bundle has its weights, else the fp32 graph in ONNX Runtime. Each
must first agree with the sealed golden outputs; if neither does, the golden outputs alone are the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import MODULES, ON_GPU
from melanoma_infer.engines.base import Numerics, Outputs, first_non_finite
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.parity_table import MeasuredParity, keep
from melanoma_infer.errors import EngineUnavailableError, OutputError, UsageError
from melanoma_infer.tolerances import PRECISIONS, Precision
from melanoma_infer.verification.differences import Differences, Excess, beyond, differences
from melanoma_infer.verification.in_child import EngineAnswer, EngineRequest, run_engine
from melanoma_infer.verification.localise import FirstDifference, told_by_outputs
from melanoma_infer.verification.sample import Sample
from melanoma_infer.verification.stages import STAGES

Tell = Callable[[str], None]
Pair = tuple[str, Precision]

FROM_WEIGHTS: dict[str, tuple[Precision, ...]] = {"torch": ("fp32",), "triton": ("fp32", "fp16", "bf16")}
"""Engines that run our own network's weights, and the precisions that they convert the weights to."""
REFERENCES: tuple[Pair, ...] = (("torch", "fp32"), ("onnxruntime", "fp32"))
GOLDEN = "golden outputs"
OUTPUT_OF: dict[str, str] = {
    "p99.9 |Δp|": "probabilities",
    "p99.9 |Δlogit|": "probabilities",
    "decision flips": "probabilities",
    "p99.9 |Δmm|": "depth_mm",
    "features' relative RMS": "features",
    "p99.9 |Δattention|": "attention",
    "CAM correlation": "cam",
}


@dataclass(frozen=True)
class Unavailable:
    """An engine and precision that this machine or this bundle does not have."""

    engine: str
    precision: Precision
    why: str


@dataclass(frozen=True)
class Verification:
    """The table: a row for each engine that ran, and why the others could not."""

    reference: str
    on: str
    rows: tuple[MeasuredParity, ...]
    unavailable: tuple[Unavailable, ...]
    kept: bool
    """Whether the rows were stored in the cache, where `auto` and the verdict look for them."""

    @property
    def passed(self) -> bool:
        """Whether at least one engine ran and none exceeds a tolerance."""
        return bool(self.rows) and all(row.passed for row in self.rows)


@dataclass(frozen=True)
class Verifier:
    """Verifies one bundle on one sample. Child processes open the bundle by `source`, a packaged name or a path."""

    bundle: Bundle
    source: str
    sample: Sample
    threads: int | None = None
    device: str | None = None
    tell: Tell = lambda _line: None

    def run(self, pairs: Sequence[Pair]) -> Verification:
        """Return the table of these engines and precisions, and store it in the cache.

        Raises:
            EngineUnavailableError: none of them runs on this machine.
        """
        answers: dict[Pair, EngineAnswer] = {}
        reference = self._reference(answers)
        rows: list[MeasuredParity] = []
        unavailable: list[Unavailable] = []
        # References that were rejected because they disagree with the golden outputs come first.
        refuted = [pair for pair, answer in answers.items() if pair != reference.pair and not answer.unavailable]
        for pair in dict.fromkeys([*refuted, *pairs]):
            answer = answers[pair] if pair in answers else self._infer(pair)
            if answer.unavailable:
                unavailable.append(Unavailable(*pair, answer.unavailable))
            else:
                rows.append(self._row(pair, answer, reference))
        if not rows:
            raise EngineUnavailableError("Nothing could be verified. " + " ".join(each.why for each in unavailable))
        kept = True
        try:
            for row in rows:
                keep(self.bundle, row, self.device)
        except OutputError as error:
            self.tell(f"The table was not stored. {error}")
            kept = False
        return Verification(reference.name, reference.sample.on, tuple(rows), tuple(unavailable), kept)

    def _infer(self, pair: Pair, tiles: NDArray[np.uint8] | None = None, *, task: str = "infer") -> EngineAnswer:
        engine, precision = pair
        if engine in ON_GPU and self.device is None and not nvidia_driver_is_loaded():
            return EngineAnswer(unavailable="There is no NVIDIA driver here, so no GPU. Use --engine openvino.")
        if task == "infer":
            self.tell(f"{engine} {precision} …")
        request = EngineRequest(
            self.source, self.bundle.digest, engine, precision, self.threads, self.device, task
        )  # fmt: skip
        return run_engine(request, self.sample.tiles if tiles is None else tiles)

    def _reference(self, answers: dict[Pair, EngineAnswer]) -> _Reference:
        """The first of REFERENCES that agrees with the golden outputs, else these. Answers are added to `answers`."""
        golden = self.bundle.golden.outputs
        for pair in REFERENCES:
            if pair[0] == "torch" and self.bundle.weights is None:
                continue
            answer = answers[pair] = self._infer(pair)
            if answer.outputs is None or first_non_finite(answer.outputs) is not None:
                continue
            first = {name: values[: self.sample.golden] for name, values in answer.outputs.items()}
            if not any(each.ratio > 1 for each in beyond(*self._seen(first, golden, pair, ()))):
                # For the golden tiles the sealed outputs are the reference, for the reference engine too.
                whole = {
                    name: np.concatenate([golden[name], answer.outputs[name][len(golden[name]) :]]) for name in golden
                }
                return _Reference(f"{pair[0]} {pair[1]}", pair, whole, self.sample)  # fmt: skip
        return _Reference(GOLDEN, None, golden, self.sample.only_golden())

    def _seen(self, outputs: Outputs, reference: Outputs, pair: Pair, slides: Sequence[Any]) -> tuple[Differences, Any]:
        tolerance = self.bundle.card.tolerance_of(pair[1])
        return differences(self.bundle, reference, outputs, slides, band=tolerance.dp), tolerance

    def _row(self, pair: Pair, answer: EngineAnswer, reference: _Reference) -> MeasuredParity:
        """One row of the table."""
        numerics = answer.numerics or Numerics(pair[0], "", pair[1], self.device or "")
        row = MeasuredParity(
            engine=pair[0],
            precision=pair[1],
            version=numerics.version,
            device=numerics.device,
            reference=GOLDEN if pair == reference.pair else reference.name,
            on=reference.sample.on,
            tiles=len(reference.sample.tiles),
            slides=len(reference.sample.slides),
            passed=False,
            seconds=round(answer.seconds, 3),
        )
        if answer.outputs is None:
            return row.model_copy(update={"why": answer.failure, "stage": STAGES["run"]})
        broken = first_non_finite(answer.outputs)
        if broken is not None:
            told = {"why": f"{broken} is not finite for some tile", "stage": STAGES["run"]}
            return row.model_copy(update=told)
        outputs = {name: values[: len(reference.sample.tiles)] for name, values in answer.outputs.items()}
        seen, tolerance = self._seen(outputs, reference.outputs, pair, reference.sample.slides)
        excesses = beyond(seen, tolerance)
        failures = [each for each in excesses if each.ratio > 1]
        figures = {name: value for name, value in vars(seen).items() if name in MeasuredParity.model_fields}
        update: dict[str, Any] = {
            **figures,
            "passed": not failures,
            "why": "; ".join(map(str, failures)),
            "over_tolerance": excesses[0].ratio,
        }
        if failures:
            where = self._localised(pair, outputs, reference, failures)
            update |= {"stage": STAGES[where.stage] if where.stage else None, "stage_detail": where.detail}
        return row.model_copy(update=update)

    def _localised(
        self, pair: Pair, outputs: Outputs, reference: _Reference, failures: Sequence[Excess]
    ) -> FirstDifference:
        """The first stage that differs, for the tile whose probabilities differ most."""
        difference = np.abs(np.asarray(outputs["probabilities"], np.float64) - reference.outputs["probabilities"])
        worst = int(difference.max(axis=1).argmax())
        tile = reference.sample.tiles[worst : worst + 1]
        answer = EngineAnswer() if pair[0] in FROM_WEIGHTS else self._infer(pair, tile, task="localise")
        if answer.facts.get("detail"):
            return FirstDifference(**answer.facts)
        return told_by_outputs([OUTPUT_OF[each.name] for each in failures], self.bundle.card.outputs)


@dataclass(frozen=True)
class _Reference:
    """What engines are compared with: outputs for the sample's tiles. `pair` is None for the golden outputs alone."""

    name: str
    pair: Pair | None
    outputs: Mapping[str, NDArray[Any]]
    sample: Sample


def wanted_pairs(bundle: Bundle, engines: Sequence[str] = (), precisions: Sequence[str] = ()) -> list[Pair]:
    """The engines and precisions asked for, or else all that a bundle's files make possible.

    Raises:
        UsageError: an engine or a precision is unknown.
    """
    for asked, names, what in ((engines, tuple(MODULES), "engine"), (precisions, PRECISIONS, "precision")):
        if unknown := [name for name in asked if name not in names]:
            raise UsageError(f"--{what} {unknown[0]}: no such {what}. Choose from {', '.join(names)}.")
    pairs: dict[Pair, None] = {}
    for engine in engines or MODULES:
        if engine in FROM_WEIGHTS:
            possible = FROM_WEIGHTS[engine] if bundle.weights is not None else ()
        else:
            possible = (*bundle.precisions, "bf16") if engine == "openvino" else bundle.precisions
        pairs |= dict.fromkeys((engine, each) for each in PRECISIONS if each in (precisions or possible))
    return list(pairs)
