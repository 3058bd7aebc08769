"""`mminfer rescore`: score a finished slide again with other patient values or a measured thickness."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, patient_values, say, say_json


def rescore(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(parser=opt.named_path, metavar="FOLDER", help="The folder that `score` wrote for one slide."),
    ],
    bundle: Annotated[
        str | None, typer.Option(help="The bundle that the slide was scored with.  [default: the one in the result]")
    ] = None,
    age: opt.AgeOption = None,
    sex: opt.SexOption = None,
    site: opt.SiteOption = None,
    ulceration: opt.UlcerationOption = None,
    patient: opt.PatientOption = None,
    breslow_mm: Annotated[
        float | None, typer.Option(help="A measured Breslow thickness in mm, used in place of the model's estimate.")
    ] = None,
    json: opt.JsonOption = False,
) -> None:
    """Score a finished slide again for another patient: exactly, and without the slide. Outlines stay the same.

    Patient values that are not given are unknown. The new result has a folder of its own beside the old one.
    """
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.patients.patient import strict_patient
    from melanoma_infer.pipeline.rescore import write_rescored
    from melanoma_infer.reports import result_json
    from melanoma_infer.reports.outcome_json import outcome_json
    from melanoma_infer.reports.words import finding
    from melanoma_infer.runtime.privacy import redacted_argv

    old = result_json.read(folder / "result.json")
    opened = open_bundle(bundle or (old.bundle.name if old else "demo"))
    given = patient_values(patient or [], age=age, sex=sex, site=site, ulceration=ulceration)
    known = strict_patient(given, opened.card.patient_fields)
    command = redacted_argv(sys.argv[1:], {name for param in context.command.params for name in param.opts})
    outcome = write_rescored(folder, opened, known, breslow_mm=breslow_mm, command=command)
    assert outcome.result is not None
    if json:
        say_json(outcome_json(outcome))
        return
    say(f"{outcome.id}{' (already there)' if outcome.skipped else ''}: {finding(outcome.result)}")
    say(f"  {outcome.folder}")
    if old is not None:
        note(f"verdict before: {old.verdict}; now: {outcome.result.verdict}")
