"""`mminfer score`: score one or many slides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import detail, loudness, note, patient_values, say, say_error, say_json
from melanoma_infer.cli.requests import PatientOptions, SlideOptions, slide_requests
from melanoma_infer.cli.run_log import RunLog, run_log
from melanoma_infer.cli.running import score_and_record, tell_failure
from melanoma_infer.errors import BundleError, RefusedError, UsageError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.bundle.contents import Contents
    from melanoma_infer.pipeline.batch import Batch
    from melanoma_infer.pipeline.request import RunOptions, SlideRequest
    from melanoma_infer.pipeline.worker import LoadScorer
    from melanoma_infer.result import SlideOutcome

SOME_FAILED = 3
"""The exit code of a run over many slides in which some failed."""


@dataclass(frozen=True)
class EngineOptions:
    """Which engine computes, and how."""

    name: str
    precision: str | None
    threads: int | None
    device: str | None
    file: Path | None

    def loader(self, bundle: Bundle) -> LoadScorer:
        """What loads the bundle on this engine."""
        from melanoma_infer.pipeline.scorer import Scorer

        return partial(
            Scorer,
            bundle,
            self.name,
            precision=self.precision,
            threads=self.threads,
            device=self.device,
            engine_file=self.file,
        )


@dataclass(frozen=True)
class OutputOptions:
    """Where results go, what is printed, and which outcomes end the run with an error."""

    folder: Path
    json: bool
    dry_run: bool
    fail_fast: bool
    fail_on: Sequence[str]
    command: Sequence[str]
    """The command line without values that could name a file or a patient."""


def score(
    context: typer.Context,
    slides: opt.SlidesArgument = None,
    mpp: opt.MppOption = None,
    stain: opt.StainOption = None,
    specimen: opt.SpecimenOption = None,
    reader: opt.ReaderOption = "auto",
    full_digest: opt.FullDigestOption = False,
    patients: opt.PatientsOption = None,
    strict: opt.StrictOption = False,
    age: opt.AgeOption = None,
    sex: opt.SexOption = None,
    site: opt.SiteOption = None,
    ulceration: opt.UlcerationOption = None,
    patient: opt.PatientOption = None,
    tile_um: opt.TileUmOption = None,
    stride_um: opt.StrideUmOption = None,
    tissue: opt.TissueOption = "auto",
    bundle: opt.BundleOption = "demo",
    require_tissue_model: opt.RequireTissueModelOption = False,
    aggregate: opt.AggregateOption = None,
    engine: opt.EngineOption = "auto",
    engine_file: opt.EngineFileOption = None,
    precision: opt.PrecisionOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    dry_run: opt.DryRunOption = False,
    overwrite: opt.OverwriteOption = False,
    fail_fast: opt.FailFastOption = False,
    fail_on: opt.FailOnOption = None,
    out: opt.OutOption = Path("mminfer-results"),
    hide_names: opt.HideNamesOption = False,
    no_patient_in_output: opt.NoPatientOption = False,
    json: opt.JsonLinesOption = False,
    verbose: opt.VerboseOption = False,
    quiet: opt.QuietOption = False,
    log_json: opt.LogJsonOption = None,
) -> None:
    """Score one or many slides. Slides already finished with the same bundle and settings are skipped."""
    from melanoma_infer.bundle.contents import contents_ahead
    from melanoma_infer.runtime.privacy import redacted_argv

    command = redacted_argv(sys.argv[1:], {name for param in context.command.params for name in param.opts})
    with loudness(quiet=quiet, verbose=verbose), run_log(log_json) as log:
        output = OutputOptions(out, json, dry_run, fail_fast, _verdicts(fail_on or ()), command)
        values = patient_values(patient or [], age=age, sex=sex, site=site, ulceration=ulceration)
        with contents_ahead(bundle) as contents:
            # Imported while the bundle is read.
            from melanoma_infer.pipeline.request import RunOptions
            from melanoma_infer.slides.choice import reader_choice

            wanted = SlideOptions(
                slides or [], reader_choice(reader), mpp, tile_um, stride_um, tissue, aggregate, stain, specimen
            )
            opened = opened_bundle(contents.result(), require_tissue_model=require_tissue_model)
        told = PatientOptions(
            values, patients, strict=strict, in_output=not no_patient_in_output, hide_names=hide_names
        )
        requests = slide_requests(wanted, told, opened)
        compute = EngineOptions(engine, precision, threads, device, engine_file)
        _run(requests, opened, compute, output, RunOptions(hide_names, overwrite, full_digest), log)


def _verdicts(fail_on: Sequence[str]) -> list[str]:
    """The verdicts that --fail-on names.

    Raises:
        UsageError: there is no such verdict.
    """
    verdicts = [name for text in fail_on for name in text.split(",")]
    if unknown := [name for name in verdicts if name not in opt.VERDICTS]:
        raise UsageError(f"--fail-on {unknown[0]}: no such verdict. Choose from {', '.join(opt.VERDICTS)}.")
    return verdicts


def opened_bundle(contents: Contents, *, require_tissue_model: bool) -> Bundle:
    """The bundle of these files, of which a run checks what it uses.

    Raises:
        BundleError: it cannot be trusted, or was trained on phantoms only where a tissue model is required.
    """
    from melanoma_infer.bundle.bundle import parsed_bundle

    opened = parsed_bundle(contents, lazily=True)
    if require_tissue_model and opened.card.domain != "tissue":
        raise BundleError(
            f"The bundle {opened.name} was trained on phantoms only, and --require-tissue-model was given. "
            "Choose another --bundle."
        )
    return opened


def _run(
    requests: Sequence[SlideRequest],
    bundle: Bundle,
    compute: EngineOptions,
    output: OutputOptions,
    run_options: RunOptions,
    log: RunLog,
) -> None:
    """Score the slides or draw their grids, and end with the exit code of what happened."""
    log.event("slides-found", slides=len(requests))
    if output.dry_run:
        from melanoma_infer.cli.dry_run import draw_grids

        failures = draw_grids(requests, bundle, output.folder, hide_names=run_options.hide_names, json=output.json)
        if failures:
            raise typer.Exit(SOME_FAILED if len(requests) > 1 else failures[0].exit_code)
        return
    outcomes = score_and_record(
        requests,
        bundle,
        compute.loader(bundle),
        output.folder,
        command=output.command,
        options=run_options,
        tell=partial(tell_outcome, json=output.json),
        tell_engine=partial(tell_engine, bundle, json=output.json),
        fail_fast=output.fail_fast,
        log=log,
    )
    _exit(outcomes, output.fail_on, len(requests))


def tell_engine(bundle: Bundle, batch: Batch, *, json: bool) -> None:
    """Print what computes, what of it runs other than it should, and with --verbose which versions of what."""
    from melanoma_infer.runtime.provenance import machine, versions

    tell = detail if json else note
    tell(f"{bundle.name} on {batch.computing.numerics}")
    for why in batch.computing.skipped:
        tell(f"skipped {why}")
    for remark in batch.computing.remarks:
        tell(f"{batch.computing.numerics.engine}: {remark}")
    detail(f"bundle {bundle.digest[:12]}; {machine()['cores']} cores")
    detail(", ".join(f"{name} {version}" for name, version in versions().items()))


def tell_outcome(outcome: SlideOutcome, *, json: bool) -> None:
    """Print how a slide ended: its finding, or why it has none."""
    from melanoma_infer.reports.outcome_json import outcome_json
    from melanoma_infer.reports.words import finding, tiles_line

    if json:
        say_json(outcome_json(outcome))
    if outcome.result is None:
        tell_failure(outcome)
    elif not json:
        skipped = " (already finished; --overwrite scores it again)" if outcome.skipped else ""
        say(f"{outcome.id}{skipped}: {finding(outcome.result)}")
        say(f"  {tiles_line(outcome.result)}")
        say(f"  {outcome.folder}")


def _exit(outcomes: Sequence[SlideOutcome], fail_on: Sequence[str], asked: int) -> None:
    """End with the exit code that the outcomes call for; return if all is well."""
    failed = [outcome for outcome in outcomes if outcome.exit_code]
    if failed and asked > 1:
        say_error(f"{len(failed)} of {asked} slides failed: {', '.join(outcome.id or 'a slide' for outcome in failed)}")
        raise typer.Exit(SOME_FAILED)
    if failed:
        raise typer.Exit(failed[0].exit_code)
    if hit := [outcome for outcome in outcomes if outcome.result and outcome.result.verdict in fail_on]:
        raise RefusedError(f"--fail-on: {len(hit)} of {plural(asked, 'slide')} got a verdict that it names.")
