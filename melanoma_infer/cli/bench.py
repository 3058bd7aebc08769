"""`mminfer bench`: what does this hardware give, how far from its limit is that, and is the fast engine still right?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melanoma_infer.cli.console import note, say, table
from melanoma_infer.errors import EngineUnavailableError, OutputError

if TYPE_CHECKING:
    from melanoma_infer.bench.engines import EngineRow
    from melanoma_infer.bench.roofline import Roofline
    from melanoma_infer.bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")
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
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Say what is faster, slower or noise since a saved run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Time every engine on the CPU beside eager PyTorch, in turns, and say how far from the machine's limit it is."""
    import json as json_module

    from melanoma_infer.bench.compare import changes, earlier_run
    from melanoma_infer.bench.engines import time_engines
    from melanoma_infer.bench.roofline import roofline
    from melanoma_infer.bench.subjects import subjects
    from melanoma_infer.bundle import open_bundle
    from melanoma_infer.cores import available_cores
    from melanoma_infer.provenance import machine, versions

    before = earlier_run(compare) if compare is not None else None
    opened, threads = open_bundle(bundle), threads or available_cores()
    chosen = [
        each
        for each in subjects(opened)
        if (not engine or each.name in engine) and (not precision or each.precision in precision)
    ]
    rows, left_out = time_engines(
        opened, bundle, chosen, threads=threads, rounds=rounds, tell=(lambda _text: None) if json else note
    )
    if not rows:
        raise EngineUnavailableError("Nothing that was named runs here. Leave --engine and --precision out.")
    limit = roofline(opened, sorted({row.precision for row in rows}), threads)
    result: dict[str, Any] = {
        "kind": "engines",
        "bundle": opened.name,
        "digest": opened.digest,
        "tile_px": opened.card.tile_px,
        "threads": threads,
        "rounds": rounds,
        "rows": [{**asdict(row), "share_of_peak": limit.share(row.precision, row.tiles_per_s)} for row in rows],
        "left_out": left_out,
        "roofline": asdict(limit),
        "machine": machine(),
        "versions": versions(),
    }
    since = [] if before is None else list(changes(result, before))
    result |= {"changes": [asdict(change) for change in since]}
    if save is not None:
        _save(save, result)
    if json:
        say(json_module.dumps(result))
        return
    say(table([HEADER, *(_cells(row, limit) for row in rows)]))
    for name, why in left_out.items():
        note(f"not timed: {name}: {why}")
    for change in since:
        say(f"since {compare.name if compare else ''}: {change.name} {change.ratio:.2f} × ({change.verdict})")
    say(_sentence(opened, rows, limit))


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


def _save(path: Path, result: dict[str, Any]) -> None:
    import json as json_module

    try:
        path.write_text(json_module.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror}). Choose another --save.") from error
