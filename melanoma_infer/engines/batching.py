"""Batches of fixed sizes through a GPU: a ring of slots, of which one is filled while the others are computed.

Each batch fills a bucket (a fixed batch size) or is padded to it, because a captured program has a fixed batch size.
The slots take turns. Each slot's tiles are uploaded, its program runs, and its outputs are downloaded, each on its own
stream after the event of the previous step; the host copies the outputs before it fills the slot again. This works
with any runtime that implements `Device`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.base import Outputs
from melanoma_infer.engines.device import Device, DeviceMemoryError
from melanoma_infer.engines.device_arrays import DeviceTiles
from melanoma_infer.engines.ring import Given, Resize, Ring
from melanoma_infer.engines.slots import BUCKETS, SLOTS, Batch, InFlight, Slot, Slots, engine_errors, split
from melanoma_infer.records import NativeTile


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
        self._slots = Slots(device, tile_px=tile_px, outputs=outputs, buckets=buckets)
        self._ring = Ring(self._slots, resize)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use: those that have fitted the GPU's memory so far."""
        return self._slots.buckets

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
        self._slots.require_shape(tiles)
        with engine_errors():
            while True:
                try:
                    return self._run(tiles)
                except DeviceMemoryError:
                    if len(self._slots.buckets) == 1:
                        raise
                # Outside the handler, because the error refers to frames, and these to the memory to be freed.
                self._slots.drop_largest()

    @property
    def tiles_at_once(self) -> int:
        """How many tiles fill all slots."""
        return SLOTS * self._slots.buckets[-1]

    def infer_each(self, tiles: Iterable[Given]) -> Iterator[Outputs]:
        """The outputs for each tile, in order, a batch at a time.

        A slot is filled tile by tile and computed when it is full. An array is copied once into page-locked memory; a
        frame is uploaded as it is, and kept until its batch is collected. The
        oldest batch is collected when all slots are in use. If the largest bucket does not fit the GPU's memory, it is
        dropped for good when the batches in progress are done.

        Args:
            tiles: arrays (tile_px, tile_px, 3), frames that hold one each, or native tiles, all of one kind; they are
                taken as needed.

        Raises:
            The same errors as `infer`.
        """
        return self._ring.infer_each(tiles)

    def resized(self, tile: NativeTile) -> NDArray[np.uint8]:
        """One native tile as the network gets it: uint8 (tile_px, tile_px, 3).

        Raises:
            The same errors as `infer`.
        """
        return self._ring.resized(tile)

    def _run(self, tiles: NDArray[np.uint8] | DeviceTiles) -> Outputs:
        results = {name: np.empty((len(tiles), *shape), np.float32) for name, shape in self._slots.outputs.items()}
        in_flight: deque[InFlight] = deque()
        for number, batch in enumerate(split(len(tiles), self._slots.buckets)):
            if len(in_flight) == SLOTS:
                self._collect(in_flight.popleft(), results)
            in_flight.append(self._submit(batch, self._slots.at(number), tiles[batch.rows]))
        while in_flight:
            self._collect(in_flight.popleft(), results)
        return results

    def _submit(self, batch: Batch, slot: Slot, tiles: NDArray[np.uint8] | DeviceTiles) -> InFlight:
        """Start a batch in a free slot; what an interrupted call left there precedes this work on each stream.

        Tiles in host memory are padded with zeros. Tiles in GPU memory are not: the rest of the buffer keeps its old
        rows, whose outputs are not used.
        """
        self._slots.program(slot, batch.bucket)
        if not isinstance(tiles, DeviceTiles):
            padded = slot.host_tiles[: batch.bucket]
            padded[: batch.size] = tiles
            padded[batch.size :] = 0
            tiles = padded
        self._slots.device.upload(tiles, slot.tiles)
        return self._slots.launched(batch, slot)

    def _collect(self, done: InFlight, results: Mapping[str, NDArray[Any]]) -> None:
        """Wait for a batch and copy its outputs to `results`; its slot is then free."""
        self._slots.device.synchronize(done.downloaded)
        for name, output in done.slot.host_outputs.items():
            results[name][done.batch.rows] = output[: done.batch.size]
