"""Launches: targets, launch parameters with their reasons, and the choice between the tail's two plans.

A `Launch` is the one record that the GPU, the compiler and the proofs (interpreter, traffic counter, sanitizer) read,
so none of them can look at another configuration than the one that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import HeadShape, MapShape

Outputs_co = TypeVar("Outputs_co", covariant=True)


@dataclass(frozen=True)
class Target:
    """A CUDA architecture that the kernels are compiled for."""

    sm: int
    """Compute capability, 90 for 9.0."""
    shared_limit_bytes: int
    """The most shared memory that one block may have (CUDA C++ Programming Guide, technical specifications)."""


TARGETS = {
    target.sm: target
    for target in (
        Target(80, 163 * 1024),
        Target(86, 99 * 1024),
        Target(87, 163 * 1024),
        Target(89, 99 * 1024),
        Target(90, 227 * 1024),
        Target(100, 227 * 1024),
        Target(120, 99 * 1024),
        Target(121, 99 * 1024),
    )
}


GRID_LIMIT = 65_535
"""The most programs along the second and third axis of a CUDA grid; the first axis takes 2³¹ − 1."""


@dataclass(frozen=True)
class LaunchConfig:
    """Launch parameters as data, with the reason for them."""

    num_warps: int
    num_stages: int
    blocks: Mapping[str, int]
    """The block sizes among the kernel's constants, by name."""
    reason: str


@dataclass(frozen=True)
class Launch:
    """One complete kernel launch."""

    name: str
    """The kernel's name, as in files, tests, benchmarks and results."""
    kernel: Any
    """The function, as `@triton.jit` returns it."""
    grid: tuple[int, int, int]
    arguments: Mapping[str, Tensor | int]
    """In the kernel's order; integers are int32."""
    stored: tuple[str, ...]
    """The arguments that the kernel writes."""
    constants: Mapping[str, Any]
    """Every constexpr of the kernel, `config.blocks` among them."""
    config: LaunchConfig

    def __post_init__(self) -> None:
        """Raise KernelInputError if a GPU would not take the grid, or the arguments are on several devices."""
        if max(self.grid[1:]) > GRID_LIMIT:
            raise KernelInputError(
                f"{self.name} takes at most {GRID_LIMIT} tiles in a call, not {max(self.grid[1:])}. Split the batch."
            )
        devices = {value.device for value in self.arguments.values() if isinstance(value, Tensor)}
        if len(devices) > 1:
            names = " and ".join(sorted(map(str, devices)))
            raise KernelInputError(f"The arguments of {self.name} are on {names}. Move them to one device.")

    def run(self) -> None:
        """Launch on the current stream of the arguments' device, unless the grid is empty."""
        if 0 in self.grid:
            return
        # Triton launches on the thread's current device, whatever the arguments' device is.
        with torch.cuda.device_of(self.arguments[self.stored[0]]):
            self.kernel[self.grid](
                **self.arguments, **self.constants, num_warps=self.config.num_warps, num_stages=self.config.num_stages
            )


@dataclass(frozen=True)
class Planned(Generic[Outputs_co]):
    """The outputs of a function, not written yet, and the launches that write them, in order."""

    outputs: Outputs_co
    launches: tuple[Launch, ...]

    def run(self) -> Outputs_co:
        """Launch everything and return the outputs; a GPU writes them when its stream gets there."""
        for launch in self.launches:
            launch.run()
        return self.outputs


def target_of(device: torch.device) -> Target | None:
    """The target whose code a CUDA device runs: its own or the newest one below it; None for a GPU before sm_80."""
    major, minor = torch.cuda.get_device_capability(device)
    usable = [sm for sm in TARGETS if sm <= 10 * major + minor]
    return TARGETS[max(usable)] if usable else None


TailPlan = Literal["attention_tail", "split"]
TAIL_PIXELS = 256
"""attention_tail keeps F values a pixel in the registers of one program: 256 · 128 · 4 bytes are half of an SM's."""


def tail_plan(batch: int, pixels: int, processors: int) -> tuple[TailPlan, str]:
    """The plan that computes the tail, and why; `processors` is the number of the GPU's multiprocessors."""
    if pixels > TAIL_PIXELS:
        return "split", f"{pixels} pixels do not fit the registers of one program"
    if 2 * batch < processors:
        return "split", f"{batch} programs would leave most of {processors} multiprocessors idle"
    return "attention_tail", "x is read once, in one launch"


