"""Batches of fixed sizes through a GPU, double-buffered: the next one is uploaded while one is computed.

A batch is padded to its bucket, because a captured program has a fixed size. Two slots of buffers take turns: a slot's
pinned tiles go up, its program runs, its outputs come down, each on its own stream behind the event of the step before,
and the host takes the outputs before it fills the slot again. Nothing here knows which runtime the device has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.base import Outputs
from melanoma_infer.engines.device import (
    Buffer,
    Device,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    Event,
    Program,
    Stream,
)
from melanoma_infer.engines.device_arrays import DeviceTiles
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError, UsageError

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes, rising. Doubling, so that less than half of a batch is padding; 32 tiles of 512 px are as many pixels as
167 images of 224 px."""
SLOTS = 2
"""One being computed, one being filled."""


@dataclass(frozen=True)
class Batch:
    """Tiles `first` to `first + size`, computed as `bucket` rows."""

    first: int
    size: int
    bucket: int

    @property
    def rows(self) -> slice:
        """Where its tiles stand among all."""
        return slice(self.first, self.first + self.size)


def split(tiles: int, buckets: Sequence[int]) -> Iterator[Batch]:
    """Batches that cover so many tiles in order: of the largest bucket, the last of the smallest that holds it."""
    largest = max(buckets)
    for first in range(0, tiles, largest):
        size = min(largest, tiles - first)
        yield Batch(first, size, min(bucket for bucket in buckets if bucket >= size))


@dataclass(frozen=True)
class _Slot:
    """Buffers of the largest bucket on both sides, and the programs bound to them, by bucket."""

    host_tiles: NDArray[np.uint8]
    tiles: Buffer
    host_outputs: Mapping[str, NDArray[np.float32]]
    outputs: Mapping[str, Buffer]
    programs: dict[int, Program] = field(default_factory=dict)


@dataclass(frozen=True)
class _InFlight:
    """A batch under way in a slot, and the event after which its outputs are on the host."""

    batch: Batch
    slot: _Slot
    downloaded: Event


