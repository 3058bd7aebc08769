"""The core: tile results go in, in any order; the slide result can be asked for at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle import Bundle
from melanoma_infer.card import DEFAULT_GATES, AggregatorKind
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import ParityError
from melanoma_infer.patients import Patient, one_hot
from melanoma_infer.provenance import TOOL, VERSION
from melanoma_infer.reading import ReadPlan
from melanoma_infer.records import Identity, SlideFacts, Tile, TileResult, Tissue
from melanoma_infer.result import (
    BundleOut,
    GeometryOut,
    NumericsOut,
    PatientOut,
    ScaleOut,
    SlideOut,
    SlideResult,
    Thickness,
    TileCounts,
    TileTable,
    Tool,
)
from melanoma_infer.scoring import aggregate, malignant_probabilities, normalise_classes, outcome_score
from melanoma_infer.settings import Settings
from melanoma_infer.slides.scale import KnownScale
from melanoma_infer.tiling import Geometry, TissueArea
from melanoma_infer.verdict import Evidence, judge, outcome_state

REGIONS_NOTE = "This version does not draw regions."
THICKNESS_NOTE = "This version does not measure thickness."
REFERENCE_ENGINES = ("torch",)


@dataclass(frozen=True)
class SlideCase:
    """What the caller says of a slide."""

    id: str
    case_id: str | None = None
    patient: Patient | None = None
    patient_in_output: bool = True
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlidePlan:
    """What was decided of a slide before its tiles are read."""

    facts: SlideFacts
    identity: Identity
    scale: KnownScale
    tissue: Tissue
    geometry: Geometry
    reading: ReadPlan
    tiles: tuple[Tile, ...]

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue."""
        return TissueArea(self.tissue).total_l0 * self.scale.scale.pixel_mm2

    @property
    def ink_mm2(self) -> float:
        """Area that was left out as pen ink."""
        return float(self.tissue.ink.sum()) * self.tissue.px_l0**2 * self.scale.scale.pixel_mm2