def tail_config(dtype: torch.dtype, shape: MapShape, head: HeadShape, target: Target) -> LaunchConfig:
    """Launch parameters of attention_tail.

    Raises:
        KernelInputError: the map has more than TAIL_PIXELS pixels.
    """
    if shape.pixels > TAIL_PIXELS:
        raise KernelInputError(f"x has {shape.pixels} pixels: attention_tail takes {TAIL_PIXELS}. Use the split plan.")
    many_warps = target.sm == 100 and dtype.itemsize == 2
    return LaunchConfig(
        num_warps=16 if many_warps else 8,
        num_stages=1,
        blocks={
            "BLOCK_P": max(16, _power_of_two(shape.pixels)),
            "BLOCK_C": 32 if dtype.itemsize == 2 else 16,
            "BLOCK_K": max(2, _power_of_two(head.classes)),
            "BLOCK_M": 4 if many_warps else 16,
        },
        reason="8 warps hold 256 x 128 sums in 128 registers each, and blocks of 64 channels would spill; on sm_100 8 "
        "warps mean tcgen05, which spills 96 bytes, and 16 mean mma.sync, which spills 8 with blocks of 16 neurons, "
        "none with 4. One stage: a pipelined tile of x, which feeds a product and two reductions, stays unswizzled, "
        "with 3 times the shared-memory wavefronts",
    )


def pool_config(dtype: torch.dtype, channels: int) -> LaunchConfig:
    """Launch parameters of channel_pool."""
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK_P": 16, "BLOCK_C": min(512 // dtype.itemsize, _power_of_two(channels))},
        reason="16 pixels a program give all multiprocessors work at few tiles; rows of 512 bytes are whole lines",
    )


def attend_config(dtype: torch.dtype, channels: int) -> LaunchConfig:
    """Launch parameters of spatial_attention."""
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK_P": 128, "BLOCK_C": min(128 // dtype.itemsize, _power_of_two(channels))},
        reason="128 pixels, so that each thread does one pixel's convolution; rows of 128 bytes are whole lines",
    )


def project_config(dtype: torch.dtype, target: Target) -> LaunchConfig:
    """Launch parameters of attention_project."""
    narrow = target.sm == 100 or dtype.itemsize == 4
    has_wgmma = target.sm == 90 and dtype.itemsize == 2
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK_P": 64 if has_wgmma else 32, "BLOCK_C": 32 if narrow else 64},
        reason="32 pixels a program spread one tile of 256 over 8 multiprocessors; 64 on sm_90, whose wgmma takes 64 "
        "rows (compiled without spills, never timed); rows of 128 bytes are whole lines, but on sm_100 triton 3.9 "
        "spills 16 bytes with them, so 64; one stage, as attention_tail",
    )


def head_config(head: HeadShape) -> LaunchConfig:
    """Launch parameters of attention_head."""
    return LaunchConfig(
        num_warps=8,
        num_stages=1,
        blocks={"BLOCK_A": 256, "BLOCK_P": 64, "BLOCK_K": max(2, _power_of_two(head.classes)), "BLOCK_M": 16},
        reason="64 x 128 sums are 32 registers each of 8 warps",
    )


def normalize_config() -> LaunchConfig:
    """Launch parameters of normalize_tiles."""
    return LaunchConfig(num_warps=8, num_stages=1, blocks={"BLOCK": 4096}, reason="16 bytes a thread: one 128-bit load")


def block_means_config() -> LaunchConfig:
    """Launch parameters of block_means."""
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK": 1024},
        reason="8 means a thread; neighbouring threads read neighbouring pixels, whose lines the cache keeps",
    )


def resize_config(out: int) -> LaunchConfig:
    """Launch parameters of resize_tiles for images of `out` pixels a side."""
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK_X": 512 if 3 * out % 512 == 0 else 256, "BLOCK_Y": 4},
        reason="4 rows of 512 bytes are 16 sums a thread; 8 rows would compute fewer rows twice, in twice the "
        "registers; a row of 224 pixels is 2.6 blocks of 256",
    )


def aggregate_config() -> LaunchConfig:
    """Launch parameters of aggregate_tiles."""
    return LaunchConfig(
        num_warps=4,
        num_stages=1,
        blocks={"BLOCK": 1024},
        reason="8 scores a thread; a slide seldom has more than 50,000 tiles",
    )


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below the number."""
    return 1 << (number - 1).bit_length()
