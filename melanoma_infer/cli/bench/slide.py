"""`mminfer bench slide`: time one slide from file to report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.bench.saving import CompareOption, SaveOption, frame, save_run, say_changes, since, teller
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.cli.tables import table

if TYPE_CHECKING:
    from melanoma_infer.bench.slide import SlideTiming


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
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.sentences import Target, bound_sentence, figures
    from melanoma_infer.bench.slide import picture, time_slide
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.slides.choice import reader_choice

    before = earlier_run(compare, "slide") if compare is not None else None
    wanted = Target.parse(target) if target is not None else None
    tell = teller(json=json)
    scorer = Scorer(open_bundle(bundle), engine, precision=precision, threads=threads, device=device, tell=tell)
    settings = checked_settings(mpp, tile_um=tile_um)
    timing = time_slide(slide, scorer, settings, reader=reader_choice(reader), rounds=rounds, tell=tell)
    sentence = bound_sentence(timing)
    reached = None if wanted is None else wanted.sentence(timing)
    facts = asdict(timing)
    derived = {name: getattr(timing, name) for name in ("slides_per_h", "overhead_s", "bound")}
    row = {name: facts[name] for name in ("engine", "precision", "tiles_per_s", "p20", "p80")}
    said = {"sentence": sentence, "target": reached}
    result = frame("slide", scorer.bundle, scorer.threads) | facts | derived | {"rows": [row]} | said
    changed = since(result, before)
    if save is not None:
        save_run(save, result, picture(timing))
    if json:
        say_json(result)
        return
    _show(timing)
    say_changes(changed, compare)
    say(figures(timing))
    if reached is not None:
        say(reached)
    say(sentence)


def _show(timing: SlideTiming) -> None:
    """Print the stages, and a note if the engine is beyond its tolerance."""
    say(stages_table(timing))
    if not timing.within_tolerance:
        note(f"{timing.engine} {timing.precision} is BEYOND ITS TOLERANCE here. Run `mminfer verify`.")


def stages_table(timing: SlideTiming) -> str:
    """The seconds of each stage."""
    from melanoma_infer.bench.slide import BESIDE, IN_TURN

    rows = [(stage, f"{timing.stages[stage]:.2f}", f"{timing.stages[stage] / timing.seconds:.0%}") for stage in IN_TURN]
    rows += [
        (f"  {stage}", f"{timing.stages[stage]:.2f}", "summed over the reading threads, in parallel with infer")
        for stage in BESIDE
    ]
    return table(rows, ("stage", "seconds", ""))
