"""The result of a scan → the same folder and the same row of the summary as for a file."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline.run_parts import run_parts
from melanoma_infer.result import SlideOutcome, SlideResult
from melanoma_infer.settings import Settings
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.store.summary import Summary


def write_scan(
    result: SlideResult, out: Path, case: SlideCase, settings: Settings, bundle: Bundle, numerics: Numerics
) -> SlideResult:
    """Write a scan's result; the result with its folder and key.

    Raises:
        OutputError: the output folder cannot be written.
    """
    clock, folder = time.perf_counter(), OutputFolder(out)
    key = folder.run_key(run_parts(case, settings, bundle, numerics, name=case.id))
    # No other slide of this process has this path.
    with folder.claim(case.id, result.slide.digest, key, Path(f"scan-{id(result)}"), Event()) as claimed:
        run = result.run.model_copy(update={"folder": claimed.path.name, "key": key, "slide_mtime_ns": 0})
        written = result.model_copy(update={"run": run})
        claimed.write(written)
    outcome = SlideOutcome(
        id=case.id,
        case_id=case.case_id,
        exit_code=0,
        message="",
        stage="",
        seconds=time.perf_counter() - clock,
        started=run.started or "",
        finished=run.finished or "",
        digest=result.slide.digest,
        folder=claimed.path,
        result=written,
    )
    Summary(folder).add(outcome, bundle, numerics)
    return written
