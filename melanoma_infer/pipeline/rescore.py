"""A finished result with other patient values or a measured thickness: exact, and without the slide.

`features` = W1v·v + W1d·depth is linear, and the layers after it run on the host. So the patient can be
exchanged, and the estimated Breslow thickness replaced by a measured one, with the same numbers as scoring the slide
again. Outlines and everything else that does not depend on the patient stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.errors import BundleError, PatientValueError, UsageError
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.reports import result_json, tiles_npz
from melanoma_infer.result import PatientOut, SlideResult
from melanoma_infer.scoring.conclusion import conclude, slide_score
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.verdict import Circumstances

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
        raise UsageError("The folder holds no finished result of this version. Score the slide first.")
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
    result = old.model_copy(
        update={**vars(conclusion), "patient": known, "settings_digest": None, "timings_ms": {}, "warnings": []}
    )
    return result.carrying(replace(tiles, probabilities=probabilities), card=bundle.card)


def circumstances_of(result: SlideResult) -> Circumstances:
    """What a result's verdict depends on besides the score."""
    return Circumstances(
        score=None,
        aggregator=result.geometry.aggregator,
        unreadable=result.tiles_counted.unreadable,
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


def free_place(folder: Path) -> Path:
    """The first of rescored-1, rescored-2, … that does not exist in a slide's folder."""
    number = next(n for n in range(1, len(list(folder.iterdir())) + 2) if not (folder / f"rescored-{n}").exists())
    return folder / f"rescored-{number}"
