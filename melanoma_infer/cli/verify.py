"""`mminfer verify`: check each engine on this machine against the reference, or against your own research code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, say
from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.errors import EngineUnavailableError, ParityError, UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.settings import Settings
    from melanoma_infer.verification.sample import Sample
    from melanoma_infer.verification.verify import Verification


@dataclass(frozen=True)
class EngineSelection:
    """Which engines and precisions to check, and how they run; nothing named means all."""

    engines: Sequence[str]
    precisions: Sequence[str]
    threads: int | None
    device: str | None


def verify(
    bundle: opt.BundleArgument = "demo",
    engine: opt.EnginesOption = None,
    precision: opt.PrecisionsOption = None,
    slide: Annotated[
        Path | None, typer.Option(metavar="SLIDE", help="Use the tiles of this slide in place of drawn ones.")
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="The output of your own code for the slide: minx,miny,width,height,prob_<class>."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the pictures of --expected.")] = Path("mminfer-verify"),
    drawn: Annotated[int, typer.Option(min=1, help="Number of drawn slides.")] = 8,
    tile_um: opt.TileUmOption = None,
    mpp: opt.MppOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Compare every engine and precision with the reference on the same tiles; exit 22 if one exceeds a tolerance."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.runtime.cores import available_cores
    from melanoma_infer.verification.sample import drawn_sample, slide_sample

    opened = open_bundle(bundle)
    settings = checked_settings(mpp, tile_um=tile_um)
    selection = EngineSelection(engine or (), precision or (), threads, device)
    if expected is not None:
        if slide is None:
            raise UsageError("--expected needs --slide: the slide for which your code gave these numbers.")
        _compare(opened, slide, expected, out, settings, selection, json=json)
        return
    if slide is None:
        sample = drawn_sample(opened, drawn)
    else:
        sample = slide_sample(opened, slide, settings, threads=threads or available_cores())
    _verify(opened, bundle, sample, selection, json=json)


def _verify(bundle: Bundle, source: str, sample: Sample, selection: EngineSelection, *, json: bool) -> None:
    """Verify the selected engines, and print the table.

    Raises:
        ParityError: a row exceeds a tolerance.
        EngineUnavailableError: an engine that was named does not run here.
    """
    import json as json_module

    from melanoma_infer.verification.verify import Verifier, wanted_pairs

    pairs = wanted_pairs(bundle, list(selection.engines), list(selection.precisions))
    if not pairs:
        raise EngineUnavailableError(
            "None of the named engines runs this bundle at these precisions. Leave out --engine or --precision."
        )
    tell = (lambda _line: None) if json else note
    table = Verifier(bundle, source, sample, selection.threads, selection.device, tell=tell).run(pairs)
    if json:
        result = {
            "bundle": bundle.name,
            "digest": bundle.digest,
            "reference": table.reference,
            "on": table.on,
            "passed": table.passed,
            "kept": table.kept,
            "rows": [row.model_dump() for row in table.rows],
            "unavailable": [vars(each) for each in table.unavailable],
        }
        say(json_module.dumps(result))
    else:
        _show(bundle, table)
    if not table.passed:
        names = ", ".join(f"{row.engine} {row.precision}" for row in table.rows if not row.passed)
        raise ParityError(f"Beyond a tolerance: {names}. `--engine auto` skips these; do not select them yourself.")
    if missing := [each for each in table.unavailable if each.engine in selection.engines]:
        raise EngineUnavailableError(f"{missing[0].engine} {missing[0].precision} was not verified. {missing[0].why}")


COLUMNS = ("engine", "max |Δp|", "p99.9", "mean", "features", "Δlogit", "Δmm", "Δattention", "CAM", "flips", "")


def _show(bundle: Bundle, table: Verification) -> None:
    """Print the table, then where and why each failed row failed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(*COLUMNS, box=box.SIMPLE, pad_edge=False)
    for row in table.rows:
        cam = "" if row.cam_correlation is None else f"{row.cam_correlation:.4f}"
        flips = "" if row.decision_flips is None else str(row.decision_flips)
        small = (row.max_dp, row.p999_dp, row.mean_dp, row.features_rms, row.p999_dlogit, row.max_dmm)
        shown.add_row(
            f"{row.engine} {row.precision}", *map(_small, small), _small(row.p999_dattention), cam, flips,
            "within its tolerances" if row.passed else "FAILED",
        )  # fmt: skip
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width, and no cell may be truncated
    say(f"{bundle.name} ({bundle.digest[:12]}) against {table.reference}, on {table.on}")
    console.print(shown)
    for row in table.rows:
        if not row.passed:
            where = f", first at: {row.stage} ({row.stage_detail})" if row.stage else f" ({row.stage_detail})"
            say(f"{row.engine} {row.precision} failed: {row.why}{where}")
    for (engine, why), group in groupby(table.unavailable, key=lambda each: (each.engine, each.why)):
        note(f"not verified: {engine} {', '.join(each.precision for each in group)}: {why}")


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _compare(
    bundle: Bundle,
    slide: Path,
    expected: Path,
    out: Path,
    settings: Settings,
    selection: EngineSelection,
    *,
    json: bool,
) -> None:
    """Compare your own code's numbers with one engine's, print how far they differ, and write the pictures.

    Raises:
        UsageError: several engines or precisions were named.
        ParityError: the numbers differ by more than the limit.
    """
    import json as json_module

    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.verification.expected import compare_with_expected
    from melanoma_infer.verification.pictures import write_pictures

    if len(selection.engines) > 1 or len(selection.precisions) > 1:
        raise UsageError("--expected compares with one engine at one precision. Give --engine and --precision once.")
    engine, precision = next(iter(selection.engines), "auto"), next(iter(selection.precisions), None)
    scorer = Scorer(bundle, engine, precision=precision, threads=selection.threads, device=selection.device)
    found = compare_with_expected(scorer, slide, expected, settings)
    page = write_pictures(out, found)
    if json:
        say(json_module.dumps(found.as_json() | {"pictures": str(page)}))
    else:
        say(f"tiles compared: {found.matched} of {found.given}; on the toolkit's grid: {found.on_grid}")
        say(f"|Δp|: mean {found.mean_dp:.2g}, max {found.max_dp:.2g}")
        for remark in found.remarks:
            note(remark)
        say(found.diagnosis)
        say(str(page))
    if not found.passed:
        raise ParityError(
            f"Your numbers differ by {found.mean_dp:.2g} on average; the limit is {found.mean_limit:g}. "
            f"{found.diagnosis}"
        )
