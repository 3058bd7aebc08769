"""cvt: between integers of several widths, float32, float16 and bfloat16, with PTX's rounding and saturation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.arithmetic import flushed
from mminfer_proofs.sanitizer.ptx import Statement
from mminfer_proofs.sanitizer.registers import UNSIGNED, Registers, Row, Step, dtype_of

TO_WHOLE: Mapping[str, np.ufunc] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
Converter = Callable[[Row], Row]


def bfloat16_bits(values: Row) -> Row:
    """The nearest bfloat16 of each float32, ties to even, as uint16; NaN stays NaN."""
    bits = values.astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FFF, nearest).astype(np.uint16)


def float32_of(bits: Row) -> Row:
    """The float32 value of each bfloat16, given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def convert(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one cvt, which may also convert two float32 to the halves of one register."""
    *rest, to, of = statement.modifiers
    if to in ("f16x2", "bf16x2"):
        if statement.modifiers != ("rn", to, "f32"):
            raise KernelFault(f"unsupported: {statement}.")
        packed, *operands = statement.operands
        upper, lower = (registers.source(operand, np.float32) for operand in operands)
        rounded = float16_bits if to == "f16x2" else bfloat16_bits
        both = lambda: np.stack((rounded(lower), rounded(upper)), axis=1).view(np.uint32)[:, 0]  # noqa: E731
        return registers.assign(statement, both, registers.target(packed, np.uint32))
    converter = _converter(statement, set(rest), to, of)
    target, value = statement.operands
    row, out = registers.low(value, dtype_of(of)), registers.target(target)

    def bits() -> Row:
        # A narrow integer is extended by its sign, or by zeros.
        values = converter(row)
        if values.dtype.itemsize < out.itemsize:
            values = values.astype(f"{values.dtype.kind}{out.itemsize}")
        return values.view(UNSIGNED[8 * out.itemsize])

    return registers.assign(statement, bits, out)


def _converter(statement: Statement, rest: set[str], to: str, of: str) -> Converter:
    """The function that converts values of one type to the other.

    Raises:
        KernelFault: unsupported: there is no such conversion, or it rounds in another way.
    """
    target, value = dtype_of(to), dtype_of(of)
    rounding = rest & set(TO_WHOLE)
    if (to, of, rest) == ("f32", "bf16", set()):
        return float32_of
    if (to, of, rest) == ("bf16", "f32", {"rn"}):
        return bfloat16_bits
    if "bf16" in (to, of) or to == "pred":
        raise KernelFault(f"unsupported: {statement}.")
    if value.kind == "f" and rounding and rest <= {*rounding, "ftz"} and target.itemsize < 8:
        return partial(_to_whole, TO_WHOLE[rounding.pop()], target, flushed if "ftz" in rest else np.asarray)
    nearest = value.kind != "f" or target.itemsize < value.itemsize
    if target.kind == "f" and rest == ({"rn"} if nearest else set()):
        return partial(_cast, target)
    if value.kind in "iu" and target.kind in "iu" and not rest:
        return partial(_cast, target)
    raise KernelFault(f"unsupported: {statement}.")


def _to_whole(rounding: np.ufunc, target: np.dtype[Any], prepared: Converter, values: Row) -> Row:
    """Whole numbers, as floats or, within the type's range and 0 for NaN, as integers."""
    whole: Row = rounding(prepared(values))
    if target.kind == "f":
        return whole.astype(target)
    limits = np.iinfo(target)
    inside: Row = np.clip(np.nan_to_num(whole.astype(np.float64), nan=0.0), float(limits.min), float(limits.max))
    return inside.astype(target)


def _cast(target: np.dtype[Any], values: Row) -> Row:
    return values.astype(target)


def float16_bits(values: Row) -> Row:
    """The nearest float16 of each float32, as uint16."""
    return values.astype(np.float16).view(np.uint16)
