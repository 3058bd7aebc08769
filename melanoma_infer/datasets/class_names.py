"""What the names of an annotator's classes mean to the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.labels import known_labels
from melanoma_infer.errors import UsageError
from melanoma_infer.patients.vocabulary import word_of


@dataclass(frozen=True)
class ClassNames:
    """Labels by name. A name that is a class of the card needs none."""

    stated: Mapping[str, str | None]
    """By name in lower case; None for names that are ignored."""
    card: ModelCard

    def labels(self, names: Iterable[str]) -> dict[str, str | None]:
        """What each of these names means; None for one that is ignored.

        Raises:
            UsageError: of some it is not known; all of them are named.
        """
        counts = Counter(names)
        known = known_labels(self.card)
        found = {name: self.stated.get(name.casefold(), word_of(name, known)) for name in counts}
        unknown = [name for name, label in found.items() if label is None and name.casefold() not in self.stated]
        if unknown:
            named = ", ".join(f"{name} ({counts[name]})" for name in sorted(unknown))
            raise UsageError(
                f'It is not said what these classes are: {named}. Give --class "{min(unknown)}=CLASS" with one of '
                f'{", ".join(known)}, or --ignore "{min(unknown)}".'
            )
        return found


def class_names(pairs: Sequence[str], ignored: Sequence[str], card: ModelCard) -> ClassNames:
    """The names in options such as --class "Tumor=melanoma" and --ignore "Artefact".

    Raises:
        UsageError: an option has no =, names no class of the card, or a name is given twice.
    """
    known = known_labels(card)
    stated: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, written = pair.rpartition("=")
        label = word_of(written, known)
        if not (equals and name.strip()) or label is None:
            raise UsageError(f'--class "{pair}": give NAME=CLASS with one of {", ".join(known)}.')
        _add(stated, name, label)
    for name in ignored:
        _add(stated, name, None)
    return ClassNames(stated, card)


def _add(stated: dict[str, str | None], name: str, label: str | None) -> None:
    key = name.strip().casefold()
    if key in stated:
        raise UsageError(f"The class {name.strip()} is named more than once by --class and --ignore. Name it once.")
    stated[key] = label
