"""Tiles in GPU memory: read where they are, after whoever writes them, and on the engine's own GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda_for_tests import LEGACY_DEFAULT_STREAM, Block, FakeCuda, Queue
from fake_driver_for_tests import drawn_pycuda
from tensorrt_machine_for_tests import SIDE, assert_correct, some_tiles

from melanoma_infer.engines import device_arrays
from melanoma_infer.errors import UsageError

NO_STREAM = [(2, None), (3, 0), (3, None)]


class OnGpu:
    """Tiles in GPU memory as from PyTorch or CuPy, while a stream is still writing them."""

    def __init__(self, gpu: FakeCuda, tiles: np.ndarray, device: int = 0, **changes: Any) -> None:
        pointer = gpu.allocate(tiles.nbytes, device)
        self.stream = gpu.handle("cudaStream_t", Queue(device))
        block = gpu.live[pointer]

        def write() -> None:
            block.content[: tiles.nbytes] = tiles.reshape(-1)
            block.is_written = True

        gpu.live[int(self.stream)].add(write)
        self.__cuda_array_interface__ = {
            "shape": tiles.shape, "typestr": "|u1", "data": (pointer, False), "version": 3,
            "strides": None, "stream": int(self.stream), **changes,
        }  # fmt: skip


@pytest.mark.parametrize("count", [1, 5, 70])
def test_tiles_in_gpu_memory_are_not_copied_through_the_host(machine, bundle, count):
    engine = machine.load(bundle)
    tiles = some_tiles(count)
    given = OnGpu(machine.gpu, tiles)
    machine.gpu.copies.clear()
    assert_correct(engine, tiles, given)
    assert {each.kind for each in machine.gpu.copies} == {"DeviceToDevice", "DeviceToHost"}


@pytest.mark.parametrize("changes", [{"version": version, "stream": stream} for version, stream in NO_STREAM])
def test_an_owner_that_names_no_stream_is_waited_for(machine, bundle, changes):
    """PyTorch's `__cuda_array_interface__` is version 2, which has none; PyCUDA's is version 3 and gives None."""
    tiles = some_tiles(5)
    assert_correct(machine.load(bundle), tiles, OnGpu(machine.gpu, tiles, **changes))


def test_a_stream_of_version_3_may_be_the_default_stream(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(5)
    given = OnGpu(machine.gpu, tiles, stream=LEGACY_DEFAULT_STREAM)
    machine.gpu.default_streams[0].work.extend(machine.gpu.live[int(given.stream)].work)
    machine.gpu.live[int(given.stream)].work.clear()
    assert_correct(engine, tiles, given)


@pytest.mark.parametrize("device", [0, 2, None])
def test_tiles_on_another_gpu_or_on_none_are_refused(new_machine, bundle, device):
    """`__cuda_array_interface__` does not say where they are; the CUDA runtime does."""
    machine = new_machine("tensorrt", gpus=3)
    engine = machine.load(bundle, device="cuda:1")
    given = OnGpu(machine.gpu, some_tiles(2), device)
    place = "not in GPU memory" if device is None else f"on cuda:{device}"
    with pytest.raises(UsageError, match=f"{place}, but the engine is on cuda:1"):
        engine.infer(given)


def test_tiles_of_another_dtype_or_layout_are_refused(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(2)
    for changes in (
        {"typestr": "<f4"},
        {"strides": (3 * SIDE * SIDE, 1, SIDE, SIDE * SIDE)},
        {"shape": (2, 3, 64, 64)},
    ):
        with pytest.raises(UsageError):
            engine.infer(OnGpu(machine.gpu, tiles, **changes))


class LikePyTorch:
    """A tensor as of PyTorch: DLPack for the current GPU only, and a `__cuda_array_interface__` without a stream.

    Its content is written by work on the owner's stream, which `__dlpack__` lets the reader's stream wait for.
    """

    def __init__(self, gpu: FakeCuda, array: np.ndarray, number: int = 0) -> None:
        self._gpu, self._number = gpu, number
        self._there = array.copy() if array.flags.c_contiguous else array
        self._stream = Queue(number)
        pointer = self._there.ctypes.data
        if array.flags.c_contiguous:
            self._there.fill(0)
            gpu.live[pointer] = self.block = Block(number, self._there.reshape(-1).view(np.uint8))
            self._stream.add(lambda: self._write(array))
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (pointer, False), "version": 2, "strides": None,
        }  # fmt: skip

    def _write(self, array: np.ndarray) -> None:
        self._there[...] = array
        self.block.is_written = True

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number

    def __dlpack__(self, *, stream: int) -> object:
        if self._gpu.current != self._number:
            raise BufferError("Can't export tensors on a different CUDA device index")
        self._gpu.live[stream].add(self._stream.run)
        return self._there.__dlpack__()


@pytest.mark.parametrize("number", [0, 1])
def test_tiles_of_pytorch_are_read_after_its_stream_has_written_them(new_machine, bundle, number):
    machine = new_machine("tensorrt", gpus=2)
    engine, tiles = machine.load(bundle, device=f"cuda:{number}"), some_tiles(7)
    given = LikePyTorch(machine.gpu, tiles, number)
    machine.gpu.copies.clear()
    machine.gpu.current = 0
    assert_correct(engine, tiles, given)
    assert "HostToDevice" not in {each.kind for each in machine.gpu.copies}


def test_tiles_of_pytorch_that_do_not_fit_are_refused(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(7)
    for array, number, words in (
        (tiles.astype(np.float32), 0, "uint8"),
        (tiles[:, ::2], 0, "contiguous"),
        (tiles, 1, "on cuda:1, but the engine is on cuda:0"),
    ):
        with pytest.raises(UsageError, match=words):
            engine.infer(LikePyTorch(machine.gpu, array, number))


def test_a_dlpack_tensor_may_have_a_byte_offset():
    """NumPy and PyTorch never use one; other libraries do."""
    tiles = some_tiles(3)
    capsule = tiles.__dlpack__()
    tensor = device_arrays._tensor_in(capsule)
    tensor.data, tensor.byte_offset = tensor.data - 4096, 4096
    found = device_arrays._from_capsule(capsule)
    assert (found.pointer, found.shape) == (tiles.ctypes.data, tiles.shape)
    assert found[1:].pointer == tiles[1:].ctypes.data


def test_a_pytorch_tensor_in_host_memory_is_accepted(machine, bundle):
    import torch

    tiles = some_tiles(3)
    assert_correct(machine.load(bundle), tiles, torch.from_numpy(tiles))


# A program that uses PyCUDA, whose context is its own.


@pytest.mark.parametrize("number", [0, 1])
def test_tiles_of_pycuda_are_read_after_its_kernels_and_its_context_stays_current(new_machine, bundle, number):
    """PyCUDA names no stream, its kernels may still run, and the CUDA runtime waits for none of its context."""
    machine = new_machine("tensorrt", gpus=2)
    pycuda = drawn_pycuda(machine.driver, number)["pycuda"]
    engine = machine.load(bundle, device=f"cuda:{number}")
    assert machine.gpu.context == pycuda.autoinit.context
    tiles = some_tiles(7)
    given = 255 - pycuda.gpuarray.to_gpu(255 - tiles)
    machine.gpu.copies.clear()
    assert_correct(engine, tiles, given)
    assert "HostToDevice" not in {each.kind for each in machine.gpu.copies}
    assert machine.gpu.context == pycuda.autoinit.context
    # Tile after tile, and at the end of a stream of them.
    for outputs in engine.infer_each(iter(tiles)):
        assert machine.gpu.context == pycuda.autoinit.context
        assert len(outputs["probabilities"])
    assert machine.gpu.context == pycuda.autoinit.context


def test_an_error_keeps_the_context_too(new_machine, bundle):
    machine = new_machine("tensorrt", gpus=2)
    pycuda = drawn_pycuda(machine.driver)["pycuda"]
    engine = machine.load(bundle, device="cuda:1")
    with pytest.raises(UsageError, match="on cuda:0, but the engine is on cuda:1"):
        engine.infer(pycuda.gpuarray.to_gpu(some_tiles(2)))
    assert machine.gpu.context == pycuda.autoinit.context
