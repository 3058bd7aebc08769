"""The core: tile results go in, in any order; the slide result can be asked for at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import AggregatorKind
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.errors import ParityError
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.records import SlideView, TileResult
from melanoma_infer.result import (
    EvaluationOut,
    NumericsOut,
    PatientOut,
    SlideResult,
    Thickness,
    TileCounts,
    TileTable,
    Tool,
)
from melanoma_infer.runtime.provenance import TOOL, VERSION
from melanoma_infer.scoring.conclusion import conclude, slide_score
from melanoma_infer.scoring.describe import bundle_out, geometry_out, scale_out, slide_out
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.regions import StitchedMaps, find_regions, regions_note, stitch
from melanoma_infer.scoring.verdict import Evidence
from melanoma_infer.settings import Settings
from melanoma_infer.tiles.plan import SlidePlan


@dataclass(frozen=True)
class SlideCase:
    """What the caller says of a slide."""

    id: str
    case_id: str | None = None
    patient: Patient | None = None
    patient_in_output: bool = True
    warnings: tuple[str, ...] = ()


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
        self._plan, self._case, self._bundle, self._card = plan, case, bundle, bundle.card
        self._numerics, self._settings, self._settings_digest = numerics, settings, settings_digest
        self._unknown = one_hot(Patient(), self._card.patient_fields)
        self._patient = one_hot(case.patient or Patient(), self._card.patient_fields)
        self._results: dict[int, TileResult] = {}

    def add(self, result: TileResult) -> None:
        """Take one tile's result; a second one for the same tile replaces the first.

        Raises:
            ParityError: the graph's probabilities are not those of the host's head for an unknown patient.
        """
        if result.outputs is not None and self._bundle.head is not None:
            self._check_head(result.outputs)
        self._results[result.tile.index] = result

    @property
    def nothing_was_read(self) -> bool:
        """Whether there are tiles, and the pixels of not one could be read."""
        return bool(self._results) and all(row.cause == "read-failed" for row in self._results.values())

    def result(self) -> SlideResult:
        """The slide result of the tiles seen so far; those still missing are counted as not evaluated."""
        plan, card = self._plan, self._card
        table, unknown = self._table()
        ok = table.status == "ok"
        circumstances = self._circumstances(table)
        conclusion = conclude(table.probabilities[ok], card, circumstances, plan.geometry.tile_mm2)
        maps = self._maps(replace(table, probabilities=unknown))
        result = SlideResult(
            id=self._case.id,
            case_id=self._case.case_id,
            tool=Tool(name=TOOL, version=VERSION),
            slide=slide_out(plan),
            scale=scale_out(plan),
            geometry=geometry_out(plan, self._bundle, self.aggregator),
            patient=self._patient_out(slide_score(unknown[ok], card, circumstances, plan.geometry.tile_mm2)),
            stain=self._settings.stain,
            specimen=self._settings.specimen,
            bundle=bundle_out(self._bundle),
            numerics=NumericsOut(**vars(self._numerics)),
            settings_digest=self._settings_digest,
            tiles=TileCounts(
                ok=int(ok.sum()),
                unreadable=int((~ok).sum()),
                padded=int((table.padded_fraction[ok] > 0).sum()),
                not_evaluated=len(plan.tiles) - len(table),
            ),
            evaluation=EvaluationOut(
                engine_band=circumstances.engine_band,
                non_finite=circumstances.non_finite,
                padded_fraction=circumstances.padded_fraction,
                is_brightfield=circumstances.is_brightfield,
                luminance_p95=circumstances.luminance_p95,
            ),
            tissue_mm2=plan.tissue_mm2,
            ink_mm2=plan.ink_mm2,
            evaluable_fraction=circumstances.evaluable_fraction,
            **vars(conclusion),
            outcome_name=card.outcome.name if card.outcome else None,
            thickness=Thickness(state="not-assessable", reason=self._thickness_note()),
            regions=find_regions(maps, card, size_l0=plan.facts.size_l0, scale=plan.scale.scale, tissue=plan.tissue),
            regions_note=regions_note(maps, plan.scale.scale),
            warnings=list(self._case.warnings),
            timings_ms={},
        )
        return result.carrying(table, self._view(maps), card=card)

    @property
    def aggregator(self) -> AggregatorKind:
        """How the tiles' scores are joined."""
        return self._settings.aggregate or self._card.aggregator.kind

    def _tolerance(self) -> float:
        """How far the engine's probabilities may be from the reference's."""
        precision = self._numerics.precision
        return self._card.tolerance_of(precision).dp

    def _check_head(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        assert self._bundle.head is not None
        host = self._bundle.head.probabilities(outputs["features"][None], self._unknown)[0]
        difference = float(np.abs(host - outputs["probabilities"]).max())
        if not difference <= 2 * self._tolerance():  # NaN too
            raise ParityError(
                f"The graph and the head of this bundle disagree by {difference:.2g} "
                f"(limit {2 * self._tolerance():.2g}). Export the bundle again, or try --precision fp32."
            )

    def _table(self) -> tuple[TileTable, NDArray[np.float64]]:
        """The tiles' results for the patient, and their probabilities for an unknown one."""
        rows = [self._results[index] for index in sorted(self._results)]
        rects = [row.tile.rect_l0 for row in rows]
        graph, features = self._column(rows, "probabilities"), self._column(rows, "features")
        assert graph is not None  # every model has probabilities
        table = TileTable(
            classes=self._card.classes,
            minx=np.array([rect.x for rect in rects], np.int64),
            miny=np.array([rect.y for rect in rects], np.int64),
            width=np.array([rect.width for rect in rects], np.int64),
            height=np.array([rect.height for rect in rects], np.int64),
            probabilities=fused(self._bundle, graph, features, self._patient),
            depth_mm=self._column(rows, "depth_mm"),
            status=np.array([row.status for row in rows], np.str_),
            tissue_fraction=np.array([row.tile.tissue_fraction for row in rows], np.float64),
            padded_fraction=np.array([row.blank_fraction for row in rows], np.float64),
            features=features,
            attention=self._column(rows, "attention"),
            cam=self._column(rows, "cam"),
        )
        return table, fused(self._bundle, graph, features, self._unknown)

    def _column(self, rows: list[TileResult], name: str) -> NDArray[Any] | None:
        """One output of all rows, NaN where a tile is unreadable; None where the model does not have it."""
        golden = self._bundle.golden.outputs.get(name)
        if golden is None:
            return None
        column = np.full((len(rows), *golden.shape[1:]), np.nan, np.float32)
        for i, row in enumerate(rows):
            if row.outputs is not None:
                column[i] = row.outputs[name]
        return column

    def _circumstances(self, table: TileTable) -> Evidence:
        """What the verdict rests on beside the score."""
        plan = self._plan
        ok = table.status == "ok"
        return Evidence(
            score=None,
            engine_band=self._engine_band(),
            aggregator=self.aggregator,
            unreadable=int((~ok).sum()),
            non_finite=sum(row.cause == "non-finite-output" for row in self._results.values()),
            evaluable_fraction=self._evaluable_fraction(table),
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

    def _engine_band(self) -> float:
        numerics = self._numerics
        return engine_band(self._bundle, numerics.engine, numerics.precision, numerics.device)

    def _maps(self, table: TileTable) -> StitchedMaps:
        """The evidence of an unknown patient's tiles on one grid."""
        plan = self._plan
        return stitch(
            table,
            self._card,
            size_l0=plan.facts.size_l0,
            scale=plan.scale.scale,
            geometry=plan.geometry,
            tissue=plan.tissue,
        )

    def _view(self, maps: StitchedMaps) -> SlideView | None:
        tissue = self._plan.tissue
        if tissue.thumbnail is None:
            return None
        return SlideView(tissue.thumbnail, tissue.px_l0, tissue.mask, tissue.ink, tissue.unread, maps.evidence)

    def _thickness_note(self) -> str:
        if "depth_mm" not in self._card.outputs:
            return "The model does not estimate depth."
        return "This version does not measure thickness."

    def _patient_out(self, score_without: float | None) -> PatientOut | None:
        """The patient as used, and the score without; None where nothing was said, or where it must not be written."""
        patient = self._case.patient
        if patient is None or not self._case.patient_in_output:
            return None
        return PatientOut(
            values=dict(patient.values), ulceration=patient.ulceration, malignant_score_without=score_without
        )
