"""From slides, manifest and options to requests: one for each slide, with everything that was stated about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_infer.cli.console import note
from melanoma_infer.errors import PatientValueError, UsageError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.card import ModelCard
    from melanoma_infer.patients.manifest import Manifest, ManifestRow
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides.choice import ReaderChoice
    from melanoma_infer.slides.members import MemberState


def checked_settings(mpp: str | tuple[float, float] | None, **values: Any) -> Settings:
    """Settings from the values of options; `mpp` as typed, or as a pair in µm.

    Raises:
        UsageError: a value is out of range.
    """
    from pydantic import ValidationError

    from melanoma_infer.patients.numbers import parse_scale
    from melanoma_infer.settings import Settings

    try:
        return Settings(mpp_um=parse_scale(mpp) if isinstance(mpp, str) else mpp, **values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = f"--{problem['loc'][0]}".replace("_", "-")
        raise UsageError(f"{option} {problem['input']} {problem['msg'].removeprefix('Input ')}.") from error


NAMED_MAX = 5
"""Skipped files that are named on the terminal."""
SAME_BYTES = "another slide of this run holds the same bytes: check that each is filed for the right patient"
"""The warning in both results; with --hide-names it must not name the other slide, so it never does."""


@dataclass(frozen=True)
class SlideOptions:
    """Which slides to score, and what the options say about all of them."""

    paths: Sequence[Path]
    reader: ReaderChoice
    mpp: str | None
    tile_um: float | None
    stride_um: float | None
    tissue: str
    aggregate: str | None
    stain: str | None
    specimen: str | None

    def require_mask(self) -> None:
        """Raise UsageError if --tissue names a mask that does not exist."""
        if self.tissue not in ("auto", "all") and not os.path.exists(self.tissue):
            raise UsageError("--tissue: there is no such file. Give the path of a mask, `auto` or `all`.")

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
            stain=stain or _stated("--stain", self.stain, stated_stain),
            specimen=specimen or _stated("--specimen", self.specimen, stated_specimen),
        )


def _stated(option: str, text: str | None, parse: Callable[[str], str | None]) -> str | None:
    """The word that an option states; the error of an unknown word names the option."""
    try:
        return parse(text) if text is not None else None
    except PatientValueError as error:
        raise PatientValueError(f"{option}: {error}") from error


@dataclass(frozen=True)
class PatientOptions:
    """What is said about the patients, as options or in a manifest, and what may be shown of it."""

    values: dict[str, str]
    manifest: Path | None
    strict: bool
    """Refuse a manifest of which something is not used or not understood."""
    in_output: bool
    """Whether patient values may be written to files."""
    hide_names: bool


def slide_requests(slides: SlideOptions, patient: PatientOptions, bundle: Bundle) -> list[SlideRequest]:
    """One request per slide.

    Raises:
        UsageError: there is no slide, or the options contradict each other.
        PatientValueError: a patient value is not in the card's vocabulary, or the manifest cannot be trusted.
    """
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.patients.patient import strict_patient
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.runtime.privacy import slide_name
    from melanoma_infer.slides.search import find_slides
    from melanoma_infer.slides.series import spread_series

    if patient.manifest is not None and patient.values:
        raise UsageError("Give patient values either in a manifest (--patients) or as options, not both.")
    if patient.strict and patient.manifest is None:
        raise UsageError("--strict checks a manifest, and none was given. Add --patients FILE.csv, or leave it out.")
    manifest = _manifest(patient, bundle.card) if patient.manifest else None
    if not slides.paths and manifest is None:
        raise UsageError("No slide was given. Give a slide, a folder or a manifest (--patients): mminfer score SLIDE")
    slides.require_mask()
    found = find_slides(slides.paths or [row.path for row in manifest.rows] if manifest else slides.paths)
    if any(os.path.isdir(path) for path in slides.paths):
        unread = f", and {plural(found.unread, 'path')} that cannot be read" if found.unread else ""
        note(f"{plural(len(found.paths) - found.unread, 'slide')} in {plural(found.files, 'file')}{unread}")
    if found.skipped:
        names = "" if patient.hide_names else f": {_kinds_named(found.skipped)}"
        note(f"skipped {plural(len(found.skipped), 'DICOM file')} of other kinds than slides{names}")
    if manifest is not None:
        requests = _from_manifest(found.paths, manifest, slides, patient, bundle)
    else:
        stated = strict_patient(patient.values, bundle.card.patient_fields) if patient.values else None
        settings = slides.settings()
        requests = [
            SlideRequest(path, SlideCase(slide_name(path), None, stated, patient.in_output), settings, slides.reader)
            for path in found.paths
        ]
    faults = spread_series(found.paths)
    requests = [replace(request, fault=faults.get(request.path)) for request in requests]
    return _with_duplicates_named(requests, hide_names=patient.hide_names)


def arrived_request(
    path: Path, present: Mapping[Path, Sequence[MemberState]], settings: Settings, reader: ReaderChoice
) -> SlideRequest:
    """The request for one slide of a watched folder, about whose patient nothing is known.

    Args:
        path: the slide.
        present: all slides in the folder, with their members.
        settings: what differs from the model card.
        reader: who decodes the tiles.
    """
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.runtime.privacy import slide_name
    from melanoma_infer.slides.duplicates import same_bytes
    from melanoma_infer.slides.series import spread_series

    sizes = {each: sum(member.size_bytes for member in members) for each, members in present.items()}
    alike = same_bytes([each for each, size in sizes.items() if size == sizes[path]])
    warnings = (SAME_BYTES,) if any(path in group for group in alike) else ()
    case = SlideCase(slide_name(path), warnings=warnings)
    return SlideRequest(path, case, settings, reader, spread_series(present).get(path))


def _kinds_named(files: Sequence[Path]) -> str:
    """The names of DICOM files with their kinds; of many, the first ones."""
    from melanoma_infer.slides.dicom import dicom_facts

    named = [f"{file.name} ({facts.kind_name})" for file in files[:NAMED_MAX] if (facts := dicom_facts(file))]
    more = [f"{len(files) - NAMED_MAX} more"] if len(files) > NAMED_MAX else []
    return ", ".join([*named, *more])


def _manifest(patient: PatientOptions, card: ModelCard) -> Manifest:
    """The manifest; what of it is not used is told, or with --strict refused."""
    from melanoma_infer.patients.manifest import read_manifest
    from melanoma_infer.pipeline.cohort import require_distinct_rows

    assert patient.manifest is not None
    manifest = read_manifest(patient.manifest, card)
    require_distinct_rows(manifest)
    if manifest.separator != "commas":
        note(f"manifest: its columns are separated by {manifest.separator}")
    if manifest.doubts and patient.strict:
        raise PatientValueError(
            "--strict: the manifest is refused.\n" + "\n".join(f"  {doubt}" for doubt in manifest.doubts)
        )
    for doubt in manifest.doubts:
        note(f"manifest: {doubt}")
    return manifest


def _from_manifest(
    paths: Sequence[Path], manifest: Manifest, slides: SlideOptions, patient: PatientOptions, bundle: Bundle
) -> list[SlideRequest]:
    """Requests with the values of the manifest; a slide without a row gets an unknown patient and a warning."""
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.patients.manifest import numbered
    from melanoma_infer.patients.patient import lenient_patient
    from melanoma_infer.pipeline.cohort import match_rows
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.runtime.privacy import slide_name

    unknown, _ = lenient_patient({}, bundle.card.patient_fields)
    taken = {row.id for row in manifest.rows}
    requests: list[SlideRequest] = []
    unlisted: list[str] = []
    matches = match_rows(paths, manifest)
    for path, match in zip(paths, matches, strict=True):
        if match is None:
            # The id of a row is its slide's alone.
            name = slide_name(path)
            own_id = f"{name}-not-in-manifest" if name in taken else name
            case = SlideCase(own_id, None, unknown, patient.in_output, ("not in the manifest",))
            unlisted.append(own_id)
        else:
            row = match.row
            warnings = [f"{column} was not understood and is treated as unknown" for column in row.misread]
            if match.by_name:
                note(f"manifest: the path on line {row.line} does not exist; a slide of that file name is used")
                warnings.insert(0, "found in the manifest by file name only: the path in the manifest does not exist")
            case = SlideCase(row.id, row.case_id, row.patient, patient.in_output, tuple(warnings))
        requests.append(SlideRequest(path, case, slides.settings(match.row if match else None), slides.reader))
    if unlisted:
        names = "" if patient.hide_names else f": {', '.join(unlisted)}"
        note(f"{plural(len(unlisted), 'slide')} not in the manifest, with all patient values unknown{names}")
    used = {match.row.line for match in matches if match}
    if left := [row.line for row in manifest.rows if row.line not in used]:
        note(f"manifest: no slide of this run belongs to {numbered(left)}")
    return requests


def _with_duplicates_named(requests: Sequence[SlideRequest], *, hide_names: bool) -> list[SlideRequest]:
    """The requests; those whose slides hold the same bytes are told, and have a warning."""
    from melanoma_infer.slides.duplicates import same_bytes

    warned: set[Path] = set()
    for group in same_bytes([request.path for request in requests]):
        ids = [request.case.id for request in requests if request.path in group]
        names = plural(len(ids), "slide") if hide_names else ", ".join(ids)
        note(f"warning: the same bytes are in {names}. Check that each slide is filed for the right patient.")
        warned.update(group)
    return [
        replace(request, case=replace(request.case, warnings=(*request.case.warnings, SAME_BYTES)))
        if request.path in warned
        else request
        for request in requests
    ]
