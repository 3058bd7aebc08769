"""Patient values, typed or from a manifest → the model's one-hot vector.

Both are read by the same rules. On the command line and in the API a value that is not understood is an error; in a
manifest it becomes "unknown" and is reported. Identity, file name, scanner and resolution are never features.
"""

from __future__ import annotations

import bisect
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import UNKNOWN, PatientField
from melanoma_infer.errors import PatientValueError
from melanoma_infer.patients.numbers import is_date, number, two_readings
from melanoma_infer.patients.vocabulary import is_missing, word_of

AGE_YEARS_MAX = 120
AGE = "age"
ULCERATION = "ulceration"
STAINS = ("H&E", "IHC", "fluorescence", "other")
SPECIMENS = ("primary", "re-excision", "metastasis", "other")
SHOWN_CHARS = 60
"""A message shows no more of a value: a cell may hold a page."""
_INTERVAL = re.compile(r"[\[\]]\s*(\d+)\s*[:;,-]\s*(\d+)\s*[\[\]]", re.ASCII)


@dataclass(frozen=True)
class Patient:
    """A patient as the model sees one: a value for each of the card's fields, or "unknown"."""

    values: Mapping[str, str] = field(default_factory=dict)
    """By field name, as the model uses them: the band of an age, not the age."""
    ulceration: str = UNKNOWN
    """Kept for the T category, whether or not the model uses it."""


def strict_patient(given: Mapping[str, object], fields: Sequence[PatientField]) -> Patient:
    """The patient with these values; the other fields are unknown.

    Raises:
        PatientValueError: the model has no such field, or the value is impossible or outside its vocabulary.
    """
    texts = {name: str(value) for name, value in given.items() if value is not None}
    known = [field.name for field in fields]
    for name in texts:
        if name not in (*known, ULCERATION):
            if not known:
                raise PatientValueError("This model uses no patient data. Leave out the patient options.")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise PatientValueError(f"The model has no patient field of that name. It has {', '.join(known)}.{hint}")
    patient, misread = lenient_patient(texts, fields)
    for name, why in misread.items():
        raise PatientValueError(f"{name}: {why}")
    return patient


def lenient_patient(given: Mapping[str, str], fields: Sequence[PatientField]) -> tuple[Patient, dict[str, str]]:
    """The patient with these values, and by field name why a value was not understood: it is then unknown.

    Names that are no field are ignored.

    Raises:
        PatientValueError: the age is a date; no age is computed from a date of birth, because on which day it counts is
            not known here.
    """
    if any(card_field.name == AGE and card_field.edges for card_field in fields):
        age = given.get(AGE, "")
        if is_date(age):
            raise PatientValueError(f"age: {_shown(age)} is a date. Give the age in years at the time of the specimen.")
    values: dict[str, str] = {}
    misread: dict[str, str] = {}
    for card_field in fields:
        try:
            values[card_field.name] = _category(card_field, given.get(card_field.name, ""))
        except PatientValueError as error:
            values[card_field.name] = UNKNOWN
            misread[card_field.name] = str(error)
    try:
        ulceration = _one_of(given.get(ULCERATION, ""), ("yes", "no")) or UNKNOWN
    except PatientValueError as error:
        ulceration = UNKNOWN
        if values.get(ULCERATION, UNKNOWN) == UNKNOWN:  # else the card has words of its own for it
            misread.setdefault(ULCERATION, str(error))
    return Patient(values, ulceration), misread


def stated_stain(text: str) -> str | None:
    """The stain in the spelling that results use; None if it is not known.

    Raises:
        PatientValueError: it is not one of STAINS.
    """
    return _one_of(text, STAINS)


def stated_specimen(text: str) -> str | None:
    """The kind of specimen in the spelling that results use; None if it is not known.

    Raises:
        PatientValueError: it is not one of SPECIMENS.
    """
    return _one_of(text, SPECIMENS)


def _one_of(text: str, words: Sequence[str]) -> str | None:
    """The word of the list; None if the value is missing."""
    word = word_of(text, words)
    if word is None and not is_missing(text):
        raise PatientValueError(f"{_shown(text)} is not allowed. Give {', '.join(words)} or {UNKNOWN}.")
    return word


def _shown(text: str) -> str:
    return repr(text.strip()[:SHOWN_CHARS])


def one_hot(patient: Patient, fields: Sequence[PatientField]) -> NDArray[np.float64]:
    """The vector (P,) of a patient: for each field its values, then "unknown"."""
    columns: list[float] = []
    for card_field in fields:
        value = patient.values.get(card_field.name, UNKNOWN)
        columns += [float(value == each) for each in (*card_field.values, UNKNOWN)]
    return np.array(columns)


def _category(card_field: PatientField, text: str) -> str:
    """The card's word for a value: the band that holds a number, or an interval such as [34:36[ inside one band.

    Raises:
        PatientValueError: there is none.
    """
    if card_field.edges is None:
        return _one_of(text, card_field.values) or UNKNOWN
    if word := word_of(text, card_field.values):
        return word
    if is_missing(text):
        return UNKNOWN
    text = text.strip()
    if readings := two_readings(text):
        point, thousands = readings
        raise PatientValueError(f"{_shown(text)} may mean {point} or {thousands}. Write {point}0 or {thousands}.")
    interval = _INTERVAL.fullmatch(text)
    first, last = (number(part) for part in (interval.groups() if interval else (text, text)))
    highest = AGE_YEARS_MAX if card_field.name == AGE else math.inf
    if not all(math.isfinite(bound) and 0 <= bound <= highest for bound in (first, last)):
        limit = f" from 0 to {highest}" if highest < math.inf else ""
        raise PatientValueError(
            f"{_shown(text)} is not allowed. Give a number{limit}, {', '.join(card_field.values)} or {UNKNOWN}."
        )
    low = bisect.bisect_right(card_field.edges, first)
    # [38:40[ ends below 40.
    ends_below = interval is not None and text.endswith("[")
    high = (bisect.bisect_left if ends_below else bisect.bisect_right)(card_field.edges, last)
    if low != high:
        raise PatientValueError(f"{_shown(text)} is in more than one of {', '.join(card_field.values)}. Give one.")
    return card_field.values[low]
