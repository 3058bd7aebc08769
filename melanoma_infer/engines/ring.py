"""The ring: a stream of tiles through a device's slots, of which one is filled while the others are computed.

Tiles in frames, which readers wrote, are uploaded from there; others are copied into the slot's memory first.

Tiles may come as the slide has them (`NativeTile`) if the device resizes: they are uploaded and resized a few at a time
while their batch fills, all on the upload stream, so one small buffer on the device holds the pixels before the resize.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.base import Outputs
from melanoma_infer.engines.device import Buffer, Device, DeviceMemoryError, Event, Stream
from melanoma_infer.engines.frames import Frame, runs
from melanoma_infer.engines.slots import SLOTS, Batch, InFlight, Slot, Slots, engine_errors, split
from melanoma_infer.errors import UsageError
from melanoma_infer.records import NativeTile

RESIZED_AT_ONCE = 8
"""Native tiles of one upload and resize: 134 MB of 2,048 px in RGBA, and few enough launches for the host."""
UPLOADS_MAX = 2
"""Groups of native tiles whose upload may be unfinished; their host memory is in use until then."""

Resize = Callable[[Sequence[NativeTile], Buffer, int], None]
"""Uploads native tiles of one shape, and resizes them into a buffer's rows from a row on, on the stream UPLOAD."""
Given = NDArray[np.uint8] | Frame | NativeTile
"""A tile (tile_px, tile_px, 3), the frame that it fills, or one before its resize."""


class Resizing(Device, Protocol):
    """A device that resizes, too; it uploads from rows of its own buffers as from the host."""

    def resize(self, tiles: Sequence[NativeTile], target: Buffer, first: int) -> None:
        """As `Resize`."""
        ...


@dataclass(frozen=True)
class _Filled:
    """A slot with tiles: native ones on the device, resized; arrays on the host, in its first rows; or frames."""

    slot: Slot
    size: int
    native: bool
    frames: Sequence[Frame]


