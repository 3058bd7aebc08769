"""Text from outside (a slide, a file name, a model card) made harmless to show."""

from __future__ import annotations

import unicodedata

TEXT_CHARS = 400
"""Longer texts from outside are truncated."""
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are invisible but can reverse or break the text around them."""


def plain(text: str, chars: int = TEXT_CHARS) -> str:
    """The text without invisible characters, truncated to a length; tabs and line breaks become spaces."""
    spaced = text[: 4 * chars].translate({9: " ", 10: " ", 13: " "})
    kept = "".join(c for c in spaced if unicodedata.category(c) not in HIDDEN_CATEGORIES)
    return kept if len(kept) <= chars and len(text) <= 4 * chars else kept[: chars - 1] + "…"
