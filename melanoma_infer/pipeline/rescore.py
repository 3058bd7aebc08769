"""A finished result with other patient values or a measured thickness: exact, and without the slide.

`features` = W1v·v + W1d·depth is linear, and the layers after it run on the host. So the patient can be
exchanged, and the estimated Breslow thickness replaced by a measured one, with the same numbers as scoring the slide
again. Outlines and everything else that does not depend on the patient stay as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import BundleError, PatientValueError, UsageError
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.records import GalleryTile
from melanoma_infer.reports import pictures_npz, result_json, tiles_npz
from melanoma_infer.result import PatientOut, RunOut, SlideOutcome, SlideResult
from melanoma_infer.runtime.provenance import VERSION, machine
from melanoma_infer.runtime.utc import utc_now
from melanoma_infer.scoring.conclusion import conclude, slide_score
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.gallery import choose
from melanoma_infer.scoring.verdict import Circumstances, slide_warnings
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.store.run_record import RunRecord
from melanoma_infer.store.summary import Summary

BRESLOW_MM_MAX = 100.0


def rescore(folder: Path, bundle: Bundle, patient: Patient, *, breslow_mm: float | None = None) -> SlideResult:
    """The result in a slide's folder, for another patient.

    Args:
        folder: what `score` wrote for one slide.
        bundle: the model that it was scored with.
        patient: the values to use, or "unknown".
        breslow_mm: a measured thickness in mm, in place of the estimate in every tile.

    Raises:
        UsageError: the folder holds no finished result, or the model takes no patient data.
        BundleError: the result was made by another bundle.
        PatientValueError: the thickness is impossible, or the model does not use one.
    """
    old, tiles = result_json.read(folder / "result.json"), tiles_npz.read(folder / "tiles.npz")
    if old is None or tiles is None:
        raise UsageError(
            "The folder holds no whole result of this version. Score the slide again, perhaps with --overwrite."
        )
    if old.bundle.digest != bundle.digest:
        raise BundleError("The result was made by another bundle. Give that one with --bundle, or score again.")
    if bundle.head is None or tiles.features is None:
        raise UsageError("This model takes no patient data, so there is nothing to score again.")
    features = tiles.features
    if breslow_mm is not None:
        if tiles.depth_mm is None or not 0 <= breslow_mm <= BRESLOW_MM_MAX:
            raise PatientValueError(f"--breslow-mm takes 0 to {BRESLOW_MM_MAX:g} mm, where the model estimates depth.")
        features = bundle.head.with_depth(features, tiles.depth_mm, breslow_mm)
    fields = bundle.card.patient_fields
    probabilities = fused(bundle, tiles.probabilities, features, one_hot(patient, fields))
    unknown = fused(bundle, tiles.probabilities, tiles.features, one_hot(Patient(), fields))
    ok, circumstances = tiles.status == "ok", circumstances_of(old)
    tile_mm2 = (min(old.geometry.tile_um, old.geometry.stride_um) / 1000) ** 2
    conclusion = conclude(probabilities[ok], bundle.card, circumstances, tile_mm2)
    without = slide_score(unknown[ok], bundle.card, circumstances, tile_mm2)
    known = PatientOut(
        values=dict(patient.values),
        ulceration=patient.ulceration,
        malignant_score_without=without,
        breslow_mm=breslow_mm,
    )
    rescored = replace(tiles, probabilities=probabilities)
    warnings = slide_warnings(old.scale.contradiction, old.slide.doubts)
    result = old.model_copy(update={**vars(conclusion), "patient": known, "warnings": warnings})
    view, pixels = pictures_npz.read(folder / "pictures.npz")
    # A tile that scores highest for this patient only has no pixels here: the slide is not opened.
    gallery = (
        GalleryTile(choice.row, choice.role, pixels[choice.row])
        for choice in choose(rescored, bundle.card)
        if choice.row in pixels
    )
    return result.carrying(rescored, view, tuple(gallery), card=bundle.card)


def write_rescored(
    folder: Path,
    bundle: Bundle,
    patient: Patient,
    *,
    breslow_mm: float | None = None,
    command: Sequence[str] = ("rescore",),
) -> SlideOutcome:
    """Rescore a result into a folder of its own beside the old one, with a row in the summary and a record of the run.

    The same patient and thickness again are the same folder, which stays as it is.

    Args: as in `rescore`, and
        command: stored in the record, so it must contain no path and no patient value.

    Raises:
        OutputError: the output folder cannot be written.
        and what `rescore` raises.
    """
    folder, started, clock = Path(os.path.abspath(folder)), utc_now(), time.perf_counter()
    result = rescore(folder, bundle, patient, breslow_mm=breslow_mm)
    out = OutputFolder.of(folder)
    key = out.run_key(
        {"version": VERSION, "rescored": result.run.key, "patient": vars(patient), "breslow_mm": breslow_mm}
    )
    with out.claim(result.id, result.slide.digest, key, folder, Event()) as claimed:
        before = claimed.result() if claimed.is_complete() else None
        if before is None:
            run = RunOut(
                started=started,
                finished=utc_now(),
                folder=claimed.path.name,
                key=key,
                slide_mtime_ns=result.run.slide_mtime_ns,
                rescored_from=folder.name,
                machine=machine(),
            )
            result = result.model_copy(update={"run": run})
            claimed.write(result)
    result = before or result
    outcome = SlideOutcome(
        id=result.id,
        case_id=result.case_id,
        exit_code=0,
        message="finished before" if before else "",
        stage="",
        seconds=time.perf_counter() - clock,
        started=result.run.started or "",
        finished=result.run.finished or "",
        digest=result.slide.digest,
        folder=claimed.path,
        result=result,
        skipped=before is not None,
    )
    numerics = Numerics(**result.numerics.model_dump())
    with RunRecord(out, bundle, numerics, command=command) as record:
        record.add(outcome)
        Summary(out).add(outcome, bundle, numerics)
    return outcome


def circumstances_of(result: SlideResult) -> Circumstances:
    """What a result's verdict depends on besides the score."""
    return Circumstances(
        score=None,
        aggregator=result.geometry.aggregator,
        unreadable=result.tiles_counted.unreadable,
        not_evaluated=result.tiles_counted.not_evaluated,
        evaluable_fraction=result.evaluable_fraction,
        tissue_mm2=result.tissue_mm2,
        is_phantom=result.slide.is_phantom,
        scale_source=result.scale.source,
        scale_contradiction=result.scale.contradiction,
        geometry_matches=result.geometry.matches_card,
        stain=result.stain,
        specimen=result.specimen,
        **vars(result.evaluation),
    )
