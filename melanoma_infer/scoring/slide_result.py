"""The tile table and a patient → the slide's result: scores, regions, verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.records import GalleryTile, ReadTile, SlideView, SumScores, Tile, TileTable
from melanoma_infer.result import PatientOut, SlideResult, Thickness
from melanoma_infer.scoring.aggregation import exact_sums
from melanoma_infer.scoring.conclusion import conclude, slide_score
from melanoma_infer.scoring.description import describe
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.gallery import choose
from melanoma_infer.scoring.regions import find_regions, regions_note, stitch
from melanoma_infer.scoring.verdict import Circumstances, slide_warnings
from melanoma_infer.tiles.plan import SlidePlan

NO_THICKNESS = {False: "The model does not estimate depth.", True: "This version does not measure thickness."}
"""Why there is no thickness, by whether the model estimates depth."""


def slide_result(
    plan: SlidePlan,
    table: TileTable,
    case: SlideCase,
    bundle: Bundle,
    numerics: Numerics,
    *,
    read: Callable[[Sequence[Tile]], Iterable[ReadTile]] | None = None,
    sum_scores: SumScores = exact_sums,
) -> SlideResult:
    """The result of a slide from the tiles scored so far; those still missing are counted as not evaluated.

    Args:
        plan: of the slide.
        table: from tile_table; the patient is fused here.
        case: what the caller says about the slide.
        bundle: the model.
        numerics: what computed the tiles.
        read: gives the pixels of the tiles that the gallery shows; None for a result without a gallery.
        sum_scores: adds up the tiles' scores: where the engine computes them, or on the host.
    """
    card, tile_mm2 = bundle.card, plan.geometry.tile_mm2
    unknown, patient = (one_hot(each, card.patient_fields) for each in (Patient(), case.patient or Patient()))
    without_patient = replace(table, probabilities=fused(bundle, table.probabilities, table.features, unknown))
    tiles = replace(table, probabilities=fused(bundle, table.probabilities, table.features, patient))
    ok = table.status == "ok"
    circumstances = _circumstances(plan, table, bundle, numerics)
    size_l0, scale, tissue = plan.facts.size_l0, plan.scale.scale, plan.tissue
    maps = stitch(without_patient, card, size_l0=size_l0, scale=scale, geometry=plan.geometry, tissue=tissue)
    patient_out = None
    if case.patient is not None and case.patient_in_output:
        patient_out = PatientOut(
            values=dict(case.patient.values),
            ulceration=case.patient.ulceration,
            malignant_score_without=slide_score(
                without_patient.probabilities[ok], card, circumstances, tile_mm2, sum_scores
            ),
        )
    result = SlideResult(
        id=case.id,
        case_id=case.case_id,
        **describe(plan, table, circumstances, bundle, numerics),
        **vars(conclude(tiles.probabilities[ok], card, circumstances, tile_mm2, sum_scores)),
        patient=patient_out,
        thickness=Thickness(state="not-assessable", reason=NO_THICKNESS["depth_mm" in card.outputs]),
        regions=find_regions(maps, card, size_l0=size_l0, scale=scale, tissue=tissue),
        regions_note=regions_note(maps, scale),
        warnings=[*case.warnings, *slide_warnings(plan.scale.contradiction, plan.facts.doubts)],
    )
    view = None
    if tissue.thumbnail is not None:
        view = SlideView(tissue.thumbnail, tissue.px_l0, tissue.mask, tissue.ink, tissue.unread, maps.evidence)
    gallery: list[GalleryTile] = []
    if read is not None:
        chosen = choose(tiles, card)
        for choice, shown in zip(chosen, read([plan.tiles[choice.row] for choice in chosen]), strict=True):
            if shown.pixels is not None:
                gallery.append(GalleryTile(choice.row, choice.role, shown.pixels))
    return result.carrying(tiles, view, tuple(gallery), card=card)


def _circumstances(plan: SlidePlan, table: TileTable, bundle: Bundle, numerics: Numerics) -> Circumstances:
    """What the verdict depends on besides the score."""
    ok = table.status == "ok"
    return Circumstances(
        score=None,
        engine_band=engine_band(bundle, numerics.engine, numerics.precision, numerics.device),
        aggregator=plan.settings.aggregate or bundle.card.aggregator.kind,
        unreadable=int((table.status == "unreadable").sum()),
        not_evaluated=len(plan.tiles) - int((table.status != "incomplete").sum()),
        non_finite=int((table.cause == "non-finite-output").sum()),
        evaluable_fraction=_evaluable_fraction(plan, table),
        padded_fraction=float(table.padded_fraction[ok].mean()) if ok.any() else 0.0,
        tissue_mm2=plan.tissue_mm2,
        is_brightfield=plan.tissue.is_brightfield,
        luminance_p95=plan.tissue.luminance_p95,
        is_phantom=plan.facts.is_phantom,
        scale_source=plan.scale.source,
        scale_contradiction=plan.scale.contradiction,
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
