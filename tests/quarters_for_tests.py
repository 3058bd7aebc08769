"""Splits tests into quarters by their ids alone, so that every machine splits them alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

QUARTERS = range(4)
LONGEST = {
    "test_faults_in_the_source_are_found": 0,
    "test_faults_in_compiled_code_are_found": 1,
    "test_killed_at_any_moment_and_run_again_gives_the_same_files": 2,
    "test_every_precision_is_sealed_within_its_tolerance": 3,
}
"""Proofs of many minutes each, one a quarter: chance had put two into the same."""


def in_quarter(ids: Iterable[str], quarter: int) -> set[str]:
    """The ids that belong to this quarter, 0 to 3. One test's place depends on no other test."""
    return {each for each in ids if _quarter_of(each) == quarter}


def _quarter_of(nodeid: str) -> int:
    name = nodeid.partition("[")[0].rpartition("::")[2]
    return LONGEST.get(name, zlib.crc32(nodeid.encode()) % len(QUARTERS))
