"""`mminfer bench slide`: time one slide from file to report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.bench.saving import CompareOption, SaveOption, frame, save_run, say_changes, since, teller
from melanoma_infer.cli.console import note, say, table
from melanoma_infer.cli.requests import checked_settings

if TYPE_CHECKING:
    from melanoma_infer.bench.slide import SlideTiming
    from melanoma_infer.pipeline.scorer import Scorer


def slide(
    slide: Annotated[Path, typer.Argument(help="A slide that is typical of yours.")],
    bundle: opt.BundleOption = "demo",
    engine: opt.EngineOption = "auto",
    precision: opt.PrecisionOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    reader: opt.ReaderOption = "auto",
    tile_um: opt.TileUmOption = None,
    mpp: opt.MppOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often to score the slide; the median counts.")] = 3,
    target: Annotated[
        str | None, typer.Option(metavar="N/day", help="Say whether this machine can score N such slides a day.")
    ] = None,
    save: SaveOption = None,
    compare: CompareOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Score one slide several times: time per stage, the bottleneck, and the share of the bare engine's throughput."""
    import json as json_module

    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.sentences import Target, bound_sentence
    from melanoma_infer.bench.slide import time_slide
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.slides.choice import reader_choice

    before = earlier_run(compare, "slide") if compare is not None else None
    wanted = Target.parse(target) if target is not None else None
    scorer = Scorer(open_bundle(bundle), engine, precision=precision, threads=threads, device=device)
    settings = checked_settings(mpp, tile_um=tile_um)
    timing = time_slide(slide, scorer, settings, reader=reader_choice(reader), rounds=rounds, tell=teller(json=json))
    sentence = bound_sentence(timing)
    reached = None if wanted is None else wanted.sentence(timing)
    result = _result(timing, scorer) | {"rounds": rounds, "sentence": sentence, "target": reached}
    changed = since(result, before)
    if save is not None:
        save_run(save, result, _stage_chart(timing))
    if json:
        say(json_module.dumps(result))
        return
    _show(timing)
    say_changes(changed, compare)
    say(_slide_line(timing))
    if reached is not None:
        say(reached)
    say(sentence)


def _result(timing: SlideTiming, scorer: Scorer) -> dict[str, Any]:
    facts = asdict(timing)
    return {
        **frame("slide", scorer.bundle, scorer.threads),
        **facts,
        "slides_per_h": timing.slides_per_h,
        "overhead_s": timing.overhead_s,
        "bound": timing.bound,
        "rows": [{name: facts[name] for name in ("engine", "precision", "tiles_per_s", "p20", "p80")}],
    }


def _show(timing: SlideTiming) -> None:
    """Print the seconds of each stage, and a note if the engine is beyond its tolerance."""
    from melanoma_infer.bench.slide import BESIDE, IN_TURN

    rows = [(stage, f"{timing.stages[stage]:.2f}", f"{timing.stages[stage] / timing.seconds:.0%}") for stage in IN_TURN]
    rows += [
        (f"  {stage}", f"{timing.stages[stage]:.2f}", "summed over the reading threads, in parallel with infer")
        for stage in BESIDE
    ]
    say(table([("stage", "seconds", ""), *rows]))
    if not timing.within_tolerance:
        note(f"{timing.engine} {timing.precision} is BEYOND ITS TOLERANCE here. Run `mminfer verify`.")


def _slide_line(timing: SlideTiming) -> str:
    memory = "" if timing.peak_rss_bytes is None else f", peak memory {timing.peak_rss_bytes / 1e9:.2f} GB"
    return (
        f"{timing.tiles} tiles in {timing.seconds:.2f} s: {timing.tiles_per_s:.1f} tiles/s "
        f"({timing.p20:.1f}-{timing.p80:.1f}), {timing.share_of_engine:.0%} of the bare engine's "
        f"{timing.engine_only_tiles_per_s:.1f}; {timing.slides_per_h:.0f} slides/h, "
        f"{timing.overhead_s:.2f} s per slide outside its tiles{memory}."
    )


def _stage_chart(timing: SlideTiming) -> bytes:
    from melanoma_infer.bench.chart import Bar, chart
    from melanoma_infer.bench.slide import BESIDE, IN_TURN

    bars = [
        Bar(stage, timing.stages[stage], f"{timing.stages[stage]:.2f} s", told=stage in IN_TURN)
        for stage in (*IN_TURN, *BESIDE)
    ]
    title = f"{timing.tiles} tiles in {timing.seconds:.2f} s ({timing.engine} {timing.precision}, {timing.reader})"
    return chart(title, bars, "Pale: summed over the reading threads, in parallel with the others.")
