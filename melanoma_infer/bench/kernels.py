"""The kernels at a bundle's sizes, each checked before it is timed, beside plain PyTorch and the speed of a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from melanoma_infer.bench.chart import Bar, chart
from melanoma_infer.card import ModelCard
from melanoma_infer.engines.torch_device import DTYPES
from melanoma_infer.errors import UsageError
from melanoma_infer.tolerances import Precision
from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.launch import TailPlan
from mminfer_kernels.timing import measure, milliseconds

REDUCTION = 32
"""Pixels of a tile in one of the backbone's last map."""
EXPANSION = 32
"""Channels of that map for each after the first convolution."""
COPIED_BYTES = 1 << 28
NAMES: dict[torch.dtype, Literal["fp32", "uint8", "int64"]] = {
    torch.float32: "fp32", torch.uint8: "uint8", torch.int64: "int64",
}  # fmt: skip
"""Names of the types that some functions take whatever the precision."""


@dataclass(frozen=True)
class KernelRow:
    """One function by one provider: the median of its repeats, and their 20th and 80th percentile."""

    kernel: str
    provider: str
    """`kernel`, `torch` (the plain function) or `as-written` (the paper's equations one by one)."""
    plan: TailPlan | None
    """How the kernels compute the tail: in one launch (`attention_tail`) or two (`split`); None for other rows."""
    precision: Precision | Literal["uint8", "int64"]
    shape: str
    """(N, C, h, w) of the backbone's map."""
    device: str
    tiles_per_s: float
    p20: float
    p80: float
    ratio_to_torch: float
    """The median rate by that of the plain function."""
    share_of_copy: float
    """The least that has to be read and written, by what a copy moves in the same time. It exceeds 1 where a GPU's
    cache holds a small batch from one call to the next."""
    max_error: float
    """Error of the output, compared with float64."""
    allowed_error: float

    @property
    def by(self) -> str:
        """The provider and its plan."""
        return self.provider if self.plan is None else f"{self.provider}, {self.plan}"

    @property
    def cells(self) -> tuple[str, ...]:
        """Its figures, for a table."""
        return (
            self.kernel,
            self.by,
            self.precision,
            f"{self.tiles_per_s:.0f}",
            f"{self.p20:.0f}-{self.p80:.0f}",
            f"{self.ratio_to_torch:.2f}",
            f"{self.share_of_copy:.0%}",
            f"{self.max_error:.1e}",
            f"{self.allowed_error:.1e}",
        )


def sizes_of(card: ModelCard, batch: int, precision: Precision) -> Problem:
    """The sizes that the kernels meet in a bundle's network.

    Raises:
        UsageError: the bundle holds another network than ours.
    """
    if card.network is None:
        raise UsageError("This bundle is not of our own network, which is what the kernels are for. Use --bundle demo.")
    side = card.tile_px // REDUCTION
    return Problem(
        DTYPES[precision],
        batch=batch,
        channels=EXPANSION * card.network.width,
        height=side,
        width=side,
        tile_px=card.tile_px,
        classes=len(card.classes),
    )


def time_kernels(
    problem: Problem,
    precision: Precision,
    device: str,
    *,
    kernels: Sequence[str] = KERNELS,
    tell: Callable[[str], None] = lambda _text: None,
) -> Iterator[KernelRow]:
    """The rows of each kernel, plain PyTorch first.

    Args:
        problem: the sizes.
        precision: of the backbone's map; a kernel that takes float32 or uint8 alone gets that.
        device: "cpu", where no kernel runs but its references do, or "cuda".
        kernels: some of mminfer_kernels.catalogue.KERNELS.
        tell: called with what is being timed.

    Raises:
        KernelError: an answer is wrong, so its time would mean nothing.
    """
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_ms = milliseconds(lambda: target.copy_(source), device)[1]
    for name in kernels:
        tell(name)
        as_given = problem.dtype in catalogue.dtypes(name)
        taken = problem if as_given else replace(problem, dtype=catalogue.dtypes(name)[0])
        rows = list(measure(name, taken, device))
        # All that goes in, and all that comes out, once; a copy reads and writes each byte.
        arguments = catalogue.inputs(name, taken)
        tensors: list[Any] = [*catalogue.flat(arguments), *catalogue.reference(name, arguments, taken.dtype)]
        least_bytes = sum(each.nbytes for each in tensors if isinstance(each, Tensor))
        least_ms = copy_ms * least_bytes / (2 * COPIED_BYTES)
        for row in rows:
            yield KernelRow(
                kernel=row.name,
                provider=row.provider,
                plan=row.plan,
                precision=precision if as_given else NAMES[taken.dtype],
                shape=row.shape,
                device=row.device,
                tiles_per_s=1000 * problem.batch / row.median_ms,
                p20=1000 * problem.batch / row.p80_ms,
                p80=1000 * problem.batch / row.p20_ms,
                ratio_to_torch=rows[0].median_ms / row.median_ms,
                share_of_copy=least_ms / row.median_ms,
                max_error=row.max_error,
                allowed_error=row.allowed_error,
            )


def headline(rows: Sequence[KernelRow]) -> KernelRow | None:
    """The row of the kernel that does most of the work, by the plan that runs here; None where no kernel ran."""
    ran = [row for row in rows if row.provider == "kernel"]
    return next((row for row in ran if row.kernel == "attention_tail"), ran[0] if ran else None)


def conclusion(rows: Sequence[KernelRow]) -> str:
    """The rows in a sentence: the headline's throughput against plain PyTorch and a copy."""
    best = headline(rows)
    if best is None:
        return "No kernel ran, because there is no CUDA device here. These are the times of plain PyTorch on the CPU."
    plan = "" if best.plan is None else f" (plan {best.plan})"
    return (
        f"{best.kernel}{plan} on {best.device}: {best.tiles_per_s:.0f} tiles/s of {best.precision} maps, "
        f"{best.ratio_to_torch:.1f} × plain PyTorch, at {best.share_of_copy:.0%} of the speed of a copy."
    )


def picture(rows: Sequence[KernelRow]) -> bytes:
    """The rows' throughput relative to plain PyTorch as a bar chart, PNG."""
    bars = [
        Bar(
            f"{row.kernel} {row.by}",
            row.ratio_to_torch,
            f"{row.ratio_to_torch:.2f}",
            told=row.provider == "kernel",
        )
        for row in rows
    ]
    return chart(f"Throughput relative to plain PyTorch ({rows[0].device})", bars, "Pale: PyTorch.")
