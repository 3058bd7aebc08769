"""`mminfer verify`: check each engine on this machine against the reference, or against your own research code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError, MminferError, ParityError, UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.engines.parity_table import MeasuredParity
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
    from melanoma_infer.verification.verify import Verifier, wanted_pairs

    pairs = wanted_pairs(bundle, list(selection.engines), list(selection.precisions))
    if not pairs:
        raise EngineUnavailableError(
            "None of the named engines runs this bundle at these precisions. Leave out --engine or --precision."
        )
    tell = (lambda _line: None) if json else note
    found = Verifier(bundle, source, sample, selection.threads, selection.device, tell=tell).run(pairs)
    failure = _failure(found, selection.engines)
    if json:
        result = {
            "bundle": bundle.name,
            "digest": bundle.digest,
            "reference": found.reference,
            "on": found.on,
            "passed": found.passed,
            "kept": found.kept,
            "rows": [row.model_dump(mode="json") for row in found.rows],
            "unavailable": [vars(each) for each in found.unavailable],
        }
        say_json(result, failure)
    else:
        _show(bundle, found)
    if failure is not None:
        raise failure


def _failure(found: Verification, named: Sequence[str]) -> MminferError | None:
    """Why the command fails: a row exceeds a tolerance, or an engine that was named does not run here."""
    if not found.passed:
        names = ", ".join(f"{row.engine} {row.precision}" for row in found.rows if not row.passed)
        return ParityError(f"Beyond a tolerance: {names}. `--engine auto` skips these; do not select them yourself.")
    if missing := [each for each in found.unavailable if each.engine in named]:
        return EngineUnavailableError(f"{missing[0].engine} {missing[0].precision} was not verified. {missing[0].why}")
    return None


COLUMNS = ("engine", "max |Δp|", "p99.9", "mean", "features", "Δlogit", "Δmm", "Δattention", "CAM", "flips", "")


def _show(bundle: Bundle, found: Verification) -> None:
    """Print the table, then where and why each failed row failed."""
    say(f"{bundle.name} ({bundle.digest[:12]}) against {found.reference}, on {found.on}")
    say(f"\n{differences_table(found.rows)}\n")
    for row in found.rows:
        if not row.passed:
            where = f", first at: {row.stage} ({row.stage_detail})" if row.stage else f" ({row.stage_detail})"
            say(f"{row.engine} {row.precision} failed: {row.why}{where}")
    for (engine, why), group in groupby(found.unavailable, key=lambda each: (each.engine, each.why)):
        note(f"not verified: {engine} {', '.join(each.precision for each in group)}: {why}")


def differences_table(rows: Sequence[MeasuredParity]) -> str:
    """How far each engine's outputs are from the reference's."""
    cells = []
    for row in rows:
        cam = "" if row.cam_correlation is None else f"{row.cam_correlation:.4f}"
        flips = "" if row.decision_flips is None else str(row.decision_flips)
        small = (row.max_dp, row.p999_dp, row.mean_dp, row.features_rms, row.p999_dlogit, row.max_dmm)
        figures = (*map(_small, small), _small(row.p999_dattention), cam, flips)
        verdict = "within its tolerances" if row.passed else "FAILED"
        cells.append((f"{row.engine} {row.precision}", *figures, verdict))
    return table(cells, COLUMNS)


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
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.verification.expected import compare_with_expected
    from melanoma_infer.verification.pictures import write_pictures

    if len(selection.engines) > 1 or len(selection.precisions) > 1:
        raise UsageError("--expected compares with one engine at one precision. Give --engine and --precision once.")
    engine, precision = next(iter(selection.engines), "auto"), next(iter(selection.precisions), None)
    scorer = Scorer(bundle, engine, precision=precision, threads=selection.threads, device=selection.device, tell=note)
    found = compare_with_expected(scorer, slide, expected, settings)
    page = write_pictures(out, found)
    failure = None
    if not found.passed:
        failure = ParityError(
            f"Your numbers differ by {found.mean_dp:.2g} on average; the limit is {found.mean_limit:g}. "
            f"{found.diagnosis}"
        )
    if json:
        say_json(found.as_json() | {"pictures": str(page)}, failure)
    else:
        say(f"tiles compared: {found.matched} of {found.given}; on the toolkit's grid: {found.on_grid}")
        say(f"|Δp|: mean {found.mean_dp:.2g}, max {found.max_dp:.2g}")
        for remark in found.remarks:
            note(remark)
        say(found.diagnosis)
        say(str(page))
    if failure is not None:
        raise failure
