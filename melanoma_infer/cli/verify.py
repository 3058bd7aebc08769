"""`mminfer verify`: is each engine still right, here, and does it give what the research code gave?"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, say
from melanoma_infer.errors import EngineUnavailableError, ParityError, UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.settings import Settings
    from melanoma_infer.verification.expected import Comparison
    from melanoma_infer.verification.sample import Sample
    from melanoma_infer.verification.verify import Verification


def verify(
    bundle: Annotated[
        str, typer.Argument(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")
    ] = "demo",
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine; repeat for more.  [default: all]")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Only this precision; repeat for more.  [default: all]")
    ] = None,
    slide: Annotated[Path | None, typer.Option(metavar="SLIDE", help="Its tiles, in place of drawn ones.")] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="What your own code gave for the slide: minx,miny,width,height,prob_<class>."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the pictures of --expected.")] = Path("mminfer-verify"),
    drawn: Annotated[int, typer.Option(min=1, help="Drawn slides.")] = 8,
    tile_um: Annotated[
        float | None, typer.Option(help="Side of the slide's tiles in µm.  [default: the card's]")
    ] = None,
    mpp: Annotated[str | None, typer.Option(help="µm per level-0 pixel, X or X,Y, in place of the slide's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.  [default: the cores there are]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or a device that the engine knows.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Compare every engine and precision with the reference on the same tiles; exit 22 if one exceeds its tolerance."""
    from melanoma_infer.bundle.bundle import open_bundle

    opened = open_bundle(bundle)
    settings = _settings(tile_um, mpp)
    if expected is not None:
        if slide is None:
            raise UsageError("--expected needs --slide: the slide that your code gave these numbers for.")
        _compare_with(opened, slide, expected, out, settings, engine or [], precision or [], threads, device, json=json)
        return
    sample = _sample(opened, slide, settings, drawn, threads)
    _verify(opened, bundle, sample, engine or [], precision or [], threads, device, json=json)


def _verify(
    bundle: Bundle,
    source: str,
    sample: Sample,
    engines: list[str],
    precisions: list[str],
    threads: int | None,
    device: str | None,
    *,
    json: bool,
) -> None:
    import json as json_module

    from melanoma_infer.verification.verify import Verifier, wanted_pairs

    pairs = wanted_pairs(bundle, engines, precisions)
    if not pairs:
        raise EngineUnavailableError("The bundle has nothing that this engine runs. Leave --engine out.")
    verifier = Verifier(bundle, source, sample, threads, device, tell=(lambda _line: None) if json else note)
    table = verifier.run(pairs)
    if json:
        say(json_module.dumps(_as_json(bundle, table)))
    else:
        _show(bundle, table)
    missing = [each for each in table.unavailable if each.engine in engines]
    if not table.passed:
        names = ", ".join(f"{row.engine} {row.precision}" for row in table.rows if not row.passed)
        raise ParityError(f"Beyond the tolerance: {names}. `--engine auto` skips what failed; do not name it.")
    if missing:
        raise EngineUnavailableError(f"{missing[0].engine} {missing[0].precision} was not verified. {missing[0].why}")


def _sample(bundle: Bundle, slide: Path | None, settings: Settings, drawn: int, threads: int | None) -> Sample:
    from melanoma_infer.runtime.cores import available_cores
    from melanoma_infer.verification.sample import drawn_sample, slide_sample

    if slide is None:
        return drawn_sample(bundle, drawn)
    return slide_sample(bundle, slide, settings, threads=threads or available_cores())


def _settings(tile_um: float | None, mpp: str | None) -> Settings:
    from pydantic import ValidationError

    from melanoma_infer.patients.manifest import parse_scale
    from melanoma_infer.settings import Settings

    try:
        return Settings(tile_um=tile_um, mpp_um=parse_scale(mpp) if mpp else None)
    except ValidationError as error:
        raise UsageError(f"--tile-um, --mpp: {error.errors(include_url=False)[0]['msg']}") from error


def _as_json(bundle: Bundle, table: Verification) -> dict[str, object]:
    return {
        "bundle": bundle.name,
        "digest": bundle.digest,
        "reference": table.reference,
        "on": table.on,
        "passed": table.passed,
        "kept": table.kept,
        "rows": [row.model_dump() for row in table.rows],
        "unavailable": [vars(each) for each in table.unavailable],
    }


COLUMNS = ("engine", "max |Δp|", "p99.9", "mean", "features", "Δlogit", "Δmm", "Δattention", "CAM", "flips", "")


def _show(bundle: Bundle, table: Verification) -> None:
    """The table on the terminal, aligned and without colours in a pipe."""
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
        console.width = 200  # a pipe has no width, and nothing may be cut
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


def _compare_with(
    bundle: Bundle,
    slide: Path,
    expected: Path,
    out: Path,
    settings: Settings,
    engines: list[str],
    precisions: list[str],
    threads: int | None,
    device: str | None,
    *,
    json: bool,
) -> None:
    import json as json_module

    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.verification.expected import compare_with_expected
    from melanoma_infer.verification.pictures import write_pictures

    if len(engines) > 1 or len(precisions) > 1:
        raise UsageError("--expected compares with one engine at one precision: give each once.")
    named = precisions[0] if precisions else None
    scorer = Scorer(bundle, engines[0] if engines else "auto", precision=named, threads=threads, device=device)
    found = compare_with_expected(scorer, slide, expected, settings)
    page = write_pictures(out, found)
    if json:
        say(json_module.dumps(found.as_json() | {"pictures": str(page)}))
    else:
        _show_comparison(found, page)
    if not found.passed:
        raise ParityError(
            f"Your numbers differ by {found.mean_dp:.2g} on average (limit {found.mean_limit:g}). {found.diagnosis}"
        )


def _show_comparison(found: Comparison, page: Path) -> None:
    say(f"{found.matched} of {found.given} of your tiles compared, {found.on_grid} of them on the toolkit's own grid")
    say(f"|Δp|: mean {found.mean_dp:.2g}, max {found.max_dp:.2g}")
    for remark in found.remarks:
        note(remark)
    say(found.diagnosis)
    say(str(page))
