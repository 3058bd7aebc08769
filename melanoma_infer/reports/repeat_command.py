"""The command that gives a result again, without anything that could name a file or a patient."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from melanoma_infer.card import UNKNOWN, ModelCard
from melanoma_infer.reports import words
from melanoma_infer.reports.plain_text import plain
from melanoma_infer.result import PatientOut, SlideResult

MEASURED = "Breslow_mm"
PATIENT_OPTIONS = {name: f"--{name}" for name in ("age", "sex", "site", "ulceration")} | {MEASURED: "--breslow-mm"}


def repeat_command(result: SlideResult, card: ModelCard | None) -> str:
    """The command line; SLIDE, MASK and names in capitals stand for paths and patient values, which it never shows."""
    again = result.patient is not None and result.patient.breslow_mm is not None
    options = [*(() if again else options_of_settings(result, card)), *_patient_options(result.patient)]
    begin = ["mminfer", "rescore", "FOLDER"] if again else ["mminfer", "score", "SLIDE"]
    return " ".join([*begin, "--bundle", *(shlex.quote(part) for part in (plain(result.bundle.name), *options))])


def known_patient_values(patient: PatientOut | None) -> list[tuple[str, str]]:
    """The patient values that are known, as (name, value); ulceration and a measured thickness come last."""
    if patient is None:
        return []
    values = {**patient.values, "ulceration": patient.ulceration}
    if patient.breslow_mm is not None:
        values[MEASURED] = f"{words.mm(patient.breslow_mm)} (measured)"
    return [(name, value) for name, value in values.items() if value != UNKNOWN]


def options_of_settings(result: SlideResult, card: ModelCard | None) -> Iterator[str]:
    """The options of model, engine and tiles whose values differ from the defaults."""
    geometry, scale, numerics = result.geometry, result.scale, result.numerics
    if numerics.engine != "openvino":
        yield from ("--engine", plain(numerics.engine))
    if card is None or numerics.precision != card.precision:
        yield from ("--precision", numerics.precision)
    if scale.source == "override":
        yield from ("--mpp", f"{scale.x_um_per_px:g},{scale.y_um_per_px:g}")
    if card is None or geometry.tile_um != card.tile_side_um:
        yield from ("--tile-um", f"{geometry.tile_um:g}")
    if geometry.stride_um != geometry.tile_um:
        yield from ("--stride-um", f"{geometry.stride_um:g}")
    if geometry.tissue_source != "found":
        yield from ("--tissue", "all" if geometry.tissue_source == "all" else "MASK")
    if card is None or geometry.aggregator != card.aggregator.kind:
        yield from ("--aggregate", plain(geometry.aggregator))
    for option, stated in (("--stain", result.stain), ("--specimen", result.specimen)):
        if stated is not None:
            yield from (option, plain(stated))


def _patient_options(patient: PatientOut | None) -> Iterator[str]:
    """An option for each known value, with the name of the value in capitals in its place."""
    for name, _ in known_patient_values(patient):
        short = plain(name, 40)
        known = PATIENT_OPTIONS.get(short)
        yield from (known, short.upper()) if known else ("--patient", f"{short}=VALUE")