class BatchRunner:
    """A network on a device, fed in buckets. One call of `infer` at a time.

    Args:
        device: the GPU.
        tile_px: side of a tile.
        outputs: the shape of each output without its first axis, by name; all are float32.
        buckets: batch sizes, rising.
    """

    def __init__(
        self,
        device: Device,
        *,
        tile_px: int,
        outputs: Mapping[str, tuple[int, ...]],
        buckets: tuple[int, ...] = BUCKETS,
    ) -> None:
        self._device = device
        self._tile_shape = (tile_px, tile_px, 3)
        self._shapes = dict(outputs)
        self._buckets = buckets
        self._slots: list[_Slot] = []

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use: those that the GPU's memory has held so far."""
        return self._buckets

    def infer(self, tiles: NDArray[np.uint8] | DeviceTiles) -> Outputs:
        """The outputs for tiles (N, tile_px, tile_px, 3), in memory of their own; N may be 0.

        Tiles on a GPU are for a device that takes them.

        When the GPU's memory does not hold the largest bucket, that one is given up for good and all tiles are computed
        again, so every result of a call is from the same buckets.

        Raises:
            UsageError: the tiles have another shape or dtype.
            MemoryExhaustedError: the GPU's memory does not hold a single tile's pass.
            GpuLostError: the GPU stopped working.
            EngineUnavailableError: the runtime failed otherwise.
        """
        if tiles.dtype != np.uint8 or tiles.shape[1:] != self._tile_shape:
            raise UsageError(f"Tiles are {tiles.dtype} {tiles.shape}: give uint8 {('N', *self._tile_shape)}.")
        with engine_errors():
            while True:
                try:
                    return self._run(tiles)
                except DeviceMemoryError:
                    if len(self._buckets) == 1:
                        raise
                # Not in the handler: the error holds the frames, and they the memory, that are to be released.
                self._give_up_largest()

    @property
    def tiles_at_once(self) -> int:
        """How many tiles fill all slots."""
        return SLOTS * self._buckets[-1]

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order, first axis 1; as many are taken as fill all slots.

        Raises:
            As `infer`.
        """
        rest = iter(tiles)
        while together := list(islice(rest, self.tiles_at_once)):
            outputs = self.infer(np.stack(together))
            for row in range(len(together)):
                yield {name: values[row : row + 1] for name, values in outputs.items()}

    def _run(self, tiles: NDArray[np.uint8] | DeviceTiles) -> Outputs:
        results = {name: np.empty((len(tiles), *shape), np.float32) for name, shape in self._shapes.items()}
        in_flight: deque[_InFlight] = deque()
        for number, batch in enumerate(split(len(tiles), self._buckets)):
            if len(in_flight) == SLOTS:
                self._collect(in_flight.popleft(), results)
            in_flight.append(self._submit(batch, self._slot(number % SLOTS), tiles[batch.rows]))
        while in_flight:
            self._collect(in_flight.popleft(), results)
        return results

    def _slot(self, number: int) -> _Slot:
        if number == len(self._slots):
            self._slots.append(self._new_slot(self._buckets[-1]))
        return self._slots[number]

    def _new_slot(self, rows: int) -> _Slot:
        device, tiles = self._device, (rows, *self._tile_shape)
        shapes = {name: (rows, *shape) for name, shape in self._shapes.items()}
        return _Slot(
            host_tiles=device.pinned(tiles, np.uint8),
            tiles=device.buffer(tiles, np.uint8),
            host_outputs={name: device.pinned(shape, np.float32) for name, shape in shapes.items()},
            outputs={name: device.buffer(shape, np.float32) for name, shape in shapes.items()},
        )

    def _submit(self, batch: Batch, slot: _Slot, tiles: NDArray[np.uint8] | DeviceTiles) -> _InFlight:
        """Start a batch in a slot that nothing uses, or an interrupted call: its work comes first on each stream."""
        device = self._device
        program = self._program(slot, batch.bucket)
        device.upload(self._padded(slot, batch, tiles), slot.tiles)
        device.wait(Stream.COMPUTE, device.record(Stream.UPLOAD))
        device.launch(program)
        device.wait(Stream.DOWNLOAD, device.record(Stream.COMPUTE))
        for name, output in slot.outputs.items():
            device.download(output, slot.host_outputs[name][: batch.size])
        return _InFlight(batch, slot, device.record(Stream.DOWNLOAD))

    def _padded(
        self, slot: _Slot, batch: Batch, tiles: NDArray[np.uint8] | DeviceTiles
    ) -> NDArray[np.uint8] | DeviceTiles:
        """Pinned rows with blank ones behind; tiles that lie on a GPU stand before what the buffer held."""
        if isinstance(tiles, DeviceTiles):
            return tiles
        rows = slot.host_tiles[: batch.bucket]
        rows[: batch.size] = tiles
        rows[batch.size :] = 0
        return rows

    def _program(self, slot: _Slot, bucket: int) -> Program:
        if bucket not in slot.programs:
            slot.programs[bucket] = self._device.program(slot.tiles, slot.outputs, bucket)
        return slot.programs[bucket]

    def _collect(self, done: _InFlight, results: Mapping[str, NDArray[Any]]) -> None:
        """Take a batch's outputs when they are there; its slot is free then."""
        self._device.synchronize(done.downloaded)
        for name, output in done.slot.host_outputs.items():
            results[name][done.batch.rows] = output[: done.batch.size]

    def _give_up_largest(self) -> None:
        """Forget the largest bucket and all buffers; programs are bound to buffers, so all of them are made again."""
        self._buckets = self._buckets[:-1]
        self._device.release()  # waits: work that was started may still use the buffers
        self._slots.clear()
        self._device.release()  # gives them back


@contextmanager
def engine_errors() -> Iterator[None]:
    """Within it, a device's errors become the ones that a user sees.

    Raises:
        MemoryExhaustedError: the GPU's memory ran out.
        GpuLostError: the GPU stopped working.
        EngineUnavailableError: the runtime failed otherwise.
    """
    try:
        yield
    except DeviceMemoryError as error:
        raise MemoryExhaustedError(
            f"The GPU's memory does not hold the network and one tile ({error}). Stop other programs on the GPU, or "
            "use --engine openvino."
        ) from error
    except DeviceLostError as error:
        raise GpuLostError(
            f"The GPU stopped working ({error}). Run the same command again: finished slides are not redone. If it "
            "happens again, use --engine openvino, and have the GPU looked at."
        ) from error
    except DeviceError as error:
        raise EngineUnavailableError(f"The GPU's runtime failed ({error}). Use --engine openvino.") from error
