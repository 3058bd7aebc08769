"""Splits tests into quarters by their ids alone, so that every machine splits them alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

QUARTERS = range(4)


def in_quarter(ids: Iterable[str], quarter: int) -> set[str]:
    """The ids that belong to this quarter, 0 to 3. One test's place depends on no other test."""
    return {each for each in ids if zlib.crc32(each.encode()) % len(QUARTERS) == quarter}
