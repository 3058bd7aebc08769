"""Batches of fixed sizes through a GPU: a ring of slots, of which one is filled while the others are computed.

A batch is padded to the next bucket (a fixed batch size), because a captured program has a fixed batch size. The slots
take turns. Each slot's tiles are uploaded, its program runs, and its outputs are downloaded, each on its own stream
after the event of the previous step; the host copies the outputs before it fills the slot again. This works with any
runtime that implements `Device`.

Tiles may come as the slide has them (`NativeTile`) if the device resizes: they are uploaded and resized a few at a time
while their batch fills, all on the upload stream, so one small buffer on the device holds the pixels before the resize.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

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
from melanoma_infer.records import NativeTile

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes, ascending. Each doubles the previous one, so that less than half of a batch is padding. 32 tiles of 512
px have as many pixels as 167 images of 224 px."""
SLOTS = 3
"""One is computed, one waits for the GPU, and one is filled."""
RESIZED_AT_ONCE = 8
"""Native tiles of one upload and resize: 134 MB of 2,048 px in RGBA, and few enough launches for the host."""
UPLOADS_MAX = 2
"""Groups of native tiles whose upload may be unfinished; their host memory is in use until then."""

Resize = Callable[[Sequence[NativeTile], Buffer, int], None]
"""Uploads native tiles of one shape, and resizes them into a buffer's rows from a row on, on the stream UPLOAD."""


