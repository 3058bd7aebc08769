"""Shared memory of one CTA: bounds, bytes not written or still being copied, races between warps, bank conflicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mminfer_proofs.sanitizer.access import Access, Array
from mminfer_proofs.sanitizer.costs import Costs, wavefronts
from mminfer_proofs.sanitizer.races import Races
from mminfer_proofs.sanitizer.warp import WARP

NEVER, READY, IN_FLIGHT = 0, 1, 2
PADDING = 16
MOST_PATTERNS = 4096
ROUNDING = 1e-4
"""Copies of one value that differ by rounding differ by less than this part of the store's largest value."""


@dataclass(frozen=True)
class Pattern:
    """The places that the threads of one access use; kept, because a loop repeats it."""

    places: Array
    """Element indices."""
    warps: Array
    wavefronts: tuple[int, int]


@dataclass(frozen=True)
class Copy:
    """A cp.async that has not arrived."""

    access: Access
    addresses: Array
    threads: Array
    values: Array


class Shared:
    """The bytes, the state of each, and the asynchronous copies that have not arrived."""

    def __init__(self, size_bytes: int, costs: Costs, *, races: bool):
        self.size = size_bytes
        self._memory = np.zeros(-(-size_bytes // PADDING) * PADDING, np.uint8)
        self._state = np.zeros_like(self._memory)
        self._races = Races(self._memory.size) if races else None
        self._costs = costs
        self._groups: list[list[Copy]] = [[]]
        self._patterns: dict[tuple[int, bytes, bytes], Pattern] = {}

    def enter(self) -> None:
        """Begin a CTA: nothing is written and no copy has begun."""
        self._state.fill(NEVER)
        self._groups = [[]]
        self.synchronise()

    def synchronise(self) -> None:
        """Pass a barrier, which every thread has reached."""
        if self._races is not None:
            self._races.forget()

    def load(self, access: Access, addresses: Array, threads: Array, groups: Array | None = None) -> Array:
        """Return the elements at the addresses, (n, count); `groups` as in `costs.wavefronts`, by default the warps.

        Raises:
            KernelFault: memcheck, initcheck or racecheck.
        """
        pattern = self._pattern(access, addresses, threads, groups)
        state = self._state.reshape(-1, access.width)[pattern.places]
        if (state != READY).any():
            for bad, sentence in ((IN_FLIGHT, "while cp.async copies it"), (NEVER, "before it is written")):
                self._refuse(access, "initcheck", state == bad, threads, addresses, f"is read {sentence}")
        raced = self._races.read(pattern.places, access.width, pattern.warps) if self._races else None
        if raced is not None:
            sentence = "is read, and another warp wrote it since the last barrier"
            self._refuse(access, "racecheck", raced[:, None], threads, addresses, sentence)
        self._costs.count_shared(pattern.wavefronts)
        return access.elements(self._memory)[pattern.places]

    def store(self, access: Access, addresses: Array, threads: Array, values: Array) -> None:
        """Write values (n, count) to the addresses.

        Raises:
            KernelFault: memcheck, initcheck (a copy to the same bytes has not arrived) or racecheck.
        """
        pattern = self._pattern(access, addresses, threads)
        self._write(access, pattern, addresses, threads, values)
        self._costs.count_shared(pattern.wavefronts)

    def copy(self, access: Access, addresses: Array, threads: Array, values: Array) -> None:
        """Begin to copy values (n, count), which arrive when their group is waited for.

        Raises:
            KernelFault: as `store`.
        """
        pattern = self._pattern(access, addresses, threads)
        self._check_write(access, pattern, addresses, threads)
        self._state.reshape(-1, access.width)[pattern.places] = IN_FLIGHT
        self._groups[-1].append(Copy(access, addresses, threads, values))

    def commit(self) -> None:
        """Close the group of copies that began after the last commit."""
        self._groups.append([])

    def wait(self, pending: int, *, uncommitted: bool = False) -> None:
        """Let the oldest groups arrive until `pending` committed ones are left; `uncommitted`: all copies arrive.

        Raises:
            KernelFault: racecheck: other threads use the bytes since the last barrier.
        """
        last = len(self._groups) if uncommitted else max(0, len(self._groups) - 1 - pending)
        arrived, self._groups = self._groups[:last], self._groups[last:] or [[]]
        for copy in (copy for group in arrived for copy in group):
            pattern = self._pattern(copy.access, copy.addresses, copy.threads)
            self._state.reshape(-1, copy.access.width)[pattern.places] = READY
            self._write(copy.access, pattern, copy.addresses, copy.threads, copy.values)

    def _write(self, access: Access, pattern: Pattern, addresses: Array, threads: Array, values: Array) -> None:
        self._check_write(access, pattern, addresses, threads)
        memory, places = access.elements(self._memory), pattern.places
        memory[places] = values
        self._state.reshape(-1, access.width)[places] = READY
        lost = memory[places] != values
        if lost.any() and self._races is not None:
            self._costs.disagreements += 1
            if not _differ_by_rounding(memory[places], values):
                self._refuse(access, "racecheck", lost, threads, addresses, "is given two values at once")

    def _check_write(self, access: Access, pattern: Pattern, addresses: Array, threads: Array) -> None:
        state = self._state.reshape(-1, access.width)[pattern.places]
        sentence = "is written while cp.async copies to it"
        self._refuse(access, "initcheck", state == IN_FLIGHT, threads, addresses, sentence)
        raced = self._races.write(pattern.places, access.width, pattern.warps) if self._races else None
        if raced is not None:
            sentence = "is written, and another warp read or wrote it since the last barrier"
            self._refuse(access, "racecheck", raced[:, None], threads, addresses, sentence)

    def _pattern(self, access: Access, addresses: Array, threads: Array, groups: Array | None = None) -> Pattern:
        """The pattern of an access.

        Raises:
            KernelFault: memcheck: an address is not aligned, or beyond the shared memory.
        """
        key = (access.width, addresses.tobytes(), (threads if groups is None else groups).tobytes())
        found = self._patterns.get(key)
        if found is None:
            outside = (addresses < 0) | (addresses + access.width > self.size)
            sentence = f"is outside the {self.size:,} bytes that were declared"
            self._refuse(access, "memcheck", outside[:, None], threads, addresses, sentence)
            access.aligned(addresses, threads)
            warps = threads // WARP
            counted = wavefronts(addresses, access.width, warps if groups is None else groups)
            found = Pattern(addresses // access.width, warps, counted)
            if len(self._patterns) > MOST_PATTERNS:
                self._patterns.clear()
            self._patterns[key] = found
        return found

    def _refuse(
        self, access: Access, check: str, which: Array, threads: Array, addresses: Array, sentence: str
    ) -> None:
        """Raise a fault if `which`, (n, any), marks a byte or an element of a thread."""
        if which.any():
            threads_at_fault = np.asarray(which.any(axis=1))
            where = f"shared {int(addresses[threads_at_fault][0]):#x}"
            raise access.fault(check, f"{where} {sentence}", threads_at_fault, threads)


def _differ_by_rounding(kept: Array, given: Array) -> bool:
    """Whether the values that threads give to one address are float32 and differ by rounding only.

    Triton lets several threads compute one sum. If a product is fused into an addition, the two sides of a shuffle
    round differently, and the hardware keeps one of them.
    """
    if kept.dtype.itemsize != 4:
        return False
    one, other = (values.view(np.float32).astype(np.float64) for values in (kept, given))
    return bool(np.abs(one - other).max() <= ROUNDING * max(np.abs(one).max(), np.abs(other).max()))
