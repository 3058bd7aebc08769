"""`mminfer rescore`: a finished result with other patient values, or with a measured thickness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melanoma_infer.cli.console import note, patient_values, say

NEEDS_THE_SLIDE = ("overlay.png", "heatmap.png", "report.html")
"""These are drawn from the slide, which is not opened here. The first score's stay valid: outlines do not change."""


def rescore(
    folder: Annotated[Path, typer.Argument(help="The folder that `score` wrote for one slide.")],
    bundle: Annotated[str | None, typer.Option(help="The bundle it was scored with.  [default: the result's]")] = None,
    age: Annotated[str | None, typer.Option(help="Patient's age in years.")] = None,
    sex: Annotated[str | None, typer.Option(help="Patient's sex.")] = None,
    site: Annotated[str | None, typer.Option(help="Site of the lesion.")] = None,
    ulceration: Annotated[str | None, typer.Option(help="yes, no or unknown.")] = None,
    patient: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Another patient field.")] = None,
    breslow_mm: Annotated[
        float | None, typer.Option(help="A measured Breslow thickness in mm, in place of the estimate.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Score a finished slide again for another patient, exactly and without the slide; outlines stay.

    Values that are not given are unknown. The new result stands beside the old, in rescored-1, rescored-2, ….
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
        note(f"verdict {old.verdict} before, {result.verdict} now")
