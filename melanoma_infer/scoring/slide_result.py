"""The tile table and a patient → the slide's result: scores, regions, verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import AggregatorKind, ModelCard
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.records import GalleryTile, ReadTile, SlideView, Tile, TileTable
from melanoma_infer.result import (
    BundleOut,
    EvaluationOut,
    GeometryOut,
    NumericsOut,
    PatientOut,
    ScaleOut,
    SlideOut,
    SlideResult,
    Thickness,
    TileCounts,
    Tool,
)
from melanoma_infer.runtime.provenance import TOOL, VERSION
from melanoma_infer.scoring.conclusion import conclude, slide_score
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.gallery import choose
from melanoma_infer.scoring.regions import StitchedMaps, find_regions, regions_note, stitch
from melanoma_infer.scoring.verdict import Circumstances
from melanoma_infer.tiles.plan import SlidePlan


def slide_result(
    plan: SlidePlan,
    table: TileTable,
    case: SlideCase,
    bundle: Bundle,
    numerics: Numerics,
    *,
    read: Callable[[Tile], ReadTile] | None = None,
) -> SlideResult:
    """The result of a slide from the tiles scored so far; those still missing are counted as not evaluated.

    Args:
        plan: of the slide.
        table: from tile_table; the patient is fused here.
        case: what the caller says about the slide.
        bundle: the model.
        numerics: what computed the tiles.
        read: gives the pixels of the tiles that the gallery shows; None for a result without a gallery.
    """
    card, tile_mm2 = bundle.card, plan.geometry.tile_mm2
    unknown, patient = (one_hot(each, card.patient_fields) for each in (Patient(), case.patient or Patient()))
    without_patient = replace(table, probabilities=fused(bundle, table.probabilities, table.features, unknown))
    tiles = replace(table, probabilities=fused(bundle, table.probabilities, table.features, patient))
    ok = table.status == "ok"
    circumstances = _circumstances(plan, table, bundle, numerics)
    conclusion = conclude(tiles.probabilities[ok], card, circumstances, tile_mm2)
    maps = _stitched(plan, without_patient, card)
    result = SlideResult(
        id=case.id,
        case_id=case.case_id,
        tool=Tool(name=TOOL, version=VERSION),
        slide=_slide_out(plan),
        scale=_scale_out(plan),
        geometry=_geometry_out(plan, card, circumstances.aggregator),
        patient=_patient_out(case, slide_score(without_patient.probabilities[ok], card, circumstances, tile_mm2)),
        stain=plan.settings.stain,
        specimen=plan.settings.specimen,
        bundle=_bundle_out(bundle),
        numerics=NumericsOut(**vars(numerics)),
        settings_digest=None,
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
        thickness=_thickness(card),
        regions=find_regions(maps, card, size_l0=plan.facts.size_l0, scale=plan.scale.scale, tissue=plan.tissue),
        regions_note=regions_note(maps, plan.scale.scale),
        warnings=list(case.warnings),
        timings_ms={},
    )
    return result.carrying(
        tiles, _view(plan, maps), _gallery(plan, tiles, card, read) if read is not None else (), card=card
    )


def _circumstances(plan: SlidePlan, table: TileTable, bundle: Bundle, numerics: Numerics) -> Circumstances:
    """What the verdict depends on besides the score."""
    ok = table.status == "ok"
    return Circumstances(
        score=None,
        engine_band=engine_band(bundle, numerics.engine, numerics.precision, numerics.device),
        aggregator=plan.settings.aggregate or bundle.card.aggregator.kind,
        unreadable=int((~ok).sum()),
        non_finite=int((table.cause == "non-finite-output").sum()),
        evaluable_fraction=_evaluable_fraction(plan, table),
        padded_fraction=float(table.padded_fraction[ok].mean()) if ok.any() else 0.0,
        tissue_mm2=plan.tissue_mm2,
        is_brightfield=plan.tissue.is_brightfield,
        luminance_p95=plan.tissue.luminance_p95,
        is_phantom=plan.facts.is_phantom,
        scale_source=plan.scale.source,
        geometry_matches=plan.geometry.matches_card,
        stain=plan.settings.stain,
        specimen=plan.settings.specimen,
    )


def _evaluable_fraction(plan: SlidePlan, table: TileTable) -> float:
    """The share of the tissue inside tiles that were read and computed."""
    tissue = plan.tissue
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


def _stitched(plan: SlidePlan, tiles: TileTable, card: ModelCard) -> StitchedMaps:
    """The tiles' evidence on one grid."""
    return stitch(
        tiles,
        card,
        size_l0=plan.facts.size_l0,
        scale=plan.scale.scale,
        geometry=plan.geometry,
        tissue=plan.tissue,
    )


def _view(plan: SlidePlan, maps: StitchedMaps) -> SlideView | None:
    """What pictures are drawn from; None for a plan without a thumbnail."""
    tissue = plan.tissue
    if tissue.thumbnail is None:
        return None
    return SlideView(tissue.thumbnail, tissue.px_l0, tissue.mask, tissue.ink, tissue.unread, maps.evidence)


def _gallery(
    plan: SlidePlan, tiles: TileTable, card: ModelCard, read: Callable[[Tile], ReadTile]
) -> tuple[GalleryTile, ...]:
    """The tiles that a person should look at, those of them that can be read."""
    shown = [(choice, read(plan.tiles[choice.row]).pixels) for choice in choose(tiles, card)]
    return tuple(GalleryTile(choice.row, choice.role, pixels) for choice, pixels in shown if pixels is not None)


def _thickness(card: ModelCard) -> Thickness:
    reason = "The model does not estimate depth."
    if "depth_mm" in card.outputs:
        reason = "This version does not measure thickness."
    return Thickness(state="not-assessable", reason=reason)


def _patient_out(case: SlideCase, score_without: float | None) -> PatientOut | None:
    """The patient as used, and the score without; None if nothing is known, or if it must not be written."""
    patient = case.patient
    if patient is None or not case.patient_in_output:
        return None
    return PatientOut(values=dict(patient.values), ulceration=patient.ulceration, malignant_score_without=score_without)


def _slide_out(plan: SlidePlan) -> SlideOut:
    facts, identity = plan.facts, plan.identity
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


def _scale_out(plan: SlidePlan) -> ScaleOut:
    known, own = plan.scale, plan.facts.scale
    return ScaleOut(
        x_um_per_px=known.scale.x_um,
        y_um_per_px=known.scale.y_um,
        source=known.source,
        slide_x_um_per_px=own.x_um if own else None,
        slide_y_um_per_px=own.y_um if own else None,
    )


def _geometry_out(plan: SlidePlan, card: ModelCard, aggregator: AggregatorKind) -> GeometryOut:
    geometry, reading = plan.geometry, plan.reading
    return GeometryOut(
        tile_um=geometry.tile_um,
        stride_um=geometry.stride_um,
        tile_px=geometry.tile_px,
        level=reading.level,
        resize=card.resize,
        block_px=reading.block_px,
        matches_card=geometry.matches_card,
        tissue_source=plan.tissue.source,
        aggregator=aggregator,
    )


def _bundle_out(bundle: Bundle) -> BundleOut:
    card, threshold = bundle.card, bundle.card.threshold
    return BundleOut(
        name=bundle.name,
        version=card.version,
        digest=bundle.digest,
        domain=card.domain,
        trained=card.trained,
        threshold=threshold.value if threshold else None,
        threshold_low=threshold.low if threshold else None,
        threshold_high=threshold.high if threshold else None,
    )
