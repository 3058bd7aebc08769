"""`mminfer score`: one or many slides → results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, patient_values, progress_bar, say
from melanoma_infer.errors import BundleError, MminferError, RefusedError, UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.patients.manifest import Manifest
    from melanoma_infer.patients.patient import Patient
    from melanoma_infer.pipeline.request import RunOptions, SlideRequest
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.result import SlideOutcome
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides.choice import ReaderChoice

VERDICTS = ("suspected", "not-detected", "indeterminate", "not-configured")
SOME_FAILED = 3


@dataclass(frozen=True)
class _Typed:
    """What was typed beside the slides."""

    mpp: str | None
    tile_um: float | None
    stride_um: float | None
    tissue: str
    aggregate: str | None
    stain: str | None
    specimen: str | None
    patient: dict[str, str]
    patients: Path | None
    patient_in_output: bool
    reader: ReaderChoice


def score(
    context: typer.Context,
    slides: Annotated[list[Path] | None, typer.Argument(help="Slides, or folders that hold slides.")] = None,
    bundle: Annotated[
        str, typer.Option(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")
    ] = "demo",
    out: Annotated[Path, typer.Option(help="The folder for results.")] = Path("mminfer-results"),
    engine: Annotated[
        str, typer.Option(help="auto, openvino, triton, onnxruntime, torch, tensorrt or tensorrt-rtx.")
    ] = "auto",
    engine_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For tensorrt and tensorrt-rtx: what `mminfer export` built.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16, int8 or fastest.  [default: the card's]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.  [default: the cores there are]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or a device that the engine knows.")] = None,
    reader: Annotated[
        str, typer.Option(help="auto, openslide, or tiff: decode the slide's own JPEG tiles. No number depends on it.")
    ] = "auto",
    mpp: Annotated[str | None, typer.Option(help="µm per level-0 pixel, X or X,Y, in place of the slide's.")] = None,
    tile_um: Annotated[float | None, typer.Option(help="Side of a tile in µm.  [default: the card's]")] = None,
    stride_um: Annotated[
        float | None, typer.Option(help="Distance of tiles in µm.  [default: the tile's side]")
    ] = None,
    tissue: Annotated[str, typer.Option(help="auto, all, or the path of a mask image of the slide.")] = "auto",
    age: Annotated[str | None, typer.Option(help="Patient's age in years.")] = None,
    sex: Annotated[str | None, typer.Option(help="Patient's sex.")] = None,
    site: Annotated[str | None, typer.Option(help="Site of the lesion.")] = None,
    ulceration: Annotated[str | None, typer.Option(help="yes, no or unknown.")] = None,
    patient: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Another patient field.")] = None,
    specimen: Annotated[str | None, typer.Option(help="primary, re-excision, metastasis or other.")] = None,
    stain: Annotated[str | None, typer.Option(help="H&E, IHC, fluorescence or other.")] = None,
    patients: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="A manifest with one row a slide.")] = None,
    aggregate: Annotated[str | None, typer.Option(help="mean, max or top-area-mean.  [default: the card's]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo slides that are finished.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON, one a line, and nothing else.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.")] = False,
    fail_on: Annotated[
        list[str] | None, typer.Option(metavar="VERDICT", help=f"Exit 4 on a verdict: {', '.join(VERDICTS)}.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Draw the grid (grid.png) and score nothing.")] = False,
    require_tissue_model: Annotated[
        bool, typer.Option("--require-tissue-model", help="Refuse a bundle that knows only phantoms.")
    ] = False,
    hide_names: Annotated[bool, typer.Option("--hide-names", help="Digests in place of slide names.")] = False,
    no_patient_in_output: Annotated[
        bool,
        typer.Option(
            "--no-patient-in-output", help="Write no patient value, neither to result.json nor to the report."
        ),
    ] = False,
    full_digest: Annotated[bool, typer.Option("--full-digest", help="Identify slides by all their bytes.")] = False,
) -> None:
    """Score one or many slides. Finished slides of the same bundle and settings are skipped."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.pipeline.request import RunOptions
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.slides.choice import reader_choice

    refused = _verdicts(fail_on or [])
    typed = _Typed(
        mpp=mpp,
        tile_um=tile_um,
        stride_um=stride_um,
        tissue=tissue,
        aggregate=aggregate,
        stain=stain,
        specimen=specimen,
        patient=patient_values(patient or [], age=age, sex=sex, site=site, ulceration=ulceration),
        patients=patients,
        patient_in_output=not no_patient_in_output,
        reader=reader_choice(reader),
    )
    opened = open_bundle(bundle)
    if require_tissue_model and opened.card.domain != "tissue":
        raise BundleError(
            "This bundle knows only phantoms, and --require-tissue-model was given. Choose another --bundle."
        )
    requests = _requests(slides or [], typed, opened)
    if dry_run:
        _draw_grids(requests, opened, out, hide_names=hide_names)
        return
    scorer = Scorer(opened, engine, precision=precision, threads=threads, device=device, engine_file=engine_file)
    if not json:
        note(f"{opened.name} on {scorer.numerics}")
        for why in scorer.skipped:
            note(f"skipped {why}")
    outcomes = _run(
        requests,
        scorer,
        out,
        command=_shown_command(context),
        options=RunOptions(hide_names=hide_names, overwrite=overwrite, full_digest=full_digest),
        fail_fast=fail_fast,
        json=json,
    )
    _exit(outcomes, refused, len(requests))