class Resizing(Device, Protocol):
    """A device that resizes, too."""

    def resize(self, tiles: Sequence[NativeTile], target: Buffer, first: int) -> None:
        """As `Resize`."""
        ...


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
    """Batches that cover `tiles` tiles in order: all of the largest bucket, the last of the smallest that fits."""
    largest = max(buckets)
    for first in range(0, tiles, largest):
        size = min(largest, tiles - first)
        yield Batch(first, size, min(bucket for bucket in buckets if bucket >= size))


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
        resize: for native tiles; None if the device does not resize.
    """

    def __init__(
        self,
        device: Device,
        *,
        tile_px: int,
        outputs: Mapping[str, tuple[int, ...]],
        buckets: tuple[int, ...] = BUCKETS,
        resize: Resize | None = None,
    ) -> None:
        self._device = device
        self._tile_shape = (tile_px, tile_px, 3)
        self._shapes = dict(outputs)
        self._buckets = buckets
        self._resize = resize
        self._slots: list[_Slot] = []
        self._uploading: deque[tuple[Event, list[NativeTile]]] = deque()

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
        self._require_shape(tiles)
        with engine_errors():
            while True:
                try:
                    return self._run(tiles)
                except DeviceMemoryError:
                    if len(self._buckets) == 1:
                        raise
                # Outside the handler, because the error refers to frames, and these to the memory to be freed.
                self._drop_largest()

    @property
    def tiles_at_once(self) -> int:
        """How many tiles fill all slots."""
        return SLOTS * self._buckets[-1]

    def infer_each(self, tiles: Iterable[NDArray[np.uint8] | NativeTile]) -> Iterator[Outputs]:
        """The outputs for each tile, in order, with a first axis of 1.

        A slot is filled tile by tile, each copied once into page-locked memory, and computed when it is full; the
        oldest batch is collected when all slots are in use. If the largest bucket does not fit the GPU's memory, it is
        dropped for good when the batches in progress are done.

        Args:
            tiles: arrays (tile_px, tile_px, 3), or native tiles, not both; they are taken as needed.

        Raises:
            The same errors as `infer`.
        """
        remaining, in_flight, turn = iter(tiles), deque[_InFlight](), 0
        while True:
            if len(in_flight) == SLOTS:
                yield from self._collected(in_flight.popleft())
            if (first := next(remaining, None)) is None:
                break
            remaining = chain((first,), remaining)
            with engine_errors():
                slot = self._slot(turn % SLOTS, last=len(self._buckets) == 1)
            if slot is None:
                while in_flight:
                    yield from self._collected(in_flight.popleft())
                with engine_errors():
                    self._drop_largest()
                turn = 0
                continue
            with engine_errors():
                in_flight.append(self._started(slot, islice(remaining, self._buckets[-1])))
            turn += 1
        while in_flight:
            yield from self._collected(in_flight.popleft())

    def resized(self, tile: NativeTile) -> NDArray[np.uint8]:
        """One native tile as the network gets it: uint8 (tile_px, tile_px, 3).

        Raises:
            The same errors as `infer`.
        """
        assert self._resize is not None
        device, shape = self._device, (1, *self._tile_shape)
        with engine_errors():
            image, host = device.buffer(shape, np.uint8), device.pinned(shape, np.uint8)
            self._resize([tile], image, 0)
            device.wait(Stream.DOWNLOAD, device.record(Stream.UPLOAD))
            device.download(image, host)
            device.synchronize(device.record(Stream.DOWNLOAD))
        return np.array(host[0])

    def _slot(self, place: int, *, last: bool) -> _Slot | None:
        """The slot of that place, with the program of the largest bucket; None if the GPU's memory does not hold it.

        Raises:
            DeviceMemoryError: it does not, and there is no smaller bucket.
        """
        try:
            if place == len(self._slots):
                self._slots.append(self._new_slot(self._buckets[-1]))
            self._program(self._slots[place], self._buckets[-1])
            return self._slots[place]
        except DeviceMemoryError:
            if last:
                raise
            return None

    def _drop_largest(self) -> None:
        """Free all slots, and use smaller batches from now on."""
        self._buckets = self._buckets[:-1]
        self._device.release()  # waits, because queued work may still use the buffers
        self._slots.clear()  # also drops the programs, which are bound to the buffers
        self._device.release()  # frees them

    def _started(self, slot: _Slot, tiles: Iterator[NDArray[np.uint8] | NativeTile]) -> _InFlight:
        """Fill a free slot and compute it; at least one tile."""
        size, native = 0, False
        group: list[NativeTile] = []
        for tile in tiles:
            if size and isinstance(tile, NativeTile) is not native:
                raise UsageError("A stream of tiles mixes native and resized ones. Pass one kind.")
            if isinstance(tile, NativeTile):
                native = True
                if group and (len(group) == RESIZED_AT_ONCE or not group[0].matches(tile)):
                    self._upload(group, slot, size)
                    group = []
                group.append(tile)
            else:
                self._require_shape(tile[None])
                slot.host_tiles[size] = tile
            size += 1
        if group:
            self._upload(group, slot, size)
        bucket = min(each for each in self._buckets if each >= size)
        try:
            self._program(slot, bucket)
        except DeviceMemoryError:
            bucket = self._buckets[-1]  # its program exists
        batch = Batch(0, size, bucket)
        if not native:
            slot.host_tiles[size : batch.bucket] = 0
            self._device.upload(slot.host_tiles[: batch.bucket], slot.tiles)
        return self._launched(batch, slot)

    def _upload(self, group: list[NativeTile], slot: _Slot, stop: int) -> None:
        """Upload and resize native tiles into a slot's rows before `stop`, and keep them until they are uploaded."""
        if self._resize is None:
            raise UsageError("This engine does not resize tiles. Pass resized ones.")
        if len(self._uploading) == UPLOADS_MAX:
            self._device.synchronize(self._uploading[0][0])
            self._uploading.popleft()
        self._resize(group, slot.tiles, stop - len(group))
        self._uploading.append((self._device.record(Stream.UPLOAD), group))

    def _collected(self, done: _InFlight) -> Iterator[Outputs]:
        """Wait for a batch, and the outputs of each of its tiles."""
        size = done.batch.size
        with engine_errors():
            self._device.synchronize(done.downloaded)
            outputs = {name: values[:size].copy() for name, values in done.slot.host_outputs.items()}
        for row in range(size):
            yield {name: values[row : row + 1] for name, values in outputs.items()}

    def _program(self, slot: _Slot, bucket: int) -> Program:
        """The slot's program for a bucket, captured when it is first needed."""
        if bucket not in slot.programs:
            slot.programs[bucket] = self._device.program(slot.tiles, slot.outputs, bucket)
        return slot.programs[bucket]

    def _require_shape(self, tiles: NDArray[np.uint8] | DeviceTiles) -> None:
        if tiles.dtype != np.uint8 or tiles.shape[1:] != self._tile_shape:
            raise UsageError(f"Tiles are {tiles.dtype} {tiles.shape}. Pass uint8 {('N', *self._tile_shape)}.")

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
        self._program(slot, batch.bucket)
        if not isinstance(tiles, DeviceTiles):
            padded = slot.host_tiles[: batch.bucket]
            padded[: batch.size] = tiles
            padded[batch.size :] = 0
            tiles = padded
        self._device.upload(tiles, slot.tiles)
        return self._launched(batch, slot)

    def _launched(self, batch: Batch, slot: _Slot) -> _InFlight:
        """Compute what is being uploaded to a slot."""
        device = self._device
        program = self._program(slot, batch.bucket)
        device.wait(Stream.COMPUTE, device.record(Stream.UPLOAD))
        device.launch(program)
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
