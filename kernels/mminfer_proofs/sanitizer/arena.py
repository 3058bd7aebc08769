"""Global memory: every argument is alone in a wide range of addresses, so that a stray access hits nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.access import Access, Array
from mminfer_proofs.sanitizer.costs import Costs
from mminfer_proofs.sanitizer.races import Races
from mminfer_proofs.sanitizer.warp import WARP

FIRST_ADDRESS = 1 << 44
PADDING = 16
"""The widest access in bytes; every argument's memory is extended to a multiple of it."""


class Buffer:
    """One argument's bytes and, if it is stored, which CTA and warps accessed each of them."""

    def __init__(self, name: str, array: Array, *, stored: bool):
        self.name, self.array, self.stored = name, array, stored
        self.size = array.nbytes
        self.memory = np.zeros(-(-max(self.size, 1) // PADDING) * PADDING, np.uint8)
        self.memory[: self.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.writer = np.zeros(self.memory.size if stored else 0, np.int32)
        """1 + the number of the CTA that wrote a byte; 0 if none has."""
        self.races = Races(self.memory.size if stored else 0)

    def result(self) -> Array:
        """The bytes as they are now, in the argument's shape and type."""
        return self.memory[: self.size].view(self.array.dtype).reshape(self.array.shape).copy()


class Arena:
    """The array arguments and their addresses; checks bounds, alignment, initialisation and races of every access."""

    def __init__(self, arrays: Mapping[str, Array], stored: Sequence[str], costs: Costs, *, races: bool):
        self.buffers = [Buffer(name, array, stored=name in stored) for name, array in arrays.items()]
        self._costs, self._races = costs, races
        largest = max((buffer.size for buffer in self.buffers), default=1)
        self._stretch_bits = max(16, (4 * largest).bit_length())
        self._sizes = np.array([buffer.size for buffer in self.buffers], np.int64)
        self._writer = 1

    def address(self, name: str) -> int:
        """The address of an argument's first byte, in the middle of its range."""
        index = [buffer.name for buffer in self.buffers].index(name)
        return FIRST_ADDRESS + (index << self._stretch_bits) + (1 << self._stretch_bits - 1)

    def enter(self, cta: int) -> None:
        """Begin a CTA: all following accesses are its own."""
        self._writer = 1 + cta
        self.synchronise()

    def synchronise(self) -> None:
        """Pass a barrier, which every thread of the CTA has reached."""
        for buffer in self.buffers:
            buffer.races.forget()

    def load(self, access: Access, addresses: Array, threads: Array) -> Array:
        """Return the elements at the addresses, (n, count), as these threads read them.

        Raises:
            KernelFault: memcheck, initcheck or racecheck.
        """
        loaded = np.empty((addresses.size, access.count), access.dtype)
        for buffer, chosen, places in self._located(access, addresses, threads):
            warps = threads[chosen] // WARP
            if buffer.stored:
                self._check_load(access, buffer, places, threads[chosen])
            loaded[chosen] = access.elements(buffer.memory)[places]
            self._costs.count_global(buffer.name, places, access.width, warps, stored=False)
        return loaded

    def store(self, access: Access, addresses: Array, threads: Array, values: Array) -> None:
        """Write values (n, count) to the addresses.

        Raises:
            KernelFault: memcheck, also if the launch does not store the argument; or racecheck.
        """
        for buffer, chosen, places in self._located(access, addresses, threads):
            if not buffer.stored:
                sentence = f"a store to {buffer.name}, which the launch does not name among what it stores"
                raise access.fault("memcheck", sentence, np.ones(places.size, bool), threads[chosen])
            who = threads[chosen]
            writer = buffer.writer.reshape(-1, access.width)
            if self._races:
                wrote = writer[places]
                others = ((wrote != 0) & (wrote != self._writer)).any(axis=1)
                self._raced(access, buffer, places, who, others, "is written by two programs")
                mine = buffer.races.write(places, access.width, who // WARP)
                sentence = "is written, and another warp read or wrote it since the last barrier"
                self._raced(access, buffer, places, who, mine, sentence)
            writer[places] = self._writer
            access.elements(buffer.memory)[places] = values[chosen]
            if self._races:
                lost = (access.elements(buffer.memory)[places] != values[chosen]).any(axis=1)
                self._raced(access, buffer, places, who, lost, "is given two values at once")
            self._costs.count_global(buffer.name, places, access.width, who // WARP, stored=True)

    def _located(self, access: Access, addresses: Array, threads: Array) -> Iterator[tuple[Buffer, Array, Array]]:
        """Yield each accessed argument, a mask of the threads that access it, and the element indices in its memory.

        Raises:
            KernelFault: memcheck: an address is not aligned, or not inside an argument.
        """
        access.aligned(addresses, threads)
        offsets = addresses.view(np.int64) - FIRST_ADDRESS
        numbers = offsets >> self._stretch_bits
        inside = (offsets & (1 << self._stretch_bits) - 1) - (1 << self._stretch_bits - 1)
        known = (numbers >= 0) & (numbers < len(self.buffers))
        ends = self._sizes[np.where(known, numbers, 0)] if self.buffers else np.zeros_like(inside)
        outside = ~known | (inside < 0) | (inside + access.width > ends)
        if outside.any():
            sentence = self._stray(int(addresses[outside][0]), access.width)
            raise access.fault("memcheck", sentence, outside, threads)
        for number in {int(numbers[0])} if (numbers == numbers[0]).all() else set(numbers.tolist()):
            chosen = numbers == number
            yield self.buffers[number], chosen, inside[chosen] // access.width

    def _stray(self, address: int, width: int) -> str:
        """Describe an address outside every argument by the nearest argument."""
        offsets = {buffer.name: (address - self.address(buffer.name), buffer.size) for buffer in self.buffers}
        if not offsets:
            return f"{width} bytes at {address:#x}, and the launch has no arrays"
        name = min(offsets, key=lambda each: max(-offsets[each][0], offsets[each][0] - offsets[each][1]))
        offset, size = offsets[name]
        sign = "-" if offset < 0 else "+"
        return f"{width} bytes at {name} {sign} {abs(offset):,}, where {name} is nearest and has {size:,} bytes"

    def _check_load(self, access: Access, buffer: Buffer, places: Array, threads: Array) -> None:
        wrote = buffer.writer.reshape(-1, access.width)[places]
        never = (wrote == 0).any(axis=1)
        if never.any():
            sentence = f"{buffer.name} + {int(places[never][0]) * access.width} is read before it is written"
            raise access.fault("initcheck", sentence, never, threads)
        if not self._races:
            return
        others = (wrote != self._writer).any(axis=1)
        self._raced(access, buffer, places, threads, others, "is read, and another program wrote it")
        mine = buffer.races.read(places, access.width, threads // WARP)
        self._raced(access, buffer, places, threads, mine, "is read, and another warp wrote it since the last barrier")

    def _raced(
        self, access: Access, buffer: Buffer, places: Array, threads: Array, which: Array | None, sentence: str
    ) -> None:
        if which is not None and which.any():
            where = f"{buffer.name} + {int(places[which][0]) * access.width}"
            raise access.fault("racecheck", f"{where} {sentence}", which, threads)


def unwritten(arena: Arena) -> dict[str, int]:
    """The number of bytes of each stored argument that nothing has written."""
    return {buffer.name: int((buffer.writer[: buffer.size] == 0).sum()) for buffer in arena.buffers if buffer.stored}


def refuse_unknown(arrays: Mapping[str, Array], stored: Sequence[str]) -> None:
    """Raise unless every stored argument is an array of the launch.

    Raises:
        KernelFault: unsupported: there is one.
    """
    for name in stored:
        if name not in arrays:
            raise KernelFault(f"unsupported: {name} is to be stored and is no array among the arguments.")