class Ring:
    """Streams of tiles, one at a time.

    Args:
        slots: of the device.
        resize: for native tiles; None if the device does not resize.
    """

    def __init__(self, slots: Slots, resize: Resize | None) -> None:
        self._slots, self._device, self._resize = slots, slots.device, resize
        self._uploading: deque[tuple[Event, list[NativeTile]]] = deque()

    def infer_each(self, tiles: Iterable[Given]) -> Iterator[Outputs]:
        """As `BatchRunner.infer_each`."""
        remaining, in_flight, turn = iter(tiles), deque[InFlight](), 0
        first: Given | None = None
        while True:
            if len(in_flight) == SLOTS:
                yield self._collected(in_flight.popleft())
            if first is None and (first := next(remaining, None)) is None:
                break
            slot = self._ready_slot(turn)
            if slot is None:
                while in_flight:
                    yield self._collected(in_flight.popleft())
                with engine_errors():
                    self._slots.drop_largest()
                turn = 0
                continue
            taken = chain((first,), islice(remaining, self._slots.buckets[-1] - 1))
            first = None
            with engine_errors():
                filled = self._filled(slot, taken)
                batches = self._batches(filled)
            for batch in batches:
                while batch.first and in_flight:  # the slot's batch before this one is among them
                    yield self._collected(in_flight.popleft())
                with engine_errors():
                    in_flight.append(self._started(filled, batch))
            turn += 1
        while in_flight:
            yield self._collected(in_flight.popleft())
        self._uploading.clear()

    def resized(self, tile: NativeTile) -> NDArray[np.uint8]:
        """As `BatchRunner.resized`."""
        assert self._resize is not None
        device, shape = self._device, (1, *self._slots.tile_shape)
        with engine_errors():
            image, host = device.buffer(shape, np.uint8), device.pinned(shape, np.uint8)
            self._resize([tile], image, 0)
            device.wait(Stream.DOWNLOAD, device.record(Stream.UPLOAD))
            device.download(image, host)
            device.synchronize(device.record(Stream.DOWNLOAD))
        return np.array(host[0])

    def _ready_slot(self, turn: int) -> Slot | None:
        """A free slot with the program of the largest bucket; None if a smaller bucket has to do.

        Before any tile of its batch is taken, so that running out of memory loses none.

        Raises:
            MemoryExhaustedError: there is no smaller bucket.
        """
        with engine_errors():
            try:
                slot = self._slots.at(turn)
                self._slots.program(slot, self._slots.buckets[-1])
                return slot
            except DeviceMemoryError:
                if len(self._slots.buckets) == 1:
                    raise
                return None

    def _filled(self, slot: Slot, tiles: Iterator[Given]) -> _Filled:
        """Fill a free slot with at least one tile; native ones are uploaded and resized."""
        size = 0
        kind: type | None = None
        group: list[NativeTile] = []
        frames: list[Frame] = []
        for tile in tiles:
            kind = kind or type(tile)
            if type(tile) is not kind:
                raise UsageError("A stream of tiles mixes native ones, frames and arrays. Pass one kind.")
            if isinstance(tile, Frame):
                self._slots.require_frame(tile)
                frames.append(tile)
            elif isinstance(tile, NativeTile):
                if group and (len(group) == RESIZED_AT_ONCE or not group[0].matches(tile)):
                    self._upload(group, slot, size)
                    group = []
                group.append(tile)
            else:
                self._slots.require_shape(tile[None])
                slot.host_tiles[size] = tile
            size += 1
        if group:
            self._upload(group, slot, size)
        return _Filled(slot, size, kind is NativeTile, frames)

    def _batches(self, filled: _Filled) -> list[Batch]:
        """The batches of a slot's tiles: one if it is full, else as `split` says.

        One, padded, if smaller programs do not fit the GPU's memory.
        """
        buckets = self._slots.buckets
        batches = list(split(filled.size, buckets))
        try:
            for batch in batches:
                self._slots.program(filled.slot, batch.bucket)
        except DeviceMemoryError:
            return [Batch(0, filled.size, buckets[-1])]  # its program exists
        return batches

    def _started(self, filled: _Filled, batch: Batch) -> InFlight:
        """Compute some of a slot's tiles, from the slot's first rows on; no other batch of it is in progress.

        Rows never overlap those that they are copied to, because the batches before fill their buckets, and no bucket
        is smaller than a later one.
        """
        slot, stop = filled.slot, batch.first + batch.bucket
        frames = filled.frames[batch.rows]
        if frames:
            for first, memory in runs(frames):
                self._device.upload(memory.reshape(-1, *self._slots.tile_shape), slot.tiles, first)
        elif not filled.native:
            slot.host_tiles[batch.rows.stop : stop] = 0
            self._device.upload(slot.host_tiles[batch.first : stop], slot.tiles)
        elif batch.first:
            self._device.upload(slot.tiles[batch.rows], slot.tiles)
        return self._slots.launched(batch, slot, frames)

    def _upload(self, group: list[NativeTile], slot: Slot, stop: int) -> None:
        """Upload and resize native tiles into a slot's rows before `stop`, and keep them until they are uploaded."""
        if self._resize is None:
            raise UsageError("This engine does not resize tiles. Pass resized ones.")
        if len(self._uploading) == UPLOADS_MAX:
            self._device.synchronize(self._uploading[0][0])
            self._uploading.popleft()
        self._resize(group, slot.tiles, stop - len(group))
        self._uploading.append((self._device.record(Stream.UPLOAD), group))

    def _collected(self, done: InFlight) -> Outputs:
        """Wait for a batch, and copy the outputs of its tiles; its slot is then free."""
        with engine_errors():
            self._device.synchronize(done.downloaded)
        return {name: values[: done.batch.size].copy() for name, values in done.slot.host_outputs.items()}
