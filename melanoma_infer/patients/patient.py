"""Patient values, typed or from a manifest → the model's one-hot vector.

The command line and the API are strict: a value outside the model's vocabulary, or an impossible one, is an error
that names the nearest valid words. Manifests are lenient: such a value becomes "unknown" and is reported. Identity,
file name, scanner and resolution are never features.
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

AGE_YEARS_MAX = 120
AGE = "age"
ULCERATION = "ulceration"
ULCERATION_VALUES = ("yes", "no", UNKNOWN)
STAINS = ("H&E", "IHC", "fluorescence", "other")
SPECIMENS = ("primary", "re-excision", "metastasis", "other")
_INTERVAL = re.compile(r"[\[\]]\s*(\d+)\s*[:;,-]\s*(\d+)\s*[\[\]]")
_MISSING = {"", "na", "n/a", "nan", "none", "not reported", "[not available]", "[unknown]", UNKNOWN}


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
    known = {field.name: field for field in fields}
    values = dict.fromkeys(known, UNKNOWN)
    ulceration = UNKNOWN
    for name, value in given.items():
        if value is None:
            continue
        text = str(value).strip().lower()
        if name == ULCERATION:
            if text not in ULCERATION_VALUES:
                raise PatientValueError(f"{ULCERATION}: give {', '.join(ULCERATION_VALUES[:-1])} or {UNKNOWN}.")
            ulceration = text
        if name in known:
            values[name] = _category(known[name], text)
        elif name != ULCERATION:
            if not known:
                raise PatientValueError("This model uses no patient data. Leave out the patient options.")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}."
            raise PatientValueError(f"The model has no patient field of that name. {hint}")
    return Patient(values, ulceration)


def lenient_patient(given: Mapping[str, str], fields: Sequence[PatientField]) -> tuple[Patient, list[str]]:
    """The patient of a manifest row, and the names of the columns whose value was not understood."""
    values: dict[str, str] = {}
    misread: list[str] = []
    for card_field in fields:
        text = given.get(card_field.name, "").strip().lower()
        try:
            values[card_field.name] = _category(card_field, text)
        except PatientValueError:
            values[card_field.name] = UNKNOWN
            misread.append(card_field.name)
    ulceration = given.get(ULCERATION, "").strip().lower()
    if ulceration not in ULCERATION_VALUES:
        misread.extend([ULCERATION] if ulceration not in _MISSING and ULCERATION not in misread else [])
        ulceration = UNKNOWN
    return Patient(values, ulceration), misread


def stated_stain(text: str) -> str:
    """The stain in the spelling that results use.

    Raises:
        PatientValueError: it is not one of STAINS.
    """
    return _one_of("stain", text, STAINS)


def stated_specimen(text: str) -> str:
    """The kind of specimen in the spelling that results use.

    Raises:
        PatientValueError: it is not one of SPECIMENS.
    """
    return _one_of("specimen", text, SPECIMENS)


def _one_of(name: str, text: str, words: Sequence[str]) -> str:
    plain = text.strip().casefold().replace("&amp;", "&").replace(" ", "")
    found = [word for word in words if plain == word.casefold() or plain == word.casefold().replace("&", "")]
    if not found:
        raise PatientValueError(f"{name}: give one of {', '.join(words)}.")
    return found[0]


def one_hot(patient: Patient, fields: Sequence[PatientField]) -> NDArray[np.float64]:
    """The vector (P,) of a patient: for each field its values, then "unknown"."""
    columns: list[float] = []
    for card_field in fields:
        value = patient.values.get(card_field.name, UNKNOWN)
        columns += [float(value == each) for each in (*card_field.values, UNKNOWN)]
    return np.array(columns)


def _category(card_field: PatientField, text: str) -> str:
    """The card's word for a value.

    Raises:
        PatientValueError: there is none.
    """
    words = {word.lower(): word for word in card_field.values}
    if text in words:
        return words[text]
    if text in _MISSING:
        return UNKNOWN
    if card_field.edges is not None:
        return _band(card_field, text)
    near = difflib.get_close_matches(text, card_field.values, n=2, cutoff=0.4) or list(card_field.values)
    raise PatientValueError(
        f"{card_field.name}: this value is not in the model's vocabulary. Nearest: {', '.join(near)}; or {UNKNOWN}."
    )


def _band(card_field: PatientField, text: str) -> str:
    """The band that holds a number, or an interval such as [34:36[ inside one band."""
    interval = _INTERVAL.fullmatch(text)
    try:
        first, last = (float(part) for part in (interval.groups() if interval else (text, text)))
    except ValueError:
        first = last = math.nan
    highest = AGE_YEARS_MAX if card_field.name == AGE else math.inf
    if not all(math.isfinite(bound) and 0 <= bound <= highest for bound in (first, last)):
        limit = f" from 0 to {highest}" if highest < math.inf else ""
        raise PatientValueError(
            f"{card_field.name}: give a number{limit}, one of {', '.join(card_field.values)}, or {UNKNOWN}."
        )
    low = bisect.bisect_right(card_field.edges or (), first)
    # [38:40[ ends below 40.
    ends_below = interval is not None and text.endswith("[")
    high = (bisect.bisect_left if ends_below else bisect.bisect_right)(card_field.edges or (), last)
    return card_field.values[low] if low == high else UNKNOWN
