"""Slots: host and device buffers of one batch with the programs bound to them, and what every use of them shares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
from melanoma_infer.engines.frames import Frame
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError, UsageError

BUCKETS = (1, 8, 32, 128)
"""Batch sizes, ascending. Each costs a build, a captured program and a check at load, so there are few. 128 tiles give
each multiprocessor of the largest GPUs (132 to 170) most of a tile; a GPU without memory for them drops to 32."""
SLOTS = 3
"""One is computed, one waits for the GPU, and one is filled."""


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
class Slot:
    """Host and device buffers of the largest bucket, and the programs bound to them, by bucket."""

    host_tiles: NDArray[np.uint8]
    tiles: Buffer
    host_outputs: Mapping[str, NDArray[np.float32]]
    outputs: Mapping[str, Buffer]
    programs: dict[int, Program] = field(default_factory=dict)


@dataclass(frozen=True)
class InFlight:
    """A batch in progress in a slot, and the event after which its outputs are on the host."""

    batch: Batch
    slot: Slot
    downloaded: Event
    frames: Sequence[Frame] = ()
    """What is uploaded from; kept until then."""


class Slots:
    """The slots of a device, made when they are first used.

    Args:
        device: the GPU.
        tile_px: side of a tile.
        outputs: the shape of each output without its first axis, by name; all are float32.
        buckets: batch sizes, ascending.
    """

    def __init__(
        self, device: Device, *, tile_px: int, outputs: Mapping[str, tuple[int, ...]], buckets: tuple[int, ...]
    ) -> None:
        self.device = device
        self.tile_shape = (tile_px, tile_px, 3)
        self.outputs = dict(outputs)
        self.buckets = buckets
        """The batch sizes in use: those that have fitted the GPU's memory so far."""
        self._slots: list[Slot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def at(self, turn: int) -> Slot:
        """The slot whose turn it is; it must be free."""
        if (place := turn % SLOTS) == len(self._slots):
            self._slots.append(self._new(self.buckets[-1]))
        return self._slots[place]

    def require_shape(self, tiles: NDArray[np.uint8] | DeviceTiles) -> None:
        """Raise unless tiles are uint8 (N, tile_px, tile_px, 3).

        Raises:
            UsageError: they are not.
        """
        if tiles.dtype != np.uint8 or tiles.shape[1:] != self.tile_shape:
            raise UsageError(f"Tiles are {tiles.dtype} {tiles.shape}. Pass uint8 {('N', *self.tile_shape)}.")

    def require_frame(self, frame: Frame) -> None:
        """Raise unless a frame has the size of a tile.

        Raises:
            UsageError: it has another one.
        """
        if frame.memory.nbytes != math.prod(self.tile_shape):
            raise UsageError(f"A frame of {frame.memory.nbytes} bytes is no tile {self.tile_shape}.")

    def program(self, slot: Slot, bucket: int) -> Program:
        """The slot's program for a bucket, captured when it is first needed."""
        if bucket not in slot.programs:
            slot.programs[bucket] = self.device.program(slot.tiles, slot.outputs, bucket)
        return slot.programs[bucket]

    def launched(self, batch: Batch, slot: Slot, frames: Sequence[Frame] = ()) -> InFlight:
        """Compute what is being uploaded to a slot."""
        device = self.device
        program = self.program(slot, batch.bucket)
        device.wait(Stream.COMPUTE, device.record(Stream.UPLOAD))
        device.launch(program)
        device.wait(Stream.DOWNLOAD, device.record(Stream.COMPUTE))
        for name, output in slot.outputs.items():
            device.download(output, slot.host_outputs[name][: batch.size])
        return InFlight(batch, slot, device.record(Stream.DOWNLOAD), frames)

    def drop_largest(self) -> None:
        """Free all slots, and use smaller batches from now on."""
        self.buckets = self.buckets[:-1]
        self.device.release()  # waits, because queued work may still use the buffers
        self._slots.clear()  # also drops the programs, which are bound to the buffers
        self.device.release()  # frees them

    def _new(self, rows: int) -> Slot:
        device, tiles = self.device, (rows, *self.tile_shape)
        shapes = {name: (rows, *shape) for name, shape in self.outputs.items()}
        return Slot(
            host_tiles=device.pinned(tiles, np.uint8),
            tiles=device.buffer(tiles, np.uint8),
            host_outputs={name: device.pinned(shape, np.float32) for name, shape in shapes.items()},
            outputs={name: device.buffer(shape, np.float32) for name, shape in shapes.items()},
        )


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
