"""`mminfer bench slide`: one slide from file to report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.bench.saving import (
    BUNDLE,
    COMPARE,
    JSON,
    SAVE,
    frame,
    save_run,
    say_changes,
    say_json,
    since,
    teller,
)
from melanoma_infer.cli.console import note, say, table

if TYPE_CHECKING:
    from melanoma_infer.bench.slide import SlideTiming


def slide(
    slide: Annotated[Path, typer.Argument(help="A slide like those to come.")],
    bundle: Annotated[str, BUNDLE] = "demo",
    engine: Annotated[str, typer.Option(help="As in `mminfer score`.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16, int8 or fastest.  [default: the card's]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.  [default: the cores there are]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or a device that the engine knows.")] = None,
    reader: Annotated[str, typer.Option(help="auto, openslide or tiff.")] = "auto",
    tile_um: Annotated[float | None, typer.Option(help="Side of a tile in µm.  [default: the card's]")] = None,
    mpp: Annotated[str | None, typer.Option(help="µm per level-0 pixel, X or X,Y, in place of the slide's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the slide is scored; the median counts.")] = 3,
    target: Annotated[
        str | None, typer.Option(metavar="N/day", help="Say whether that many such slides can be scored.")
    ] = None,
    save: Annotated[Path | None, SAVE] = None,
    compare: Annotated[Path | None, COMPARE] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Score one slide again and again: where the time goes, what holds it back, and the share of the engine alone."""
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.sentences import Target, bound_sentence
    from melanoma_infer.bench.slide import time_slide
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.patients.manifest import parse_scale
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides.choice import reader_choice

    before = earlier_run(compare, "slide") if compare is not None else None
    wanted = Target.parse(target) if target is not None else None
    opened = open_bundle(bundle)
    scorer = Scorer(opened, engine, precision=precision, threads=threads, device=device)
    settings = Settings(tile_um=tile_um, mpp_um=parse_scale(mpp) if mpp else None)
    timing = time_slide(slide, scorer, settings, reader=reader_choice(reader), rounds=rounds, tell=teller(json=json))
    sentence = bound_sentence(timing)
    reached = None if wanted is None else wanted.sentence(timing)
    facts = asdict(timing)
    row = {name: facts[name] for name in ("engine", "precision", "tiles_per_s", "p20", "p80")}
    result = {
        **frame("slide", opened, scorer.threads),
        "rounds": rounds,
        **facts,
        "slides_per_h": timing.slides_per_h,
        "overhead_s": timing.overhead_s,
        "bound": timing.bound,
        "sentence": sentence,
        "target": reached,
        "rows": [row],
    }
    changed = since(result, before)
    if save is not None:
        save_run(save, result, _stage_chart(timing))
    if json:
        say_json(result)
        return
    say(table([("stage", "seconds", ""), *_stage_cells(timing)]))
    if not timing.within_tolerance:
        note(f"{timing.engine} {timing.precision} is BEYOND ITS TOLERANCE here: run `mminfer verify`.")
    say_changes(changed, compare)
    say(_slide_line(timing))
    if reached is not None:
        say(reached)
    say(sentence)


def _slide_line(timing: SlideTiming) -> str:
    memory = "" if timing.peak_rss_bytes is None else f", {timing.peak_rss_bytes / 1e9:.2f} GB at most"
    return (
        f"{timing.tiles} tiles in {timing.seconds:.2f} s: {timing.tiles_per_s:.1f} tiles/s "
        f"({timing.p20:.1f}-{timing.p80:.1f}), {timing.share_of_engine:.0%} of the "
        f"{timing.engine_only_tiles_per_s:.1f} of the engine alone; {timing.slides_per_h:.0f} slides/h, "
        f"{timing.overhead_s:.2f} s each beside its tiles{memory}."
    )


def _stage_cells(timing: SlideTiming) -> Iterator[tuple[str, ...]]:
    from melanoma_infer.bench.slide import BESIDE, IN_TURN

    for stage in IN_TURN:
        yield stage, f"{timing.stages[stage]:.2f}", f"{timing.stages[stage] / timing.seconds:.0%}"
    for stage in BESIDE:
        yield f"  {stage}", f"{timing.stages[stage]:.2f}", "of all reading threads, beside infer"


def _stage_chart(timing: SlideTiming) -> bytes:
    from melanoma_infer.bench.chart import Bar, chart
    from melanoma_infer.bench.slide import BESIDE, IN_TURN

    bars = [
        Bar(stage, timing.stages[stage], f"{timing.stages[stage]:.2f} s", told=stage in IN_TURN)
        for stage in (*IN_TURN, *BESIDE)
    ]
    title = f"{timing.tiles} tiles in {timing.seconds:.2f} s ({timing.engine} {timing.precision}, {timing.reader})"
    return chart(title, bars, "Pale: all reading threads together, beside the others.")