def _run(
    requests: Sequence[SlideRequest],
    scorer: Scorer,
    out: Path,
    *,
    command: list[str],
    options: RunOptions,
    fail_fast: bool,
    json: bool,
) -> list[SlideOutcome]:
    """Score the slides, telling each one's outcome as soon as it is there."""
    from contextlib import closing

    from melanoma_infer.pipeline.flow import score_slides
    from melanoma_infer.reports.output import OutputFolder
    from melanoma_infer.reports.run_files import RunFiles

    outcomes: list[SlideOutcome] = []
    with (
        OutputFolder(out) as folder,
        RunFiles(out, scorer.bundle, scorer.numerics, command=command) as run,
        progress_bar() as progress,
        closing(score_slides(requests, scorer, folder, options=options, progress=progress)) as scored,
    ):
        for outcome in scored:
            run.add(outcome)
            outcomes.append(outcome)
            _tell(outcome, json=json)
            if fail_fast and outcome.exit_code:
                break
    return outcomes


def _shown_command(context: typer.Context) -> list[str]:
    """What was typed, without what could name a file or a patient."""
    from melanoma_infer.runtime.privacy import redacted_argv

    return redacted_argv(sys.argv[1:], {name for param in context.command.params for name in param.opts})


def _tell(outcome: SlideOutcome, *, json: bool) -> None:
    from melanoma_infer.reports import result_json
    from melanoma_infer.reports.words import finding, tiles_line

    if outcome.result is None:
        note(f"{outcome.id or 'a slide'}: failed at {outcome.stage!r} (exit {outcome.exit_code}): {outcome.message}")
    elif json:
        say(result_json.render_line(outcome.result))
    else:
        skipped = " (finished before; --overwrite redoes it)" if outcome.skipped else ""
        say(f"{outcome.id}{skipped}: {finding(outcome.result)}")
        say(f"  {tiles_line(outcome.result)}")
        say(f"  {outcome.folder}")


def _exit(outcomes: Sequence[SlideOutcome], refused: Sequence[str], asked: int) -> None:
    """End with the code that the outcomes call for; return when all is good."""
    failed = [outcome for outcome in outcomes if outcome.exit_code]
    if failed and asked > 1:
        note(f"{len(failed)} of {asked} slides failed: {', '.join(outcome.id or 'a slide' for outcome in failed)}")
        raise typer.Exit(SOME_FAILED)
    if failed:
        raise typer.Exit(failed[0].exit_code)
    if hit := [outcome for outcome in outcomes if outcome.result and outcome.result.verdict in refused]:
        raise RefusedError(f"{len(hit)} of {asked} slides have a verdict that --fail-on names.")


def _verdicts(names: Sequence[str]) -> list[str]:
    wanted = [name for text in names for name in text.split(",")]
    for name in wanted:
        if name not in VERDICTS:
            raise UsageError(f"--fail-on takes {', '.join(VERDICTS)}.")
    return wanted


def _requests(paths: Sequence[Path], typed: _Typed, bundle: Bundle) -> list[SlideRequest]:
    """The slides to score, each with what was said of it."""
    from melanoma_infer.patients.manifest import read_manifest
    from melanoma_infer.slides.members import find_slides

    if typed.patients is not None and typed.patient:
        raise UsageError("Give patient values either in a manifest (--patients) or as options, not both.")
    manifest = read_manifest(typed.patients, bundle.card) if typed.patients else None
    if not paths and manifest is None:
        raise UsageError("Give at least one slide, a folder with slides, or a manifest: mminfer score SLIDE")
    found = find_slides(paths or [row.path for row in manifest.rows] if manifest else paths)
    if any(path.is_dir() for path in paths):
        note(f"{len(found.paths)} slides in {found.files} files")
    if manifest is not None:
        return _from_manifest(found.paths, manifest, typed, bundle)
    from melanoma_infer.patients.patient import strict_patient

    patient = strict_patient(typed.patient, bundle.card.patient_fields) if typed.patient else None
    settings = _settings(typed)
    return [_request(path, path.stem, None, patient, settings, typed) for path in found.paths]


