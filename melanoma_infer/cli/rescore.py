"""`mminfer rescore`: score a finished slide again with other patient values or a measured thickness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, patient_values, say

NEEDS_THE_SLIDE = ("overlay.png", "heatmap.png", "report.html")
"""Reports drawn from the slide, which is not opened here. The first ones stay valid, because outlines do not change."""


def rescore(
    folder: Annotated[Path, typer.Argument(help="The folder that `score` wrote for one slide.")],
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

    Patient values that are not given are unknown. The new result goes into a subfolder: rescored-1, rescored-2, ….
    """
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.patients.patient import strict_patient
    from melanoma_infer.pipeline.rescore import free_place
    from melanoma_infer.pipeline.rescore import rescore as rescored
    from melanoma_infer.reports import result_json
    from melanoma_infer.reports.output import REPORTS, OutputFolder
    from melanoma_infer.reports.words import finding

    old = result_json.read(folder / "result.json")
    opened = open_bundle(bundle or (old.bundle.name if old else "demo"))
    given = patient_values(patient or [], age=age, sex=sex, site=site, ulceration=ulceration)
    known = strict_patient(given, opened.card.patient_fields)
    result = rescored(folder, opened, known, breslow_mm=breslow_mm)
    with OutputFolder(folder.parent) as out:
        place = free_place(folder)
        out.write(place, result, {name: render for name, render in REPORTS.items() if name not in NEEDS_THE_SLIDE})
    if json:
        say(result_json.render_line(result))
        return
    say(f"{result.id}: {finding(result)}")
    say(f"  {place}")
    if old is not None:
        note(f"verdict before: {old.verdict}; now: {result.verdict}")
