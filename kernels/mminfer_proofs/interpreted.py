"""Triton's interpreter with corrections: exact products, also for bfloat16, and fast reductions, without warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter


@contextmanager
def mended() -> Iterator[None]:
    """Within it, interpreted kernels compute what a GPU computes, and large ones take seconds.

    `tl.dot` converts its operands to float32 first. A product of two float16 or bfloat16 numbers is exact in float32,
    so only the order of the sums may differ. The interpreter multiplies float16 without BLAS (40 times slower) and
    reads the bits of bfloat16 as integers. `tl.reduce` combines halves of a block instead of one number after another.
    Overflow and NaN do not warn.
    """
    with (
        patch.object(interpreter.InterpreterBuilder, "create_dot", _dot),
        patch.object(interpreter.ReduceOps, "generic_reduce", _reduce),
        np.errstate(all="ignore"),
    ):
        yield


def _dot(
    builder: Any, left: Any, right: Any, start: Any, input_precision: Any, max_num_imprecise_acc: Any
) -> interpreter.TensorHandle:
    product = np.matmul(_float32(left), _float32(right))
    return interpreter.TensorHandle(product.astype(start.data.dtype) + start.data, start.dtype.scalar)


def _float32(operand: Any) -> NDArray[Any]:
    if operand.dtype.scalar == tl.bfloat16:
        widened: NDArray[Any] = (operand.data.astype(np.uint32) << 16).view(np.float32)
        return widened
    return np.asarray(operand.data, dtype=np.float32)


def _reduce(reduction: Any, blocks: tuple[Any]) -> list[Any]:
    (block,) = blocks
    left = np.moveaxis(block.handle.data, reduction.axis, 0)
    while len(left) > 1:
        halves = np.split(left, 2)
        left = reduction.combine_fn.fn(*(reduction.to_tensor(half, block.dtype) for half in halves)).handle.data
    return [reduction.to_tensor(left[0], block.dtype)]
