"""What was decided and used for a slide, as its result says it."""

from __future__ import annotations

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import AggregatorKind
from melanoma_infer.result import BundleOut, GeometryOut, ScaleOut, SlideOut
from melanoma_infer.tiles.plan import SlidePlan


def slide_out(plan: SlidePlan) -> SlideOut:
    """The slide, as far as it may be known."""
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


def scale_out(plan: SlidePlan) -> ScaleOut:
    """The scale in use, and the slide's own."""
    known, own = plan.scale, plan.facts.scale
    return ScaleOut(
        x_um_per_px=known.scale.x_um,
        y_um_per_px=known.scale.y_um,
        source=known.source,
        slide_x_um_per_px=own.x_um if own else None,
        slide_y_um_per_px=own.y_um if own else None,
    )


def geometry_out(plan: SlidePlan, bundle: Bundle, aggregator: AggregatorKind) -> GeometryOut:
    """How the tiles were cut, read and joined."""
    geometry, reading = plan.geometry, plan.reading
    return GeometryOut(
        tile_um=geometry.tile_um,
        stride_um=geometry.stride_um,
        tile_px=geometry.tile_px,
        level=reading.level,
        resize=bundle.card.resize,
        block_px=reading.block_px,
        matches_card=geometry.matches_card,
        tissue_source=plan.tissue.source,
        aggregator=aggregator,
    )


def bundle_out(bundle: Bundle) -> BundleOut:
    """The model and its threshold."""
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
