"""The part of a slide's result that says what was scored, with what, and how."""

from __future__ import annotations

from typing import Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import AggregatorKind, ModelCard
from melanoma_infer.engines.base import Numerics
from melanoma_infer.records import TileTable
from melanoma_infer.result import (
    BoundsOut,
    BundleOut,
    EvaluationOut,
    GeometryOut,
    NumericsOut,
    ScaleOut,
    SlideOut,
    TileCounts,
    Tool,
)
from melanoma_infer.runtime.provenance import TOOL, VERSION
from melanoma_infer.scoring.verdict import Circumstances
from melanoma_infer.tiles.plan import SlidePlan


def describe(
    plan: SlidePlan, table: TileTable, circumstances: Circumstances, bundle: Bundle, numerics: Numerics
) -> dict[str, Any]:
    """The fields of SlideResult that depend on neither patient nor regions, by name."""
    ok = table.status == "ok"
    card, threshold = bundle.card, bundle.card.threshold
    return {
        "tool": Tool(name=TOOL, version=VERSION),
        **_slide(plan, card, circumstances.aggregator),
        "stain": plan.settings.stain,
        "specimen": plan.settings.specimen,
        "bundle": BundleOut(
            name=bundle.name,
            version=card.version,
            digest=bundle.digest,
            domain=card.domain,
            trained=card.trained,
            finding=card.noun,
            threshold=threshold.value if threshold else None,
            threshold_low=threshold.low if threshold else None,
            threshold_high=threshold.high if threshold else None,
        ),
        "numerics": NumericsOut(**vars(numerics)),
        "tiles": TileCounts(
            ok=int(ok.sum()),
            unreadable=circumstances.unreadable,
            padded=int((table.padded_fraction[ok] > 0).sum()),
            not_evaluated=circumstances.not_evaluated,
        ),
        "evaluation": EvaluationOut(
            engine_band=circumstances.engine_band,
            non_finite=circumstances.non_finite,
            padded_fraction=circumstances.padded_fraction,
            is_brightfield=circumstances.is_brightfield,
            luminance_p95=circumstances.luminance_p95,
        ),
        "tissue_mm2": plan.tissue_mm2,
        "ink_mm2": plan.ink_mm2,
        "evaluable_fraction": circumstances.evaluable_fraction,
        "outcome_name": card.outcome.in_words if card.outcome else None,
    }


def _slide(
    plan: SlidePlan, card: ModelCard, aggregator: AggregatorKind
) -> dict[str, SlideOut | ScaleOut | GeometryOut]:
    """The slide, its scale and its tiles."""
    facts, identity, known, own = plan.facts, plan.identity, plan.scale, plan.facts.scale
    geometry, reading = plan.geometry, plan.reading
    slide = SlideOut(
        reader=f"{facts.reader} {facts.reader_version}",
        vendor=facts.vendor,
        width_px=facts.size_l0.width,
        height_px=facts.size_l0.height,
        levels=len(facts.level_sizes),
        objective_power=facts.objective_power,
        digest=identity.digest,
        size_bytes=identity.size_bytes,
        is_phantom=facts.is_phantom,
        bounds=BoundsOut(**vars(facts.bounds)) if facts.bounds else None,
        doubts=facts.doubts,
    )
    scale = ScaleOut(
        x_um_per_px=known.scale.x_um,
        y_um_per_px=known.scale.y_um,
        source=known.source,
        slide_x_um_per_px=own.x_um if own else None,
        slide_y_um_per_px=own.y_um if own else None,
        contradiction=known.contradiction,
    )
    tiles = GeometryOut(
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
    return {"slide": slide, "scale": scale, "geometry": tiles}
