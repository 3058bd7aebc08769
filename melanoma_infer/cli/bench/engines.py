"""`mminfer bench engines`: time every engine on the CPU beside eager PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.bench.saving import CompareOption, SaveOption, frame, save_run, say_changes, since, teller
from melanoma_infer.cli.console import note, say, table
from melanoma_infer.errors import EngineUnavailableError

if TYPE_CHECKING:
    pass

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
    import json as json_module

    from melanoma_infer.bench.compare import earlier_run
    from melanoma_infer.bench.engines import conclusion, picture, time_engines
    from melanoma_infer.bench.roofline import matrix_products, roofline
    from melanoma_infer.bench.subjects import subjects
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.runtime.cores import available_cores

    before = earlier_run(compare, "engines") if compare is not None else None
    opened, threads = open_bundle(bundle), threads or available_cores()
    chosen = [
        each
        for each in subjects(opened, compiled=compiled)
        if (not engine or each.name in engine) and (not precision or each.precision in precision)
    ]
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
        say(json_module.dumps(result))
        return
    say(table([HEADER, *(row.cells(limit) for row in rows)]))
    for name, why in left_out.items():
        note(f"not timed: {name}: {why}")
    say_changes(changed, compare)
    say(conclusion(rows, limit, opened.card.tile_px))
