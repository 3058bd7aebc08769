"""The words of a closed list, as people and spreadsheets write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from melanoma_infer.card import UNKNOWN

MISSING = frozenset(
    {
        "", "-", "?", "na", "n/a", "#n/a", "nan", "null", "none", "missing", "not reported", "not available",
        "[not available]", "[unknown]", UNKNOWN,
    }
)  # fmt: skip
"""What stands for a value that is not known."""
SYNONYMS = {
    "f": "female", "woman": "female", "m": "male", "man": "male",
    "y": "yes", "true": "yes", "present": "yes", "n": "no", "false": "no", "absent": "no",
    "upper_extremity": "upper_limb", "lower_extremity": "lower_limb",
    "he": "h_e", "reexcision": "re_excision",
}  # fmt: skip
"""Only words that mean one thing wherever the list has the other word: a wrong guess is worse than a question."""
OPPOSITE_BESIDE = {"m": "h", "f": "n"}
"""Letters that mean the other sex beside another letter: M is a woman beside H (hombre, mujer), F a man beside N (nő,
férfi)."""
_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_/&-]+(?=[^\W_])")


def is_missing(text: str) -> bool:
    """Whether a text says that a value is not known."""
    return text.strip().casefold() in MISSING


def word_of(text: str, words: Sequence[str]) -> str | None:
    """The word of the list that a text means; None if it means none of them, or could mean two.

    The exact word comes first, then the same in other case, with other separators ("Upper limb" is upper_limb), and a
    synonym ("F" is female).
    """
    for same in (str.strip, _folded, _plain, _meant):
        if found := [word for word in words if same(word) == same(text)]:
            return found[0] if len(found) == 1 else None
    return None


def _folded(text: str) -> str:
    return text.strip().casefold()


def _plain(text: str) -> str:
    """In lower case, with one separator between words: "Head & neck" and head_neck are the same."""
    return _SEPARATORS.sub("_", _folded(text).replace("&amp;", "&")).replace("_and_", "_")


def _meant(text: str) -> str:
    plain = _plain(text)
    return SYNONYMS.get(plain, plain)
