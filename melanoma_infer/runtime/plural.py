"""The one rule for a count with its noun."""

from __future__ import annotations


def plural(count: int | str, noun: str) -> str:
    """A count with its noun: "1 slide", "3 slides"."""
    return f"{count} {noun}{'' if str(count) == '1' else 's'}"
