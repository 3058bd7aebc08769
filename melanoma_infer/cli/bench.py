"""`mminfer bench`: what does this hardware give, how far from its limit is that, and is the fast engine still right?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melanoma_infer.cli.console import note, say, table
from melanoma_infer.errors import EngineUnavailableError, OutputError

if TYPE_CHECKING:
    from melanoma_infer.bench.compare import Change
    from melanoma_infer.bench.engines import EngineRow
    from melanoma_infer.bench.roofline import Roofline
    from melanoma_infer.bench.slide import SlideTiming
    from melanoma_infer.bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")
SAVE_HELP = "Write everything as JSON, and a chart beside it as PNG."
COMPARE_HELP = "Say what is faster, slower or noise since a saved run."
HEADER = ("engine", "precision", "batch", "tiles/s", "p20-p80", "× nchw", "× best", "of peak", "p99.9 |Δp|", "")


@app.callback()
def _root() -> None:
    """Measure this machine."""


@app.command()
def engines(
    bundle: Annotated[
        str, typer.Option(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")
    ] = "demo",
    engine: Annotated[list[str] | None, typer.Option(help="Only this one; repeat for more.  [default: all]")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Only this precision; repeat for more.  [default: all]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.  [default: the cores there are]")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repeats of each; the median counts.")] = 7,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help=SAVE_HELP)] = None,
    compare: Annotated[Path | None, typer.Option(metavar="OLD.json", help=COMPARE_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Time every engine on the CPU beside eager PyTorch, in turns, and say how far from the machine's limit it is."""
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.engines import time_engines
    from melanoma_infer.bench.roofline import roofline
    from melanoma_infer.bench.subjects import subjects
    from melanoma_infer.bundle import open_bundle
    from melanoma_infer.cores import available_cores

    before = earlier_run(compare, "engines") if compare is not None else None
    opened, threads = open_bundle(bundle), threads or available_cores()
    chosen = [
        each
        for each in subjects(opened)
        if (not engine or each.name in engine) and (not precision or each.precision in precision)
    ]
    rows, left_out = time_engines(
        opened, bundle, chosen, threads=threads, rounds=rounds, tell=_silent if json else note
    )
    if not rows:
        raise EngineUnavailableError("Nothing that was named runs here. Leave --engine and --precision out.")
    limit = roofline(opened, sorted({row.precision for row in rows}), threads)
    result = {
        **_frame("engines", opened, threads, rounds),
        "rows": [{**asdict(row), "share_of_peak": limit.share(row.precision, row.tiles_per_s)} for row in rows],
        "left_out": left_out,
        "roofline": asdict(limit),
    }
    since = _since(result, before)
    if save is not None:
        _save(save, result, _engine_chart(rows))
    if json:
        _say_json(result)
        return
    say(table([HEADER, *(_cells(row, limit) for row in rows)]))
    for name, why in left_out.items():
        note(f"not timed: {name}: {why}")
    _say_changes(since, compare)
    say(_sentence(opened, rows, limit))


