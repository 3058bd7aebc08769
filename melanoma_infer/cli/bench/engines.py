"""`mminfer bench engines`: time every engine on the CPU beside eager PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.bench.saving import CompareOption, SaveOption, frame, save_run, say_changes, since, teller
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from melanoma_infer.bench.engines import EngineRow
    from melanoma_infer.bench.roofline import Roofline
    from melanoma_infer.bench.subjects import Subject

HEADER = ("engine", "precision", "batch", "tiles/s", "p20-p80", "× nchw", "× best", "of peak GEMM", "p99.9 |Δp|", "")


def engines(
    bundle: opt.BundleOption = "demo",
    engine: opt.EnginesOption = None,
    precision: opt.PrecisionsOption = None,
    threads: opt.ThreadsOption = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also time torch.compile; compiling takes up to a minute each time.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often to time each engine; the median counts.")] = 5,
    save: SaveOption = None,
    compare: CompareOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Time every engine on the CPU beside eager PyTorch, in turns, and compare each with the machine's limit."""
    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.engines import conclusion, picture, time_engines
    from melanoma_infer.bench.roofline import matrix_products, roofline
    from melanoma_infer.bench.subjects import subjects
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.runtime.cores import available_cores

    before = earlier_run(compare, "engines") if compare is not None else None
    opened, threads = open_bundle(bundle), threads or available_cores()
    chosen = _chosen(subjects(opened, compiled=compiled), engine or (), precision or ())
    products = matrix_products(sorted({each.precision for each in chosen}), threads)
    rows, left_out = time_engines(
        opened, bundle, chosen, threads=threads, rounds=rounds, each_round=products.time, tell=teller(json=json)
    )
    if not rows:
        raise EngineUnavailableError("None of the selected engines runs here. Leave out --engine and --precision.")
    limit = roofline(opened, products.gflops)
    result = {
        **frame("engines", opened, threads),
        "rounds": rounds,
        "rows": [{**asdict(row), "share_of_peak": limit.share(row.precision, row.tiles_per_s)} for row in rows],
        "left_out": left_out,
        "roofline": asdict(limit),
    }
    changed = since(result, before)
    if save is not None:
        save_run(save, result, picture(rows))
    if json:
        say_json(result)
        return
    say(engines_table(rows, limit))
    for name, why in left_out.items():
        note(f"not timed: {name}: {why}")
    say_changes(changed, compare)
    say(conclusion(rows, limit, opened.card.tile_px))


def _chosen(subjects: Iterable[Subject], engines: Sequence[str], precisions: Sequence[str]) -> list[Subject]:
    """The subjects of these names and precisions; nothing named means all.

    Raises:
        UsageError: there is no such engine or precision.
    """
    from melanoma_infer.bench.subjects import NAMES
    from melanoma_infer.tolerances import PRECISIONS

    for what, asked, known in (("engine", engines, NAMES), ("precision", precisions, PRECISIONS)):
        if unknown := [name for name in asked if name not in known]:
            raise UsageError(f"--{what} {unknown[0]}: no such {what}. Choose from {', '.join(known)}.")
    return [
        each
        for each in subjects
        if (not engines or each.name in engines) and (not precisions or each.precision in precisions)
    ]


def engines_table(rows: Sequence[EngineRow], limit: Roofline) -> str:
    """The throughput of each engine, beside eager PyTorch and the machine's limit."""
    return table([row.cells(limit) for row in rows], HEADER)
