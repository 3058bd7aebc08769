"""The kernels at a bundle's sizes, each checked before it is timed, beside plain PyTorch and the speed of a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from melanoma_infer.card import ModelCard
from melanoma_infer.engines.torch_device import DTYPES
from melanoma_infer.errors import UsageError
from melanoma_infer.tolerances import Precision
from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.timing import Row, measure, milliseconds

REDUCTION = 32
"""Pixels of a tile in one of the backbone's last map."""
EXPANSION = 32
"""Channels of that map for each after the first convolution."""
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class KernelRow:
    """One function by one provider: the median of its repeats, and their 20th and 80th percentile."""

    kernel: str
    provider: str
    """`kernel`, `torch` (the plain function) or `as-written` (the paper's equations one by one)."""
    precision: Precision
    shape: str
    """(N, C, h, w) of the backbone's map."""
    device: str
    tiles_per_s: float
    p20: float
    p80: float
    ratio_to_torch: float
    """The median rate by that of the plain function."""
    share_of_copy: float
    """The least that has to be read and written, by what a copy moves in the same time."""
    max_error: float
    """Of the answer, against float64."""
    allowed_error: float


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
        precision: of the backbone's map; a kernel that takes float32 alone gets that.
        device: "cpu", where no kernel runs but its references do, or "cuda".
        kernels: some of mminfer_kernels.catalogue.KERNELS.
        tell: called with what is being timed.

    Raises:
        KernelError: an answer is wrong, so its time would mean nothing.
    """
    copied = _copy_bytes_per_s(device)
    for name in kernels:
        tell(name)
        taken, as_given = problem, problem.dtype in catalogue.dtypes(name)
        if not as_given:
            taken = replace(problem, dtype=torch.float32)
        rows = list(measure(name, taken, device))
        copy_s = _least_bytes(name, taken) / copied
        yield from (_row(row, rows[0], precision if as_given else "fp32", problem.batch, copy_s) for row in rows)


def headline(rows: Sequence[KernelRow]) -> KernelRow | None:
    """The row of the kernel that does most of the work; None where no kernel ran."""
    ran = [row for row in rows if row.provider == "kernel"]
    return next((row for row in ran if row.kernel == "attention_tail"), ran[0] if ran else None)


def _row(row: Row, plain: Row, precision: Precision, batch: int, copy_s: float) -> KernelRow:
    return KernelRow(
        kernel=row.name,
        provider=row.provider,
        precision=precision,
        shape=row.shape,
        device=row.device,
        tiles_per_s=1000 * batch / row.median_ms,
        p20=1000 * batch / row.p80_ms,
        p80=1000 * batch / row.p20_ms,
        ratio_to_torch=plain.median_ms / row.median_ms,
        share_of_copy=1000 * copy_s / row.median_ms,
        max_error=row.max_error,
        allowed_error=row.allowed_error,
    )


def _least_bytes(name: str, problem: Problem) -> int:
    """All that goes in, and all that comes out, once."""
    arguments = catalogue.inputs(name, problem)
    tensors: list[Any] = [*catalogue.flat(arguments), *catalogue.reference(name, arguments, problem.dtype)]
    return sum(each.nbytes for each in tensors if isinstance(each, Tensor))


def _copy_bytes_per_s(device: str) -> float:
    """Read and written."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    _, median_ms, _ = milliseconds(lambda: target.copy_(source), device)
    return 2 * COPIED_BYTES / (median_ms / 1000)