@app.command()
def slide(
    slide: Annotated[Path, typer.Argument(help="A slide like those to come.")],
    bundle: Annotated[
        str, typer.Option(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")
    ] = "demo",
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
    save: Annotated[Path | None, typer.Option(metavar="FILE", help=SAVE_HELP)] = None,
    compare: Annotated[Path | None, typer.Option(metavar="OLD.json", help=COMPARE_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Score one slide again and again: where the time goes, what holds it back, and the share of the engine alone."""
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.sentences import Target, bound_sentence
    from melanoma_infer.bench.slide import time_slide
    from melanoma_infer.bundle import open_bundle
    from melanoma_infer.manifest import parse_scale
    from melanoma_infer.session import Scorer
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides.choice import reader_wish

    before = earlier_run(compare, "slide") if compare is not None else None
    wanted = Target.parse(target) if target is not None else None
    opened = open_bundle(bundle)
    scorer = Scorer(opened, engine, precision=precision, threads=threads, device=device)
    settings = Settings(tile_um=tile_um, mpp_um=parse_scale(mpp) if mpp else None)
    timing = time_slide(
        slide, scorer, settings, reader=reader_wish(reader), rounds=rounds, tell=_silent if json else note
    )
    sentence = bound_sentence(timing)
    reached = None if wanted is None else wanted.sentence(timing)
    facts = asdict(timing)
    row = {name: facts[name] for name in ("engine", "precision", "tiles_per_s", "p20", "p80")}
    result = {
        **_frame("slide", opened, scorer.threads, rounds),
        **facts,
        "slides_per_h": timing.slides_per_h,
        "bound": timing.bound,
        "sentence": sentence,
        "target": reached,
        "rows": [row],
    }
    since = _since(result, before)
    if save is not None:
        _save(save, result, _stage_chart(timing))
    if json:
        _say_json(result)
        return
    say(table([("stage", "seconds", ""), *_stage_cells(timing)]))
    if not timing.within_gate:
        note(f"{timing.engine} {timing.precision} is BEYOND ITS GATE here: run `mminfer verify`.")
    _say_changes(since, compare)
    say(_slide_line(timing))
    if reached is not None:
        say(reached)
    say(sentence)


def _slide_line(timing: SlideTiming) -> str:
    memory = "" if timing.peak_rss_bytes is None else f", {timing.peak_rss_bytes / 1e9:.2f} GB at most"
    return (
        f"{timing.tiles} tiles in {timing.seconds:.2f} s: {timing.tiles_per_s:.1f} tiles/s "
        f"({timing.p20:.1f}-{timing.p80:.1f}), {timing.share_of_engine:.0%} of the "
        f"{timing.engine_only_tiles_per_s:.1f} of the engine alone; {timing.slides_per_h:.0f} slides/h{memory}."
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


def _engine_chart(rows: list[EngineRow]) -> bytes:
    from melanoma_infer.bench.chart import Bar, chart

    bars = [
        Bar(f"{row.engine} {row.precision}", row.tiles_per_s, f"{row.tiles_per_s:.2f} tiles/s", told=row.within_gate)
        for row in rows
    ]
    return chart("Tiles a second", bars, "Pale: beyond its gate.")


def _cells(row: EngineRow, limit: Roofline) -> tuple[str, ...]:
    share = limit.share(row.precision, row.tiles_per_s)
    ratios = ("" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio_to_nchw, row.ratio_to_best))
    return (
        row.engine,
        row.precision,
        f"{row.batch} {row.layout}".strip(),
        f"{row.tiles_per_s:.2f}",
        f"{row.p20:.2f}-{row.p80:.2f}",
        *ratios,
        "" if share is None else f"{share:.0%}",
        f"{row.p999_dp:.1e}",
        "" if row.within_gate else "BEYOND ITS GATE",
    )


def _sentence(bundle: Bundle, rows: list[EngineRow], limit: Roofline) -> str:
    from melanoma_infer.bench.engines import fastest

    best = fastest(rows)
    if best is None:
        return "No engine that `mminfer score` runs is within its gate here: run `mminfer verify`."
    share = limit.share(best.precision, best.tiles_per_s)
    than = "" if best.ratio_to_nchw is None else f", {best.ratio_to_nchw:.1f} × eager PyTorch as published code runs it"
    than += "" if best.ratio_to_best is None else f" and {best.ratio_to_best:.1f} × at its best"
    return (
        f"The fastest engine within its gate is {best.engine} {best.precision}: {best.tiles_per_s:.1f} tiles/s of "
        f"{bundle.card.tile_px} px{than}"
        + (f"; that is {share:.0%} of what a matrix product reaches here." if share is not None else ".")
    )


def _frame(kind: str, bundle: Bundle, threads: int, rounds: int) -> dict[str, Any]:
    """What every result of a bench says beside its figures."""
    from melanoma_infer.provenance import machine, versions

    return {
        "kind": kind,
        "bundle": bundle.name,
        "digest": bundle.digest,
        "tile_px": bundle.card.tile_px,
        "threads": threads,
        "rounds": rounds,
        "machine": machine(),
        "versions": versions(),
    }


def _since(result: dict[str, Any], before: dict[str, Any] | None) -> list[Change]:
    """The changes since an earlier run, noted in the result, too."""
    from melanoma_infer.bench.compare import changes

    since = [] if before is None else list(changes(result, before))
    result["changes"] = [asdict(change) for change in since]
    return since


def _say_changes(since: list[Change], compare: Path | None) -> None:
    for change in since:
        say(f"since {compare.name if compare else ''}: {change.name} {change.ratio:.2f} × ({change.verdict})")


def _say_json(result: dict[str, Any]) -> None:
    import json

    say(json.dumps(result))


def _silent(_text: str) -> None:
    """Tell nobody."""


def _save(path: Path, result: dict[str, Any], picture: bytes) -> None:
    """The result as JSON, and its chart beside it."""
    import json

    try:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".png").write_bytes(picture)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror}). Choose another --save.") from error