def _from_manifest(paths: Sequence[Path], manifest: Manifest, typed: _Typed, bundle: Bundle) -> list[SlideRequest]:
    from melanoma_infer.patients.patient import lenient_patient

    for column, count in sorted(manifest.misread.items()):
        note(f"manifest: {column} was not understood in {count} rows and counts as unknown there")
    requests: list[SlideRequest] = []
    missing = 0
    for path in paths:
        row = manifest.row_of(path)
        if row is None:
            missing += 1
            unknown = lenient_patient({}, bundle.card.patient_fields)[0]
            requests.append(_request(path, path.stem, None, unknown, _settings(typed), typed, "not in the manifest"))
            continue
        settings = _settings(typed, mpp_um=row.mpp_um, stain=row.stain, specimen=row.specimen)
        warnings = [f"{column} was not understood and counts as unknown" for column in row.misread]
        requests.append(_request(path, row.id, row.case_id, row.patient, settings, typed, *warnings))
    if missing:
        note(f"manifest: {missing} slides are not in it; their patients count as unknown")
    return requests


def _request(
    path: Path,
    slide_id: str,
    case_id: str | None,
    patient: Patient | None,
    settings: Settings,
    typed: _Typed,
    *warnings: str,
) -> SlideRequest:
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.pipeline.request import SlideRequest

    case = SlideCase(slide_id, case_id, patient, typed.patient_in_output, warnings)
    return SlideRequest(path, case, settings, typed.reader)


def _settings(
    typed: _Typed,
    *,
    mpp_um: tuple[float, float] | None = None,
    stain: str | None = None,
    specimen: str | None = None,
) -> Settings:
    """The settings of a slide: what a manifest row says, else what was typed.

    Raises:
        UsageError: a value is out of range.
    """
    from pydantic import ValidationError

    from melanoma_infer.patients.manifest import parse_scale
    from melanoma_infer.patients.patient import stated_specimen, stated_stain
    from melanoma_infer.settings import Settings

    try:
        return Settings.model_validate(
            {
                "mpp_um": mpp_um or (parse_scale(typed.mpp) if typed.mpp else None),
                "tile_um": typed.tile_um,
                "stride_um": typed.stride_um,
                "tissue": typed.tissue,
                "aggregate": typed.aggregate,
                "stain": stain or (stated_stain(typed.stain) if typed.stain else None),
                "specimen": specimen or (stated_specimen(typed.specimen) if typed.specimen else None),
            }
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        option = f"--{problem['loc'][0]}".replace("_", "-")
        raise UsageError(f"{option}: {problem['msg']}") from error


def _draw_grids(requests: Sequence[SlideRequest], bundle: Bundle, out: Path, *, hide_names: bool) -> None:
    """Write grid.png for every slide, and print what would be read."""
    from dataclasses import replace

    from melanoma_infer.reports import grid_picture
    from melanoma_infer.reports.output import OutputFolder, write_atomically
    from melanoma_infer.runtime.privacy import DIGEST_CHARS
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.plan import plan_slide

    failures: list[MminferError] = []
    with OutputFolder(out) as folder:
        for request in requests:
            try:
                with open_slide(request.path) as slide:
                    plan = plan_slide(slide, bundle.card, request.settings, reader=request.reader)
                picture = grid_picture.render(plan)
            except MminferError as error:
                failures.append(error)
                note(f"{'a slide' if hide_names else request.case.id}: (exit {error.exit_code}) {error}")
                continue
            digest = plan.identity.digest
            case = replace(request.case, id=digest[:DIGEST_CHARS]) if hide_names else request.case
            place = folder.folder_of(case.id, digest)
            place.mkdir(exist_ok=True)
            write_atomically(place / "grid.png", picture)
            say(
                f"{case.id}: {len(plan.tiles)} tiles of {plan.geometry.tile_um:g} µm, "
                f"{plan.tissue_mm2:.2f} mm² of tissue, read from level {plan.reading.level}\n  {place / 'grid.png'}"
            )
    if failures:
        raise typer.Exit(SOME_FAILED if len(requests) > 1 else failures[0].exit_code)