class Accumulator:
    """Collects tile results of one slide. Their order, and how many arrive at once, change no bit of the result."""

    def __init__(
        self,
        plan: SlidePlan,
        case: SlideCase,
        bundle: Bundle,
        *,
        numerics: Numerics,
        settings: Settings,
        settings_digest: str | None = None,
    ) -> None:
        self._plan, self._case, self._bundle = plan, case, bundle
        self._numerics, self._settings, self._settings_digest = numerics, settings, settings_digest
        self._card = bundle.card
        fields = self._card.patient_fields
        self._unknown = one_hot(Patient(), fields)
        self._patient = one_hot(case.patient or Patient(), fields)
        self._results: dict[int, TileResult] = {}

    def add(self, result: TileResult) -> None:
        """Take one tile's result; a second one for the same tile replaces the first.

        Raises:
            ParityError: the graph's probabilities are not those of the host's head for an unknown patient.
        """
        if result.outputs is not None and self._bundle.head is not None:
            self._check_head(result.outputs)
        self._results[result.tile.index] = result

    def _check_head(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        assert self._bundle.head is not None
        host = self._bundle.head.probabilities(outputs["features"][None], self._unknown)[0]
        difference = float(np.abs(host - outputs["probabilities"]).max())
        gate = self._card.parity_gates.get(self._numerics.precision, DEFAULT_GATES[self._numerics.precision]).dp
        if not difference <= 2 * gate:  # NaN too
            raise ParityError(
                f"The graph and the head of this bundle disagree by {difference:.2g} (limit {2 * gate:.2g}). "
                "Export the bundle again, or try --precision fp32."
            )

    def result(self, timings_ms: Mapping[str, float] | None = None) -> SlideResult:
        """The slide result of the tiles seen so far; those still missing are counted as not evaluated."""
        plan, card = self._plan, self._card
        table = self._table(self._patient)
        ok = table.status == "ok"
        score = self._score(table.probabilities[ok])
        evaluable = self._evaluable_fraction(table)
        evidence = self._evidence(table, score, evaluable)
        judgement = judge(evidence, card)
        outcome = outcome_score(table.probabilities[ok], card)
        result = SlideResult(
            id=self._case.id,
            case_id=self._case.case_id,
            tool=Tool(name=TOOL, version=VERSION),
            slide=self._slide_out(),
            scale=self._scale_out(),
            geometry=self._geometry_out(),
            patient=self._patient_out(score),
            stain=self._settings.stain,
            specimen=self._settings.specimen,
            bundle=self._bundle_out(),
            numerics=NumericsOut(**vars(self._numerics)),
            settings_digest=self._settings_digest,
            tiles=TileCounts(
                ok=int(ok.sum()),
                unreadable=int((table.status == "unreadable").sum()),
                padded=int((table.padded_fraction[ok] > 0).sum()),
                not_evaluated=len(plan.tiles) - len(table),
            ),
            tissue_mm2=plan.tissue_mm2,
            ink_mm2=plan.ink_mm2,
            evaluable_fraction=evaluable,
            malignant_score=score,
            verdict=judgement.verdict,
            outcome=outcome_state(judgement.verdict, outcome, card),
            outcome_name=card.outcome.name if card.outcome else None,
            outcome_score=outcome,
            reasons=judgement.reasons,
            thickness=Thickness(state="not-assessable", reason=self._thickness_note()),
            regions=[],
            regions_note=REGIONS_NOTE,
            warnings=list(self._case.warnings),
            timings_ms=dict(timings_ms or {}),
        )
        return result.with_tiles(table)

    @property
    def aggregator(self) -> AggregatorKind:
        """How the tiles' scores are joined."""
        return self._settings.aggregate or self._card.aggregator.kind

    def _thickness_note(self) -> str:
        return THICKNESS_NOTE if "depth_mm" in self._card.outputs else "The model does not estimate depth."

    def _score(self, probabilities: NDArray[np.float64]) -> float | None:
        return aggregate(
            malignant_probabilities(probabilities, self._card),
            self.aggregator,
            tile_mm2=self._plan.geometry.tile_mm2,
            area_mm2=self._card.hottest_area_mm2,
        )

    def _probabilities(self, result: TileResult, patient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class probabilities (K,) of one tile for a patient; NaN where it is unreadable."""
        card, head = self._card, self._bundle.head
        if result.outputs is None:
            return np.full(len(card.classes), np.nan)
        if head is not None:
            probabilities = head.probabilities(result.outputs["features"][None], patient)
        else:
            probabilities = result.outputs["probabilities"][None].astype(np.float64)
        if card.class_priors is not None:
            probabilities = normalise_classes(probabilities, card.classes, card.class_priors)
        row: NDArray[np.float64] = probabilities[0]
        return row

    def _table(self, patient: NDArray[np.float64]) -> TileTable:
        rows = [self._results[index] for index in sorted(self._results)]
        rects = [row.tile.rect_l0 for row in rows]
        return TileTable(
            classes=self._card.classes,
            minx=np.array([rect.x for rect in rects], np.int64),
            miny=np.array([rect.y for rect in rects], np.int64),
            width=np.array([rect.width for rect in rects], np.int64),
            height=np.array([rect.height for rect in rects], np.int64),
            probabilities=np.array([self._probabilities(row, patient) for row in rows]).reshape(
                len(rows), len(self._card.classes)
            ),
            depth_mm=self._column(rows, "depth_mm"),
            status=np.array([row.status for row in rows], np.str_),
            tissue_fraction=np.array([row.tile.tissue_fraction for row in rows], np.float64),
            padded_fraction=np.array([row.blank_fraction for row in rows], np.float64),
            features=self._column(rows, "features"),
            attention=self._column(rows, "attention"),
            cam=self._column(rows, "cam"),
        )

    def _column(self, rows: list[TileResult], name: str) -> NDArray[Any] | None:
        """One optional output of all rows, NaN where a tile is unreadable; None where the model does not have it."""
        if name not in self._card.outputs:
            return None
        values = [row.outputs[name] for row in rows if row.outputs is not None]
        blank = np.full_like(values[0], np.nan) if values else np.array(np.nan, np.float32)
        return np.array([blank if row.outputs is None else row.outputs[name] for row in rows])

    def _evaluable_fraction(self, table: TileTable) -> float:
        """Share of the tissue that lies in tiles that were read and computed."""
        tissue = self._plan.tissue
        total = int(tissue.mask.sum())
        if not total:
            return 0.0
        covered = np.zeros_like(tissue.mask)
        for row in np.flatnonzero(table.status == "ok"):
            x, y = int(table.minx[row]), int(table.miny[row])
            left, right = (round(edge / tissue.px_l0) for edge in (x, x + int(table.width[row])))
            top, bottom = (round(edge / tissue.px_l0) for edge in (y, y + int(table.height[row])))
            covered[top:bottom, left:right] = True
        return int((covered & tissue.mask).sum()) / total

    def _evidence(self, table: TileTable, score: float | None, evaluable: float) -> Evidence:
        plan = self._plan
        ok = table.status == "ok"
        return Evidence(
            score=score,
            engine_band=self._engine_band(),
            aggregator=self.aggregator,
            unreadable=int((~ok).sum()),
            non_finite=sum(row.cause == "non-finite-output" for row in self._results.values()),
            evaluable_fraction=evaluable,
            padded_fraction=float(table.padded_fraction[ok].mean()) if ok.any() else 0.0,
            tissue_mm2=plan.tissue_mm2,
            is_brightfield=plan.tissue.is_brightfield,
            luminance_p95=plan.tissue.luminance_p95,
            is_phantom=plan.facts.is_phantom,
            scale_source=plan.scale.source,
            geometry_matches=plan.geometry.matches_card,
            stain=self._settings.stain,
            specimen=self._settings.specimen,
        )

    def _engine_band(self) -> float:
        """Twice the largest difference seen when this engine was sealed; its gate where it was not measured."""
        numerics = self._numerics
        if numerics.engine in REFERENCE_ENGINES:
            return 0.0
        row = self._bundle.parity_of(numerics.engine, numerics.precision)
        if row is not None:
            return 2 * row.max_dp
        return self._card.parity_gates.get(numerics.precision, DEFAULT_GATES[numerics.precision]).dp

    def _slide_out(self) -> SlideOut:
        facts, identity = self._plan.facts, self._plan.identity
        return SlideOut(
            reader=f"{facts.reader} {facts.reader_version}",
            vendor=facts.vendor,
            width_px=facts.size_l0.width,
            height_px=facts.size_l0.height,
            levels=len(facts.level_sizes),
            objective_power=facts.objective_power,
            digest=identity.digest,
            size_bytes=identity.size_bytes,
            mtime_ns=identity.mtime_ns,
            is_phantom=facts.is_phantom,
        )

    def _scale_out(self) -> ScaleOut:
        known, own = self._plan.scale, self._plan.facts.scale
        return ScaleOut(
            x_um_per_px=known.scale.x_um,
            y_um_per_px=known.scale.y_um,
            source=known.source,
            slide_x_um_per_px=own.x_um if own else None,
            slide_y_um_per_px=own.y_um if own else None,
        )

    def _geometry_out(self) -> GeometryOut:
        geometry, reading = self._plan.geometry, self._plan.reading
        return GeometryOut(
            tile_um=geometry.tile_um,
            stride_um=geometry.stride_um,
            tile_px=geometry.tile_px,
            level=reading.level,
            resize=self._card.resize,
            box=reading.box,
            matches_card=geometry.matches_card,
            tissue_source=self._plan.tissue.source,
            aggregator=self.aggregator,
        )

    def _patient_out(self, score: float | None) -> PatientOut | None:
        """The patient as used, and the score without; None where nothing was said, or where it must not be written."""
        patient = self._case.patient
        if patient is None or not self._case.patient_in_output:
            return None
        without = score
        if patient.is_known:
            table = self._table(self._unknown)
            without = self._score(table.probabilities[table.status == "ok"])
        return PatientOut(values=dict(patient.values), ulceration=patient.ulceration, malignant_score_without=without)

    def _bundle_out(self) -> BundleOut:
        card, cut = self._card, self._card.cut
        return BundleOut(
            name=self._bundle.name,
            version=card.version,
            digest=self._bundle.digest,
            domain=card.domain,
            trained=card.trained,
            cut=cut.value if cut else None,
            cut_low=cut.low if cut else None,
            cut_high=cut.high if cut else None,
        )
