"""Slides that hold the same bytes: one of them may be filed for the wrong patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from melanoma_infer.errors import MminferError
from melanoma_infer.slides.members import identify, members


def same_bytes(slides: Sequence[Path]) -> list[list[Path]]:
    """The groups of slides with the same bytes; slides that cannot be read are in none.

    Only slides of equal size are read, and read whole only if their first and last MiB are equal, too.
    """
    keys: tuple[Callable[[Path], object], ...] = (
        lambda slide: sum(member.stat().st_size for member in members(slide)),
        lambda slide: identify(slide, "").digest,  # of the first and last MiB
        lambda slide: identify(slide, None).digest,  # of all bytes
    )
    groups = [list(slides)]
    for key in keys:
        groups = [alike for group in groups for alike in _alike(group, key)]
    return groups


def _alike(slides: Sequence[Path], key: Callable[[Path], object]) -> list[list[Path]]:
    found: dict[object, list[Path]] = {}
    for slide in slides:
        try:
            found.setdefault(key(slide), []).append(slide)
        except (OSError, MminferError):
            continue  # scoring it will say what is wrong with it
    return [same for same in found.values() if len(same) > 1]
