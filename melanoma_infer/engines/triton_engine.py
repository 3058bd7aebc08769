"""Triton: our network on a CUDA GPU, from the bundle's weights, through this project's kernels and CUDA graphs.

PyTorch is imported by `load` alone, and only where there is an NVIDIA driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.engines.batching import BatchRunner
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.frames import Frames
from melanoma_infer.engines.ring import Given, Resizing
from melanoma_infer.engines.slots import BUCKETS, engine_errors
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.records import NativeTile, ScoreSums
from melanoma_infer.runtime.cache import cache_folder
from melanoma_infer.tolerances import Precision

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp16", "bf16", "fp32")
OLDEST = (8, 0)
"""Compute capability of the oldest GPU with a Triton path (launch.TARGETS)."""


class KernelDevice(Resizing, Protocol):
    """A device that resizes and adds up scores by the kernels."""

    def score_sums(self, steps: NDArray[np.int64], count: int) -> ScoreSums:
        """As SumScores, on the stream DOWNLOAD; waits for the sums."""
        ...


class TritonEngine:
    """Our network through the kernels. A tile's last bits depend on its batch's size, never on the other tiles."""

    remarks: tuple[str, ...] = ()

    def __init__(self, bundle: Bundle, device: KernelDevice, numerics: Numerics, buckets: tuple[int, ...]) -> None:
        names = ("probabilities", *bundle.card.outputs)
        self._runner = BatchRunner(
            device,
            tile_px=bundle.card.tile_px,
            outputs={name: bundle.golden.outputs[name].shape[1:] for name in names},
            buckets=buckets,
            resize=device.resize,
        )
        self.numerics = numerics
        self.frames = Frames(device.pinned)
        self._device = device

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use: those that the GPU's memory has held so far."""
        return self._runner.buckets

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The network's outputs for tiles (N, tile_px, tile_px, 3), batch after batch.

        Raises:
            UsageError: the tiles have another shape or dtype.
            MemoryExhaustedError: the GPU's memory does not hold a single tile's pass.
            GpuLostError: the GPU stopped working.
            EngineUnavailableError: the runtime failed otherwise.
        """
        return self._runner.infer(tiles)

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are under way."""
        return self._runner.tiles_at_once

    def infer_each(self, tiles: Iterable[Given]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), frame or native tile, in batches; errors as `infer`."""
        return self._runner.infer_each(tiles)

    def resized(self, tile: NativeTile) -> NDArray[np.uint8]:
        """A native tile as the network gets it, (tile_px, tile_px, 3); errors as `infer`."""
        return self._runner.resized(tile)

    def score_sums(self, steps: NDArray[np.int64], count: int) -> ScoreSums:
        """The sums of a slide's tile scores (N,), in SCORE_STEPS, and of the `count` highest; errors as `infer`."""
        with engine_errors():
            return self._device.score_sums(steps, count)


def load(
    bundle: Bundle,
    precision: Precision,
    threads: int | None,
    device: str | None,
    *,
    buckets: tuple[int, ...] = BUCKETS,
) -> TritonEngine:
    """Our network with the bundle's weights on a CUDA device.

    One tile is computed, so that what does not work here is refused here.

    Args:
        bundle: with weights of our own network.
        precision: of the backbone: fp16, bf16 or fp32.
        threads: not used.
        device: None or "cuda" for the first GPU, "cuda:1" and so on.
        buckets: batch sizes, rising.

    Raises:
        EngineUnavailableError: PyTorch, the weights, the precision or the device does not exist here, or fails.
        BundleError: the weights do not fit the network that the card describes.
        MemoryExhaustedError: the GPU's memory does not hold a single tile's pass.
        GpuLostError: the GPU stopped working.
    """
    if bundle.weights is None or bundle.card.network is None:
        raise EngineUnavailableError("The bundle has no weights of our own network. Use --engine openvino.")
    if precision not in PRECISIONS:
        raise EngineUnavailableError(
            f"The triton engine runs {', '.join(PRECISIONS)}, not {precision}. Choose one of these."
        )
    # Before PyTorch is imported: kernels cannot run there.
    if device == "cpu":
        raise EngineUnavailableError("The triton engine runs on a CUDA device. For the CPU, use --engine openvino.")
    if not nvidia_driver_is_loaded():
        raise EngineUnavailableError("There is no NVIDIA driver here, so no CUDA device. Use --engine openvino.")
    # Nothing is written to the home folder.
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder("triton")))
    try:
        import torch
        import triton

        from melanoma_infer.engines import torch_device
    except ImportError as error:
        raise EngineUnavailableError(
            "PyTorch or Triton does not load here. Install them: pip install 'mminfer[torch]'."
        ) from error
    place = _place(device or "cuda")
    name = torch.cuda.get_device_name(place)
    numerics = Numerics("triton", f"{triton.__version__} (torch {torch.__version__})", precision, name)
    with engine_errors():
        opened = torch_device.open_device(network_of(bundle), torch_device.DTYPES[precision], place)
    engine = TritonEngine(bundle, opened, numerics, buckets)
    engine.infer(bundle.golden.tiles[:1])
    return engine


def _place(device: str) -> torch.device:
    """The device of that name, with its number.

    Raises:
        EngineUnavailableError: PyTorch does not find it, or it is too old.
    """
    import torch

    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            f"PyTorch {torch.__version__} finds no CUDA device: is it a build for CUDA, and does nvidia-smi show the "
            "GPU? If not, use --engine openvino."
        )
    try:
        number = torch.device(device).index
        place = torch.device("cuda", torch.cuda.current_device() if number is None else number)
        capability = torch.cuda.get_device_capability(place)
    except (RuntimeError, AssertionError) as error:
        raise EngineUnavailableError(f"There is no CUDA device {device!r}. Leave --device out.") from error
    if capability < OLDEST:
        raise EngineUnavailableError(
            f"{torch.cuda.get_device_name(place)} is sm_{capability[0]}{capability[1]}; the kernels need sm_80 or "
            "newer. Use --engine openvino."
        )
    return place
