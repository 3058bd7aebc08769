"""Our network on a GPU through PyTorch and the kernels: what the `triton` engine gives to `batching`."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from triton import TritonError

from melanoma_infer.engines.device import DeviceError, DeviceLostError, DeviceMemoryError, Stream
from melanoma_infer.engines.torch_fusion import fold_batchnorm, fuse_convolutions, fuses_right
from melanoma_infer.engines.torch_resize import TorchResize
from melanoma_infer.model.depth import averages_of
from melanoma_infer.model.melanoma_net import MelanomaNet, TileOutputs
from melanoma_infer.records import NativeTile, ScoreSums
from melanoma_infer.tolerances import Precision
from mminfer_kernels import torch_ops
from mminfer_kernels.errors import KernelError
from mminfer_kernels.exact import exact_float32
from mminfer_kernels.launch import TARGETS, target_of
from mminfer_kernels.reference import Classifier

DTYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TORCH_DTYPES: dict[type[np.generic], torch.dtype] = {np.uint8: torch.uint8, np.float32: torch.float32}
FAILURES = (RuntimeError, AssertionError, KernelError, TritonError, OSError, subprocess.SubprocessError)
"""What a CUDA call raises: PyTorch's errors are RuntimeErrors; Triton has its own, asserts, and starts compilers."""
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""How CUDA, and cuBLAS and cuDNN, say it where PyTorch has no class for it."""


class KernelNetwork:
    """Our network for inference: backbone in a dtype of DTYPES, channels-last; normalisation and tail by kernels.

    The depth module, the attention's convolution and the head compute in float32 whatever the backbone's dtype: they
    are a four-hundredth of the arithmetic, and mm and probabilities come from them. BatchNorm is folded into the
    backbone's convolutions in float32, before they are converted, and cuDNN fuses them with what follows if it does so
    right here. The network itself is changed.
    """

    def __init__(self, net: MelanomaNet, dtype: torch.dtype, device: torch.device) -> None:
        self._net = net.eval().requires_grad_(False).to(device)
        self._dtype = dtype
        fold_batchnorm(self._net.backbone)
        for module in self._net.backbone.to(dtype).modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        with reproducible():
            self.is_fused = fuses_right(dtype, device)
        """Whether bias, sum and ReLU are computed in the convolutions' kernels, and not each in one of its own."""
        if self.is_fused:
            fuse_convolutions(self._net.backbone)
        self._w1_image = net.w1_image.to(dtype)
        self._offset = net.offset()

    def __call__(self, tiles: Tensor) -> TileOutputs:
        """All outputs, float32, for tiles uint8 (N, tile_px, tile_px, 3), contiguous, on the network's device."""
        net = self._net
        images = torch_ops.normalize_tiles(tiles, net.mean, net.std, self._dtype)
        # The kernels take channels-last maps alone, and another layout would silently go round them.
        x = net.backbone(images).contiguous(memory_format=torch.channels_last)
        depth_mm = net.depth.of_averages(averages_of(tiles, net.mean, net.std))
        classifier = Classifier(depth_mm, net.w1_depth, self._offset, net.w2, net.b2, net.w3, net.b3, net.groups)
        tail = torch_ops.attention_tail(x, net.attention.weight, net.attention.bias, self._w1_image, classifier)
        return TileOutputs(tail.probabilities, depth_mm, tail.attention, tail.cam, tail.features)


class Pass:
    """The network from the first rows of a buffer to the first rows of others, always the same memory."""

    def __init__(self, network: KernelNetwork, tiles: Tensor, outputs: Mapping[str, Tensor], rows: int) -> None:
        self._network = network
        self._tiles = tiles[:rows]
        self._outputs = {name: output[:rows] for name, output in outputs.items()}

    def run(self) -> None:
        """Compute, on the current stream."""
        with torch.inference_mode():
            results = self._network(self._tiles)
            for name, output in self._outputs.items():
                output.copy_(getattr(results, name))


def open_device(net: MelanomaNet, dtype: torch.dtype, place: torch.device) -> CudaDevice:
    """The network on a CUDA device.

    Raises:
        DeviceError: it cannot be moved there.
    """
    with on_gpu(place):
        return CudaDevice(KernelNetwork(net, dtype, place), place)


