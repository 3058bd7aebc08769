"""A slide's case: what the caller says about it."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_infer.patients.patient import Patient


@dataclass(frozen=True)
class SlideCase:
    """What the caller says about a slide."""

    id: str
    """The slide's name in every output."""
    case_id: str | None = None
    """The patient's case, which may have several slides."""
    patient: Patient | None = None
    """None: nothing is known, and nothing is written about the patient."""
    patient_in_output: bool = True
    """False: patient values are used but appear in no output file."""
    warnings: tuple[str, ...] = ()
    """What a reader of the result must know, such as manifest values that were not understood."""
