"""Batches of fixed sizes through a GPU, double-buffered: the next batch is uploaded while one is computed.

Each batch fills a bucket (a fixed batch size) or is padded to it, because a captured program has a fixed batch size.
Two slots of buffers take turns. Each slot's tiles are uploaded, its program runs, and its outputs are downloaded, each
on its own stream after the event of the previous step; the host copies the outputs before it fills the slot again.
This works with any runtime that implements `Device`.
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

BUCKETS = (1, 8, 32, 128)
"""Batch sizes, ascending. Each costs a build, a captured program and a check at load, so there are few. 128 tiles give
each multiprocessor of the largest GPUs (132 to 170) most of a tile; a GPU without memory for them drops to 32."""
SLOTS = 2
"""One is computed while the other is filled."""


@dataclass(frozen=True)
class Batch:
    """Tiles `first` to `first + size`, computed as a batch of `bucket` rows."""

    first: int
    size: int
    bucket: int

    @property
    def rows(self) -> slice:
        """The rows of its tiles among all tiles."""
        return slice(self.first, self.first + self.size)


def split(tiles: int, buckets: Sequence[int]) -> Iterator[Batch]:
    """Batches that cover `tiles` tiles in order, each of the largest bucket of which less than half is padding."""
    first = 0
    while first < tiles:
        left = tiles - first
        bucket = max((bucket for bucket in buckets if bucket < 2 * left), default=min(buckets))
        yield Batch(first, min(bucket, left), bucket)
        first += bucket


@dataclass(frozen=True)
class _Slot:
    """Host and device buffers of the largest bucket, and the programs bound to them, by bucket."""

    host_tiles: NDArray[np.uint8]
    tiles: Buffer
    host_outputs: Mapping[str, NDArray[np.float32]]
    outputs: Mapping[str, Buffer]
    programs: dict[int, Program] = field(default_factory=dict)


@dataclass(frozen=True)
class _InFlight:
    """A batch in progress in a slot, and the event after which its outputs are on the host."""

    batch: Batch
    slot: _Slot
    downloaded: Event


class BatchRunner:
    """Runs a network on a device in batches of fixed sizes. Not reentrant: one call at a time.

    Args:
        device: the GPU.
        tile_px: side of a tile.
        outputs: the shape of each output without its first axis, by name; all are float32.
        buckets: batch sizes, ascending.
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
        """The batch sizes in use: those that have fitted the GPU's memory so far."""
        return self._buckets

    def infer(self, tiles: NDArray[np.uint8] | DeviceTiles) -> Outputs:
        """The outputs for tiles (N, tile_px, tile_px, 3), as new arrays; N may be 0.

        Tiles in GPU memory need a device that accepts them.

        If the largest bucket does not fit the GPU's memory, it is dropped for good and all tiles are computed again, so
        that all results of a call come from the same buckets.

        Raises:
            UsageError: the tiles have another shape or dtype.
            MemoryExhaustedError: not even a batch of one tile fits the GPU's memory.
            GpuLostError: the GPU stopped working.
            EngineUnavailableError: the runtime failed otherwise.
        """
        if tiles.dtype != np.uint8 or tiles.shape[1:] != self._tile_shape:
            raise UsageError(f"Tiles are {tiles.dtype} {tiles.shape}. Pass uint8 {('N', *self._tile_shape)}.")
        with engine_errors():
            while True:
                try:
                    return self._run(tiles)
                except DeviceMemoryError:
                    if len(self._buckets) == 1:
                        raise
                # Outside the handler, because the error refers to frames, and these to the memory to be freed.
                self._buckets = self._buckets[:-1]
                self._device.release()  # waits, because queued work may still use the buffers
                self._slots.clear()  # also drops the programs, which are bound to the buffers
                self._device.release()  # frees them

    @property
    def tiles_at_once(self) -> int:
        """How many tiles fill all slots."""
        return SLOTS * self._buckets[-1]

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs for each tile (tile_px, tile_px, 3), in order, with a first axis of 1.

        Tiles are taken in groups that fill all slots.

        Raises:
            The same errors as `infer`.
        """
        remaining = iter(tiles)
        while group := list(islice(remaining, self.tiles_at_once)):
            outputs = self.infer(np.stack(group))
            for row in range(len(group)):
                yield {name: values[row : row + 1] for name, values in outputs.items()}

    def _run(self, tiles: NDArray[np.uint8] | DeviceTiles) -> Outputs:
        results = {name: np.empty((len(tiles), *shape), np.float32) for name, shape in self._shapes.items()}
        in_flight: deque[_InFlight] = deque()
        for number, batch in enumerate(split(len(tiles), self._buckets)):
            if len(in_flight) == SLOTS:
                self._collect(in_flight.popleft(), results)
            if (place := number % SLOTS) == len(self._slots):
                self._slots.append(self._new_slot(self._buckets[-1]))
            in_flight.append(self._submit(batch, self._slots[place], tiles[batch.rows]))
        while in_flight:
            self._collect(in_flight.popleft(), results)
        return results

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
        """Start a batch in a free slot; what an interrupted call left there precedes this work on each stream.

        Tiles in host memory are padded with zeros. Tiles in GPU memory are not: the rest of the buffer keeps its old
        rows, whose outputs are not used.
        """
        device = self._device
        if batch.bucket not in slot.programs:
            slot.programs[batch.bucket] = device.program(slot.tiles, slot.outputs, batch.bucket)
        if not isinstance(tiles, DeviceTiles):
            padded = slot.host_tiles[: batch.bucket]
            padded[: batch.size] = tiles
            padded[batch.size :] = 0
            tiles = padded
        device.upload(tiles, slot.tiles)
        device.wait(Stream.COMPUTE, device.record(Stream.UPLOAD))
        device.launch(slot.programs[batch.bucket])
        device.wait(Stream.DOWNLOAD, device.record(Stream.COMPUTE))
        for name, output in slot.outputs.items():
            device.download(output, slot.host_outputs[name][: batch.size])
        return _InFlight(batch, slot, device.record(Stream.DOWNLOAD))

    def _collect(self, done: _InFlight, results: Mapping[str, NDArray[Any]]) -> None:
        """Wait for a batch and copy its outputs to `results`; its slot is then free."""
        self._device.synchronize(done.downloaded)
        for name, output in done.slot.host_outputs.items():
            results[name][done.batch.rows] = output[: done.batch.size]


@contextmanager
def engine_errors() -> Iterator[None]:
    """Context in which a device's errors are translated into those that a user sees.

    Raises:
        MemoryExhaustedError: the GPU's memory ran out.
        GpuLostError: the GPU stopped working.
        EngineUnavailableError: the runtime failed otherwise.
    """
    try:
        yield
    except DeviceMemoryError as error:
        raise MemoryExhaustedError(
            f"The network and one tile do not fit the GPU's memory ({error}). Stop other programs on the GPU, or use "
            "--engine openvino."
        ) from error
    except DeviceLostError as error:
        raise GpuLostError(
            f"The GPU stopped working ({error}). Run the same command again: finished slides are not scored again. If "
            "this happens again, use --engine openvino, and have the GPU checked."
        ) from error
    except DeviceError as error:
        raise EngineUnavailableError(f"The GPU's runtime failed ({error}). Use --engine openvino.") from error