class CudaDevice:
    """A CUDA GPU through PyTorch: streams of its own, and one CUDA graph for each program."""

    def __init__(self, network: KernelNetwork, device: torch.device) -> None:
        self._network, self._device = network, device
        self._streams = {stream: torch.cuda.Stream(device) for stream in Stream}  # type: ignore[no-untyped-call]
        # Programs take turns on one stream and leave nothing in the pool, so all of them may work in the same memory.
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(device)  # the weights were copied on another stream
        self._resize = TorchResize(device, target_of(device) or TARGETS[80])

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked memory of PyTorch's, which lives as long as the array."""
        with on_gpu(self._device):
            array: NDArray[Any] = torch.zeros(shape, dtype=TORCH_DTYPES[dtype], pin_memory=True).numpy()
            return array

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """A tensor, which no stream uses any more when it is returned."""
        with on_gpu(self._device):
            tensor = torch.zeros(shape, dtype=TORCH_DTYPES[dtype], device=self._device)
            torch.cuda.synchronize(self._device)
            return tensor

    def program(self, tiles: Tensor, outputs: Mapping[str, Tensor], rows: int) -> torch.cuda.CUDAGraph:
        """The forward pass as a CUDA graph; it was run once before, which compiled the kernels and chose algorithms."""
        forward = Pass(self._network, tiles, outputs, rows)
        graph, stream = torch.cuda.CUDAGraph(), self._streams[Stream.COMPUTE]
        # The outer stream context restores the caller's stream where a failed capture does not.
        with on_gpu(self._device), torch.cuda.stream(stream), reproducible():
            forward.run()
            # thread_local: other threads of the program may go on using CUDA while this one captures.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                forward.run()
        return graph

    def upload(self, source: NDArray[Any] | Tensor, target: Tensor, first: int = 0) -> None:
        """Copy without waiting: pinned rows, or rows of a buffer."""
        rows = torch.from_numpy(source) if isinstance(source, np.ndarray) else source
        with on_gpu(self._device), torch.cuda.stream(self._streams[Stream.UPLOAD]):
            target[first : first + len(rows)].copy_(rows, non_blocking=True)

    def resize(self, tiles: Sequence[NativeTile], target: Tensor, first: int) -> None:
        """Upload native tiles and resize them into the target's rows from `first` on, without waiting."""
        with on_gpu(self._device), torch.cuda.stream(self._streams[Stream.UPLOAD]):
            self._resize(tiles, target[first : first + len(tiles)])

    def score_sums(self, steps: NDArray[np.int64], count: int) -> ScoreSums:
        """As SumScores; waits for the sums."""
        with on_gpu(self._device), torch.cuda.stream(self._streams[Stream.DOWNLOAD]):
            return score_sums(torch.from_numpy(steps).to(self._device), count)

    def launch(self, program: torch.cuda.CUDAGraph) -> None:
        """Replay the graph."""
        with on_gpu(self._device), torch.cuda.stream(self._streams[Stream.COMPUTE]):
            program.replay()

    def download(self, source: Tensor, target: NDArray[Any]) -> None:
        """Copy without waiting."""
        with on_gpu(self._device), torch.cuda.stream(self._streams[Stream.DOWNLOAD]):
            torch.from_numpy(target).copy_(source[: len(target)], non_blocking=True)

    def record(self, stream: Stream) -> torch.cuda.Event:
        """A CUDA event; a host that waits for it sleeps, because decoding needs the cores."""
        with on_gpu(self._device):
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(self._streams[stream])
            return event

    def wait(self, stream: Stream, event: torch.cuda.Event) -> None:
        """Let the stream wait; the host does not."""
        with on_gpu(self._device):
            self._streams[stream].wait_event(event)

    def synchronize(self, event: torch.cuda.Event) -> None:
        """Let the host wait."""
        with on_gpu(self._device):
            event.synchronize()

    def release(self) -> None:
        """Wait for the GPU, and give cached memory back."""
        gc.collect()  # an error that was just handled may hold tensors in a cycle of frames
        with on_gpu(self._device):
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            # PyTorch takes a pool whose last graph is gone for a bug when another capture names it.
            self._pool = torch.cuda.graph_pool_handle()


def score_sums(steps: Tensor, count: int) -> ScoreSums:
    """The sums of one slide's scores by the kernel, on the tensor's device and the current stream."""
    offsets, ranks = steps.new_tensor([0, len(steps)]), steps.new_tensor([count])
    return ScoreSums(*(int(value) for value in torch.cat(torch_ops.aggregate_tiles(steps, offsets, ranks)).tolist()))


@contextmanager
def reproducible() -> Iterator[None]:
    """Within it, the same algorithms are chosen in every process, and float32 is not TF32."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with exact_float32():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def on_gpu(place: torch.device) -> Iterator[None]:
    """Within it, `place` is the thread's current device, and what PyTorch and Triton raise becomes a DeviceError.

    Memory is pinned, and events and graphs are made, in the context of the current device.

    Raises:
        DeviceError: of the kind that `device` describes.
    """
    with translated(place), torch.cuda.device(place):
        yield


@contextmanager
def translated(place: torch.device) -> Iterator[None]:
    """Within it, what PyTorch and Triton raise becomes a DeviceError.

    Raises:
        DeviceError: of the kind that `device` describes.
    """
    try:
        yield
    except FAILURES as error:
        raise _meaning(error, place) from error


def _meaning(error: BaseException, place: torch.device) -> DeviceError:
    what = str(error).partition("\n")[0].rstrip(".")
    if isinstance(error, subprocess.SubprocessError):
        what = "the C compiler that Triton starts failed: are a compiler and Python's headers installed?"
    # The error and what it was raised during: a capture that ran out of memory ends with another error.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError) or any(words in str(cause) for words in OUT_OF_MEMORY):
            return DeviceMemoryError(what)
        cause = cause.__cause__ or cause.__context__
    if place.type == "cuda":
        try:
            torch.cuda.synchronize(place)
        except RuntimeError:  # even waiting fails: an error that poisons the CUDA context comes back from every call
            return DeviceLostError(what)
    return DeviceError(what)
