"""The output folder: locked by one run. Files are written under another name and renamed; result.json comes last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from melanoma_infer.errors import OutputError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import Patient
from melanoma_infer.records import Identity
from melanoma_infer.reports import (
    heatmap,
    overlay,
    regions_geojson,
    report_html,
    result_json,
    tiles_csv,
    tiles_geojson,
    tiles_npz,
)
from melanoma_infer.result import SlideResult
from melanoma_infer.runtime import files
from melanoma_infer.runtime.privacy import folder_name
from melanoma_infer.slides.base import Closing

LOCK = ".lock"
LOCK_SECONDS = 2.0
"""How long to wait for the lock: a run that was killed holds it until its worker process is gone too."""
RESULT = "result.json"
RENDERERS = 2
"""Reports drawn in parallel: on 2 cores, two took two thirds of the time of one. Each keeps a picture in memory."""

Report = Callable[[SlideResult], bytes]

REPORTS: dict[str, Report] = {
    "report.html": report_html.render,
    "tiles.csv": tiles_csv.render,
    "tiles.geojson": tiles_geojson.render,
    "regions.geojson": regions_geojson.render,
    "tiles.npz": tiles_npz.render,
    "heatmap.png": heatmap.render,
    "overlay.png": overlay.render,
    RESULT: result_json.render,
}
"""In the order of writing: the slowest to draw first, and last result.json, the commit record."""


class OutputFolder(Closing):
    """An output folder to which no other run writes at the same time.

    Raises:
        OutputError: it cannot be created or written, or another run holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide_of: dict[Path, Path] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / LOCK)
            self._lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise OutputError(
                "Another run is writing to this output folder. Wait until it ends, or choose another --out."
            ) from error
        except OSError as error:
            raise _output_error(error) from error

    def close(self) -> None:
        """Release the folder for other runs."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def folder_of(self, slide: Path, case: SlideCase, digest: str) -> Path:
        """The folder for the files of one slide: `<id>-<digest8>`, or the first of -2, -3, … that can be its own.

        The same bytes may be filed for two patients, so a folder is not used by a second slide of this run, and not
        where it holds the result of another case or patient.
        """
        name = folder_name(case.id, digest)
        folder, number = self.path / name, 1
        while not self._may_use(folder, slide, case):
            number += 1
            folder = self.path / f"{name}-{number}"
        self._slide_of[folder] = slide
        return folder

    def _may_use(self, folder: Path, slide: Path, case: SlideCase) -> bool:
        """Whether no other slide of this run uses the folder, and no other case's or patient's result is in it."""
        old = result_json.read(folder / RESULT)
        is_free = self._slide_of.get(folder, slide) == slide
        if old is None or not is_free:
            return is_free
        # The patient is compared as far as the case may be written.
        written = case.patient if case.patient_in_output else None
        patient = old.patient and Patient(old.patient.values, old.patient.ulceration)
        return (old.id, old.case_id, patient) == (case.id, case.case_id, written)

    def finished(self, folder: Path, identity: Identity, settings_digest: str | None) -> SlideResult | None:
        """The result in the folder if it is complete and for the same slide, bundle and settings; else None."""
        result = result_json.read(folder / RESULT)
        if result is None or settings_digest is None:
            return None
        same = (
            result.slide.digest == identity.digest
            and result.slide.mtime_ns == identity.mtime_ns
            and result.settings_digest == settings_digest
            and all((folder / name).is_file() for name in REPORTS)
        )
        return result if same else None

    def write(self, folder: Path, result: SlideResult, reports: Mapping[str, Report] | None = None) -> None:
        """Write the reports of a slide (None: all of them). The slide counts as finished once result.json exists.

        Raises:
            OutputError: a file cannot be written.
        """
        try:
            folder.mkdir(exist_ok=True)
            (folder / RESULT).unlink(missing_ok=True)
        except OSError as error:
            raise _output_error(error) from error
        reports = reports or REPORTS
        with ThreadPoolExecutor(RENDERERS, "mminfer-render") as pool:
            contents = pool.map(lambda render: render(result), reports.values())
            for name, content in zip(reports, contents, strict=True):
                write_atomically(folder / name, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of the output folder atomically.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        files.write_atomically(path, content)
    except OSError as error:
        raise _output_error(error) from error


def _output_error(error: OSError) -> OutputError:
    why = error.strerror or type(error).__name__
    return OutputError(f"The output folder cannot be written ({why}). Free some space, or choose another --out.")
