"""What a result depends on besides the slide's bytes: the parts of the run key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.runtime.provenance import VERSION
from melanoma_infer.settings import Settings


def run_parts(
    case: SlideCase, settings: Settings, bundle: Bundle, numerics: Numerics | None, *, name: str
) -> dict[str, Any]:
    """What a result depends on besides the slide's bytes, for the run key.

    Args:
        case: what is said about the slide.
        settings: how it is scored.
        bundle: the model.
        numerics: what computes the numbers; None where nothing is computed.
        name: of the slide in the outputs; another than the case's where names are hidden.
    """
    mask = Path(settings.tissue)
    is_mask = settings.tissue not in ("auto", "all") and mask.is_file()
    return {
        "version": VERSION,
        "bundle": bundle.digest,
        "numerics": vars(numerics) if numerics else None,
        # A part of the verdict that `mminfer verify` may change between two runs.
        "engine_band": engine_band(bundle, numerics.engine, numerics.precision, numerics.device) if numerics else None,
        "settings": settings.model_dump(),
        # The content of a mask: the same path may hold another mask tomorrow.
        "mask": hashlib.sha256(mask.read_bytes()).hexdigest() if is_mask else None,
        "id": name,
        # Two rows of a manifest never share a result, also where names are hidden.
        "row": (case.id, case.case_id),
        "patient": vars(case.patient) if case.patient else None,
        "patient_in_output": case.patient_in_output,
    }
