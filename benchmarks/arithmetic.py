"""What fusions save, and a batch's memory: `python benchmarks/arithmetic.py` prints the tables of arithmetic.md.

A stage takes at least the longer of two times: its bytes divided by the memory bandwidth, and its operations divided by
the peak throughput of the tensor cores, both from the data sheet. No GPU was timed for these numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from melanoma_infer.engines.slots import BUCKETS, SLOTS
from melanoma_infer.engines.torch_fusion import fold_batchnorm
from melanoma_infer.model.resnet50 import ResNet50Backbone

TILE_PX, CHANNELS, FEATURES, BATCH, VALUE = 512, 2048, 128, 32, 2
"""Tile side, channels, features, batch size, and bytes per value (fp16). A batch of 32 tiles shares the weights."""
MAP = CHANNELS * (TILE_PX // 32) ** 2 * VALUE
"""Bytes of one tile's feature map."""


@dataclass(frozen=True)
class Gpu:
    """Peaks from NVIDIA's data sheets; the FLOP/s of the RTX 4000 Ada from its 48 multiprocessors at 2.175 GHz."""

    name: str
    bytes_per_s: float
    flops: float


GPUS = (
    Gpu("L4", 300e9, 121e12),
    Gpu("RTX 4000 Ada", 360e9, 107e12),
    Gpu("A100 80 GB", 2039e9, 312e12),
    Gpu("H100 SXM", 3350e9, 989e12),
)


@dataclass(frozen=True)
class Work:
    """The bytes and operations of one tile in one stage."""

    moved_bytes: float
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.moved_bytes + other.moved_bytes, self.flops + other.flops)

    def microseconds(self, gpu: Gpu) -> float:
        """The shortest possible time on the GPU."""
        return 1e6 * max(self.moved_bytes / gpu.bytes_per_s, self.flops / gpu.flops)


def backbone() -> dict[str, list[Work]]:
    """The convolutions of each stage, with batch normalisation, ReLU and shortcut fused into each."""
    stages: dict[str, list[Work]] = {}
    network = ResNet50Backbone().to("meta")

    def record(name: str, layer: nn.Conv2d, given: tuple[Tensor], out: Tensor) -> None:
        weights = layer.weight.numel()
        maps = 2 if name.endswith("conv3") else 1  # with the shortcut
        values = given[0].numel() + maps * out.numel() + weights / BATCH
        work = Work(VALUE * values, 2 * weights * out.shape[2] * out.shape[3])
        stages.setdefault(name.split(".")[0], []).append(work)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(partial(record, name))
    network(torch.empty(1, 3, TILE_PX, TILE_PX, device="meta"))
    before_pooling = 64 * (TILE_PX // 2) ** 2 * VALUE
    stages["conv1"].append(Work(before_pooling + before_pooling / 4))
    return stages


def network() -> dict[str, list[Work]]:
    """Every stage for one tile as the paper's equations are usually run: normalise, backbone, tail."""
    pixels = TILE_PX**2 * 3
    return {"normalise": [Work(pixels * (1 + VALUE))], **backbone(), "tail": [Work(5 * MAP)]}


def fusions() -> Iterator[tuple[str, list[Work], Work]]:
    """Each fusion: its name, the work without it, one step after the other, and the work with it."""
    stages = network()
    products = 2 * CHANNELS * FEATURES * (TILE_PX // 32) ** 2
    weights = VALUE * CHANNELS * FEATURES / BATCH
    yield "pooling without writing the attended map", stages["tail"], Work(2 * MAP)
    yield "attention_tail: x is read once", stages["tail"], Work(MAP + weights, products)
    stem = [*stages["normalise"], *stages["conv1"]]
    read, written = TILE_PX**2 * 3, 64 * (TILE_PX // 4) ** 2 * VALUE
    yield "normalise, first convolution, ReLU and pooling in one", stem, Work(read + written, _flops(stem))
    # Each block reads its input once and writes its output once: 64 channels into the first block, 256 elsewhere.
    values = (TILE_PX // 4) ** 2 * (64 + 256 + 2 * (256 + 256))
    yield "the blocks of layer1, each in one", stages["layer1"], Work(VALUE * values, _flops(stages["layer1"]))


class Live(TorchDispatchMode):
    """The most bytes that tensors of the operators within have at a time."""

    def __init__(self, held: int) -> None:
        super().__init__()
        self._now, self.peak = held, held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self._now += result.nbytes
            self.peak = max(self.peak, self._now)
            weakref.finalize(result, self._free, result.nbytes)
        return result

    def _free(self, nbytes: int) -> None:
        self._now -= nbytes


def activation_bytes() -> int:
    """What the backbone holds at most for one tile, with ReLU and shortcut as operators of their own."""
    network = ResNet50Backbone().eval().requires_grad_(False)
    fold_batchnorm(network)
    images = torch.empty(1, 3, TILE_PX, TILE_PX, dtype=torch.float16, device="meta")
    with torch.inference_mode(), Live(images.nbytes) as live:
        network.half().to("meta")(images)
    return live.peak


def memory() -> Iterator[str]:
    """What a batch needs on the GPU, as a Markdown table."""
    pixels = TILE_PX**2 * 3
    yield "| GB on the GPU, at most, by batch size | " + " | ".join(map(str, BUCKETS)) + " |"
    yield "|---" * (1 + len(BUCKETS)) + "|"
    activations = activation_bytes()
    yield "| activations of the backbone | " + _row((rows * activations / 1e9 for rows in BUCKETS), "{:.2f}")
    yield f"| tiles in {SLOTS} slots | " + _row((SLOTS * rows * pixels / 1e9 for rows in BUCKETS), "{:.2f}")


def _flops(works: list[Work]) -> float:
    return sum(work.flops for work in works)


def total(stages: dict[str, list[Work]], gpu: Gpu) -> float:
    """The shortest possible time for one tile in µs, one layer after the other."""
    return sum(work.microseconds(gpu) for works in stages.values() for work in works)


def tables() -> Iterator[str]:
    """The two tables as Markdown."""
    stages = network()
    yield "| stage, least µs per tile | MB | GFLOP | " + " | ".join(gpu.name for gpu in GPUS) + " |"
    yield "|---" * (3 + len(GPUS)) + "|"
    for name, works in stages.items():
        whole = sum(works, Work(0))
        times = (sum(work.microseconds(gpu) for work in works) for gpu in GPUS)
        yield f"| {name} | {whole.moved_bytes / 1e6:.1f} | {whole.flops / 1e9:.2f} | " + _row(times, "{:.1f}")
    yield "| all | | | " + _row((total(stages, gpu) for gpu in GPUS), "{:.1f}")
    yield ""
    yield "| fusion, at most | " + " | ".join(gpu.name for gpu in GPUS) + " |"
    yield "|---" * (1 + len(GPUS)) + "|"
    for name, apart, fused in fusions():
        saved = (sum(part.microseconds(gpu) for part in apart) - fused.microseconds(gpu) for gpu in GPUS)
        shares = (saving / total(stages, gpu) for saving, gpu in zip(saved, GPUS, strict=True))
        yield f"| {name} | " + _row(shares, "{:.1%}")


def _row(values: Iterator[float], form: str) -> str:
    return " | ".join(form.format(value) for value in values) + " |"


if __name__ == "__main__":
    print("\n".join([*tables(), "", *memory()]))
