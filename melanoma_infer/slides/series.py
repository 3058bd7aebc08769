"""The files of a DICOM series: which are read together, and whether they are one whole slide."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.slides.completeness import COPY_AGAIN
from melanoma_infer.slides.dicom import WHOLE_SLIDE, DicomFacts, dicom_facts, dicom_series

WIDTH_TOLERANCE = 0.1
"""Levels of one slide are equally wide in mm but for rounding to pixels and cropped edges."""
NO_BASE = "The full-resolution image of this slide is not beside its other files: a reduced one is used in its place."
UNKNOWN_FILE = "A DICOM file beside this slide cannot be read, and may belong to it."
OWN_FRAMES = "The levels of this slide name different FrameOfReferenceUIDs: they may be of different scans."

FactsOf = tuple[Path, DicomFacts]


def series_files(path: Path) -> list[Path]:
    """The files of a DICOM file's study and series in its folder, sorted: itself alone if it has no series."""
    own = dicom_series(path)
    if own is None:
        return [path]
    return [file for file, facts in _beside(path) if (facts.study, facts.series) == own]


def require_one_slide(path: Path) -> None:
    """Require that the files which OpenSlide reads together with a DICOM file are one whole slide.

    OpenSlide takes all whole-slide images of the folder with the file's SeriesInstanceUID as levels of one slide,
    whatever their study and patient, and leaves out those it cannot read. Files that name no patient or container
    (anonymised ones) contradict no other.

    Raises:
        SlideUnreadableError: one of them is damaged, or does not say where its tiles are; two of them name different
            studies, patients, containers or scans, or are not equally wide; or the one in full resolution is missing,
            and a file of the folder cannot be read.
        SlideFormatError: one shows the slide in several kinds of light.
    """
    read = _read_together(path)
    for file, facts in read:
        _require_readable(file, facts, is_own=file == path)
    if found := _contradiction(read):
        one, other, tag = found
        raise SlideUnreadableError(
            f"{'This file' if one == path else one.name} and {other.name} have the same SeriesInstanceUID but a "
            f"different {tag}: they are not of one slide, and reading them together would mix their pixels. Put the "
            "files of each slide into a folder of their own.",
            names=(other.name,) if one == path else (one.name, other.name),
        )
    if _lacks_base(read) and (unknown := _unknown(path)):
        raise SlideUnreadableError(
            f"{unknown[0].name}, a DICOM file beside this one, is damaged or incomplete, and it may be the "
            f"full-resolution image of this slide, which is missing. {COPY_AGAIN}",
            names=(unknown[0].name,),
        )


def series_doubts(path: Path) -> tuple[str, ...]:
    """What a reader of the result must know about the files of a DICOM slide that `require_one_slide` accepts."""
    read = _read_together(path)
    volumes = [facts for _, facts in read if facts.is_volume]
    is_marked = len({facts.is_resampled for facts in volumes}) == 2  # the base is known by its mark, and there
    doubts = {
        NO_BASE: _lacks_base(read),
        UNKNOWN_FILE: bool(volumes) and not is_marked and bool(_unknown(path)),
        OWN_FRAMES: len({facts.frame for facts in volumes if facts.frame}) > 1,
    }
    return tuple(text for text, holds in doubts.items() if holds)


def spread_series(slides: Iterable[Path]) -> dict[Path, SlideUnreadableError]:
    """The errors to raise for those slides that are parts of one DICOM slide in different folders.

    Copies of a series are not parts of it, and nor are images that contradict each other, or have the same size.
    """
    of_series: dict[tuple[str, str], list[Path]] = {}
    for slide in slides:
        if series := dicom_series(slide):
            of_series.setdefault(series, []).append(slide)
    return {
        one: SlideUnreadableError(
            f"Other files of this DICOM series are in another folder ({other.parent.name}/). Copy all files of the "
            "slide into one folder.",
            names=(f"{other.parent.name}/",),
        )
        for same in of_series.values()
        for one, other in permutations(same, 2)
        if _are_parts(one, other)
    }


