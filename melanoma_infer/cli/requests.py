"""From slides, manifest and options to requests: one for each slide, with everything that was stated about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_infer.cli.console import note, plural
from melanoma_infer.errors import UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.patients.manifest import Manifest, ManifestRow
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides.choice import ReaderChoice


def checked_settings(mpp: str | tuple[float, float] | None, **values: Any) -> Settings:
    """Settings from the values of options; `mpp` as typed, or as a pair in µm.

    Raises:
        UsageError: a value is out of range.
    """
    from pydantic import ValidationError

    from melanoma_infer.patients.manifest import parse_scale
    from melanoma_infer.settings import Settings

    try:
        return Settings(mpp_um=parse_scale(mpp) if isinstance(mpp, str) else mpp, **values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = f"--{problem['loc'][0]}".replace("_", "-")
        raise UsageError(f"{option} {problem['input']} {problem['msg'].removeprefix('Input ')}.") from error


@dataclass(frozen=True)
class SlideOptions:
    """Which slides to score, and what the options say about all of them."""

    paths: Sequence[Path]
    manifest: Path | None
    reader: ReaderChoice
    mpp: str | None
    tile_um: float | None
    stride_um: float | None
    tissue: str
    aggregate: str | None
    stain: str | None
    specimen: str | None

    def settings(self, row: ManifestRow | None = None) -> Settings:
        """The settings for one slide: where its manifest row states a value, that value replaces the option's.

        Raises:
            UsageError: a value is out of range.
            PatientValueError: the stain or the specimen is none of the known ones.
        """
        from melanoma_infer.patients.patient import stated_specimen, stated_stain

        mpp_um, stain, specimen = (row.mpp_um, row.stain, row.specimen) if row else (None, None, None)
        return checked_settings(
            mpp_um or self.mpp,
            tile_um=self.tile_um,
            stride_um=self.stride_um,
            tissue=self.tissue,
            aggregate=self.aggregate,
            stain=stain or (stated_stain(self.stain) if self.stain else None),
            specimen=specimen or (stated_specimen(self.specimen) if self.specimen else None),
        )


@dataclass(frozen=True)
class PatientOptions:
    """The patient values given as options, and whether they may be written to files."""

    values: dict[str, str]
    in_output: bool


def slide_requests(slides: SlideOptions, patient: PatientOptions, bundle: Bundle) -> list[SlideRequest]:
    """One request per slide.

    Raises:
        UsageError: there is no slide, or the options contradict each other.
        PatientValueError: a patient value is not in the card's vocabulary.
    """
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.patients.manifest import read_manifest
    from melanoma_infer.patients.patient import strict_patient
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.runtime.privacy import slide_name
    from melanoma_infer.slides.search import find_slides

    if slides.manifest is not None and patient.values:
        raise UsageError("Give patient values either in a manifest (--patients) or as options, not both.")
    manifest = read_manifest(slides.manifest, bundle.card) if slides.manifest else None
    if not slides.paths and manifest is None:
        raise UsageError("No slide was given. Give a slide, a folder or a manifest (--patients): mminfer score SLIDE")
    found = find_slides(slides.paths or [row.path for row in manifest.rows] if manifest else slides.paths)
    if any(os.path.isdir(path) for path in slides.paths):
        unread = f", and {plural(found.unread, 'path')} that cannot be read" if found.unread else ""
        note(f"{plural(len(found.paths) - found.unread, 'slide')} in {plural(found.files, 'file')}{unread}")
    if manifest is not None:
        return _from_manifest(found.paths, manifest, slides, patient, bundle)
    stated = strict_patient(patient.values, bundle.card.patient_fields) if patient.values else None
    settings = slides.settings()
    cases = [SlideCase(slide_name(path), None, stated, patient.in_output) for path in found.paths]
    return [SlideRequest(path, case, settings, slides.reader) for path, case in zip(found.paths, cases, strict=True)]


def _from_manifest(
    paths: Sequence[Path], manifest: Manifest, slides: SlideOptions, patient: PatientOptions, bundle: Bundle
) -> list[SlideRequest]:
    """Requests with the values of the manifest; a slide without a row gets an unknown patient and a warning."""
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.patients.patient import lenient_patient
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.runtime.privacy import slide_name

    for column, count in sorted(manifest.misread.items()):
        note(f"manifest: column {column}: {plural(count, 'value')} not understood and treated as unknown")
    unknown, _ = lenient_patient({}, bundle.card.patient_fields)
    requests: list[SlideRequest] = []
    for path in paths:
        row = manifest.row_of(path)
        if row is None:
            case = SlideCase(slide_name(path), None, unknown, patient.in_output, ("not in the manifest",))
        else:
            warnings = tuple(f"{column} was not understood and is treated as unknown" for column in row.misread)
            case = SlideCase(row.id, row.case_id, row.patient, patient.in_output, warnings)
        requests.append(SlideRequest(path, case, slides.settings(row), slides.reader))
    if missing := sum(manifest.row_of(path) is None for path in paths):
        note(f"manifest: {plural(missing, 'slide')} without a row; their patients are treated as unknown")
    return requests
