"""Arithmetic, comparisons and moves: each builder returns the steps of one statement, bound to its registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.ptx import Operand, Statement
from mminfer_proofs.sanitizer.registers import Registers, Row, Step, dtype_of

INTEGERS = ("s16", "u16", "s32", "u32", "s64", "u64")
BITS = ("b16", "b32", "b64")
WIDER = {"s16": np.int32, "u16": np.uint32, "s32": np.int64, "u32": np.uint64}
SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def kind_of(statement: Statement, kinds: tuple[str, ...], allowed: tuple[str, ...] = ()) -> str:
    """The statement's type, its last modifier.

    Raises:
        KernelFault: unsupported: another type, or a modifier that is not allowed.
    """
    *rest, kind = statement.modifiers or ("",)
    if kind not in kinds or not set(rest) <= set(allowed):
        raise KernelFault(f"unsupported: {statement}.")
    return kind


def flushed(values: Row) -> Row:
    """The values, with subnormal numbers replaced by zeros of the same sign, as .ftz does."""
    return np.where(np.abs(values) < SMALLEST_NORMAL, np.copysign(np.float32(0), values), values)


@dataclass(frozen=True)
class Elementwise:
    """An instruction that is one NumPy function."""

    function: np.ufunc
    kinds: tuple[str, ...]
    allowed: tuple[str, ...] = ()

    def __call__(self, statement: Statement, registers: Registers) -> list[Step]:
        """The steps of the statement."""
        kind = kind_of(statement, self.kinds, self.allowed)
        target, *operands = statement.operands
        dtype, function = dtype_of(kind), self.function
        inputs, out = [registers.source(operand, dtype) for operand in operands], registers.target(target, dtype)
        if "ftz" in statement.modifiers:
            return registers.assign(statement, lambda: flushed(function(*map(flushed, inputs))), out)
        return registers.call(statement, function, inputs, out)


def _extreme(ordinary: np.ufunc, dropping_nan: np.ufunc) -> Builder:
    """The builder of min or max; for floats, a number wins against NaN unless the statement says .NaN."""

    def build(statement: Statement, registers: Registers) -> list[Step]:
        drops = statement.modifiers[-1] == "f32" and "NaN" not in statement.modifiers
        function = dropping_nan if drops else ordinary
        return Elementwise(function, (*INTEGERS, "f32"), ("NaN", "ftz"))(statement, registers)

    return build


def multiply(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one mul: the low, the high, or all bits of the product."""
    kind = kind_of(statement, (*INTEGERS, "f32"), ("lo", "hi", "wide", "rn", "ftz"))
    part = "lo" if kind == "f32" else statement.modifiers[0]
    if part == "lo":
        return Elementwise(np.multiply, (kind,), ("lo", "rn", "ftz"))(statement, registers)
    target, left, right = _wide_factors(statement, registers, kind)
    if part == "wide":
        return registers.assign(statement, lambda: left.astype(target.dtype) * right, target)
    bits = target.dtype.type(8 * left.itemsize)
    out = registers.target(statement.operands[0], left.dtype)
    return registers.assign(statement, lambda: (left.astype(target.dtype) * right >> bits).astype(out.dtype), out)


def _wide_factors(statement: Statement, registers: Registers, kind: str) -> tuple[Row, Row, Row]:
    """A row of the product's whole width, the target where the product is wide, and the factors."""
    if kind not in WIDER:
        raise KernelFault(f"unsupported: {statement}.")
    target, left, right = statement.operands[:3]
    wide = "wide" in statement.modifiers
    out = registers.target(target, WIDER[kind]) if wide else np.zeros(registers.threads, WIDER[kind])
    return out, registers.source(left, dtype_of(kind)), registers.source(right, dtype_of(kind))