def _are_parts(one: Path, other: Path) -> bool:
    """Whether two folders hold different levels of one slide."""
    ours, theirs = (
        {facts.instance or str(file): (file, facts) for file, facts in _read_together(path) if facts.is_volume}
        for path in (one, other)
    )
    if not ours or not theirs or ours.keys() == theirs.keys():
        return False
    levels = list((ours | theirs).values())
    sizes = {facts.size_px for _, facts in levels}
    return len(sizes) == len(levels) and _contradiction(levels) is None


def _require_readable(file: Path, facts: DicomFacts, *, is_own: bool) -> None:
    """Raise SlideUnreadableError or SlideFormatError for an image that OpenSlide would crash on or read in part."""
    if not facts.is_whole:
        which = "The DICOM file" if is_own else f"{file.name}, which belongs to this slide,"
        raise SlideUnreadableError(f"{which} is damaged or incomplete. {COPY_AGAIN}", names=(file.name,))
    if not facts.is_placed:
        raise SlideUnreadableError(
            f"{file.name} does not say where its tiles are (TILED_SPARSE without positions). Export it again.",
            names=(file.name,),
        )
    if facts.optical_paths > 1 and facts.is_volume:
        raise SlideFormatError(
            f"{file.name} has {facts.optical_paths} optical paths, such as colours of fluorescence, and only one could "
            "be read. Export the slide with one optical path, in RGB.",
            names=(file.name,),
        )


def _contradiction(read: Sequence[FactsOf]) -> tuple[Path, Path, str] | None:
    """Two files that are not of one slide, and the tag that shows it; None if all may be.

    All pairs are compared, because a file may name no patient. The standard wants one FrameOfReferenceUID for all
    levels, but some writers give each level its own. So other frames are other scans only where levels share a frame,
    or where two are in full resolution.
    """
    frames = Counter(facts.frame for _, facts in read if facts.is_volume and facts.frame)
    is_shared = max(frames.values(), default=0) > 1
    for (one, facts), (other, others) in combinations(read, 2):
        if tag := _differing(facts, others, frames_shared=is_shared):
            return one, other, tag
    return None


def _differing(one: DicomFacts, other: DicomFacts, *, frames_shared: bool = False) -> str | None:
    """The tag that shows that two files are not of one slide; None if they may be."""
    if one.study != other.study:
        return "StudyInstanceUID"
    if one.patient_id != other.patient_id and one.patient_id and other.patient_id:
        return "PatientID"
    if one.container != other.container and one.container and other.container:
        return "ContainerIdentifier"
    widths = [facts.width_mm for facts in (one, other) if facts.width_mm and facts.is_volume]
    if len(widths) == 2 and max(widths) > min(widths) * (1 + WIDTH_TOLERANCE):
        return "width in mm"
    frames = {facts.frame for facts in (one, other) if facts.frame and facts.is_volume}
    if len(frames) == 2 and (frames_shared or not (one.is_resampled or other.is_resampled)):
        return "FrameOfReferenceUID"
    return None


def _lacks_base(read: Sequence[FactsOf]) -> bool:
    """Whether all images of the scan were made from one of higher resolution, which is not among them."""
    volumes = [facts for _, facts in read if facts.is_volume]
    return bool(volumes) and all(facts.is_resampled for facts in volumes)


def _unknown(path: Path) -> list[Path]:
    """The DICOM files of the folder that may belong to a file's slide: what they say of themselves is lost."""
    own = dicom_facts(path)
    return [
        file
        for file, facts in _beside(path)
        if own and file != path and facts.series is None and facts.kind in (WHOLE_SLIDE, "")
        if _differing(replace(facts, study=facts.study or own.study), own) is None
    ]


def _read_together(path: Path) -> list[FactsOf]:
    """The whole-slide images that OpenSlide reads together with a DICOM file, which comes first; none for others."""
    own = dicom_facts(path)
    if own is None or own.kind != WHOLE_SLIDE:
        return []
    others = [
        (file, facts)
        for file, facts in _beside(path)
        if file != path and own.series and facts.series == own.series and facts.kind == WHOLE_SLIDE
    ]
    return [(path, own), *others]


def _beside(path: Path) -> list[FactsOf]:
    """The DICOM files of a file's folder, sorted; itself alone if the folder may be entered but not listed."""
    try:
        files = sorted(path.parent / name for name in os.listdir(path.parent))
    except OSError:
        files = [path]
    return [(file, facts) for file in files if (facts := dicom_facts(file))]