def multiply_add(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one mad: a·b + c of integers."""
    kind = kind_of(statement, INTEGERS, ("lo", "wide"))
    target, left, right, start = statement.operands
    if "wide" in statement.modifiers:
        out, first, second = _wide_factors(statement, registers, kind)
        third = registers.source(start, out.dtype)
        return registers.assign(statement, lambda: first.astype(out.dtype) * second + third, out)
    first, second, third = (registers.source(operand, dtype_of(kind)) for operand in (left, right, start))
    return registers.assign(statement, lambda: first * second + third, registers.target(target, dtype_of(kind)))


def fused(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one fma: a·b + c in float64, where the product is exact, rounded to float32."""
    kind_of(statement, ("f32",), ("rn",))
    target, *operands = statement.operands
    left, right, start = (registers.source(operand, np.float32) for operand in operands)
    out, wide = registers.target(target, np.float32), registers.wide
    prelude, mask = registers.mask(statement.guard)
    where = True if mask is None else mask
    return [
        *prelude,
        partial(np.copyto, wide, left),
        partial(np.multiply, wide, right, wide),
        partial(np.add, wide, start, wide),
        partial(np.copyto, out, wide, casting="same_kind", where=where),
    ]


def divide(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one div; integers are rounded towards 0."""
    if statement.modifiers[-1] == "f32":
        return Elementwise(np.divide, ("f32",), ("full", "approx", "rn", "ftz"))(statement, registers)
    dtype = dtype_of(kind_of(statement, INTEGERS))
    target, *operands = statement.operands
    left, right = (registers.source(operand, dtype) for operand in operands)
    exact = lambda: (left - np.fmod(left, right)) // right  # noqa: E731 - PTX rounds towards 0, NumPy downwards
    return registers.assign(statement, exact, registers.target(target, dtype))


def _shift(function: np.ufunc, kinds: tuple[str, ...]) -> Builder:
    """The builder of a shift, always by a 32-bit register; too many places shift everything out."""

    def build(statement: Statement, registers: Registers) -> list[Step]:
        dtype = dtype_of(kind_of(statement, kinds))
        target, value, places = statement.operands
        inputs = [registers.source(value, dtype), registers.source(places, np.uint32)]
        return registers.call(statement, function, inputs, registers.target(target, dtype))

    return build


def select(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one selp: the first operand where the predicate holds, else the second."""
    dtype = dtype_of(kind_of(statement, (*INTEGERS, *BITS, "f32", "f64")))
    target, *operands = statement.operands
    chosen, other = (registers.source(operand, dtype) for operand in operands[:2])
    predicate = registers.source(operands[2], bool)
    return registers.assign(statement, lambda: np.where(predicate, chosen, other), registers.target(target, dtype))


ORDERED = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
OF_FLOATS: Mapping[str, Callable[[Row, Row], Row]] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "ne": lambda a, b: (a < b) | (a > b),
    "equ": lambda a, b: ~((a < b) | (a > b)), "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: (a == a) & (b == b), "nan": lambda a, b: (a != a) | (b != b),
}  # fmt: skip
"""Comparisons of floats: false for NaN, or true if the name ends in u."""
WITH = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def compare(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one setp, combined with another predicate where the statement has one."""
    kind = kind_of(statement, (*INTEGERS, *BITS, "f32", "f64"), (*ORDERED, *OF_FLOATS, *WITH))
    function = (OF_FLOATS if kind[0] == "f" else ORDERED).get(statement.modifiers[0])
    if function is None or "|" in str(statement.operands[0]):
        raise KernelFault(f"unsupported: {statement}.")
    target, left, right, *third = statement.operands
    inputs = [registers.source(operand, dtype_of(kind)) for operand in (left, right)]
    out = registers.target(target, bool)
    if not third:
        if isinstance(function, np.ufunc):
            return registers.call(statement, function, inputs, out)
        return registers.assign(statement, partial(function, *inputs), out)
    combine = WITH[statement.modifiers[1]]
    also = registers.source(third[0], bool)
    return registers.assign(statement, lambda: combine(function(*inputs), also), out)


def move(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one mov, which may join registers or split one."""
    kind = kind_of(statement, (*INTEGERS, *BITS, "f32", "f64", "pred"))
    target, value = statement.operands
    pairs = _parts(registers, kind, target, value)
    prelude, mask = registers.mask(statement.guard)
    where = True if mask is None else mask
    return [*prelude, *(partial(np.copyto, out, row, where=where) for out, row in pairs)]


def _parts(registers: Registers, kind: str, target: Operand, value: Operand) -> list[tuple[Row, Row]]:
    """Pairs of a row to write and a row to read: several if a register is joined from parts, or split."""
    dtype = dtype_of(kind)
    if isinstance(target, tuple):
        part = np.dtype(f"u{dtype.itemsize // len(target)}")
        halves = registers.source(value, dtype).view(part)
        rows = (halves[index :: len(target)] for index in range(len(target)))
        return [(registers.target(name, part), row) for name, row in zip(target, rows, strict=True) if name != "_"]
    if isinstance(value, tuple):
        part = np.dtype(f"u{dtype.itemsize // len(value)}")
        halves = registers.target(target, dtype).view(part)
        return [(halves[index :: len(value)], registers.source(name, part)) for index, name in enumerate(value)]
    return [(registers.target(target, dtype), registers.source(value, dtype))]


def extract(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one bfe: bits from a position on; beyond the highest bit come zeros, or copies of the sign."""
    dtype = dtype_of(kind_of(statement, ("s32", "u32")))
    target, value, *rest = statement.operands
    bits = registers.source(value, dtype)
    position, length = (registers.source(operand, np.uint32) for operand in rest)

    def extracted() -> Row:
        wide = bits.astype(np.int64) >> (position & 255).astype(np.int64)
        spare = 64 - np.minimum(length & 255, 32).astype(np.int64)
        kept = wide << spare
        shifted = kept >> spare if dtype.kind == "i" else (kept.view(np.uint64) >> spare.view(np.uint64)).view(np.int64)
        return np.where(spare == 64, 0, shifted).astype(dtype)

    return registers.assign(statement, extracted, registers.target(target, dtype))


def permute(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one prmt: four bytes chosen among eight; a selector's highest bit means copies of the sign."""
    kind_of(statement, ("b32",))
    target, *operands = statement.operands
    low, high, selector = (registers.source(operand, np.uint32) for operand in operands)

    def permuted() -> Row:
        both = np.stack((low, high), axis=1).view(np.uint8)
        nibbles = selector[:, None] >> np.arange(0, 16, 4, dtype=np.uint32) & 15
        chosen = np.take_along_axis(both, (nibbles & 7).astype(np.int64), axis=1)
        signs = (chosen.view(np.int8) >> 7).view(np.uint8)
        return np.where(nibbles & 8, signs, chosen).astype(np.uint8).view(np.uint32)[:, 0]

    return registers.assign(statement, permuted, registers.target(target, np.uint32))


Builder = Callable[[Statement, Registers], list[Step]]

BUILDERS: Mapping[str, Builder] = {
    "add": Elementwise(np.add, (*INTEGERS, "f32"), ("rn", "ftz")),
    "sub": Elementwise(np.subtract, (*INTEGERS, "f32"), ("rn", "ftz")),
    "mul": multiply,
    "mad": multiply_add,
    "fma": fused,
    "div": divide,
    "rem": Elementwise(np.fmod, INTEGERS),
    "min": _extreme(np.minimum, np.fmin),
    "max": _extreme(np.maximum, np.fmax),
    "neg": Elementwise(np.negative, ("s16", "s32", "s64", "f32"), ("ftz",)),
    "abs": Elementwise(np.absolute, ("s16", "s32", "s64", "f32"), ("ftz",)),
    "and": Elementwise(np.bitwise_and, (*BITS, "pred")),
    "or": Elementwise(np.bitwise_or, (*BITS, "pred")),
    "xor": Elementwise(np.bitwise_xor, (*BITS, "pred")),
    "not": Elementwise(np.invert, (*BITS, "pred")),
    "shl": _shift(np.left_shift, BITS),
    "shr": _shift(np.right_shift, (*BITS, *INTEGERS)),
    "ex2": Elementwise(np.exp2, ("f32",), ("approx", "ftz")),
    "sqrt": Elementwise(np.sqrt, ("f32",), ("approx", "rn", "ftz")),
    "rcp": Elementwise(np.reciprocal, ("f32",), ("approx", "rn", "ftz")),
    "selp": select,
    "setp": compare,
    "mov": move,
    "bfe": extract,
    "prmt": permute,
}
"""The instructions that use only registers, except conversions."""
