"""Small faults put into the kernels' source, one at a time: a comparison, a constant, an operator, operands swapped."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import mminfer_kernels

PACKAGE = Path(mminfer_kernels.__file__).parent
MODULES = (
    "device", "block_means", "resize_tiles", "channel_pool", "normalize_tiles", "spatial_attention", "attention_tail",
    "attention_project", "attention_head", "aggregate_tiles",
)  # fmt: skip

COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPERATORS = {
    ast.Add: ast.Sub, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
SWAPPED = (ast.Sub, ast.Div, ast.LShift, ast.RShift)
WORDS = {"-inf": "inf", "inf": "-inf", "nan": "0", "ieee": "tf32"}
ONLY_COMPILED = ("ieee", "ALL")
"""Faults that the interpreter does not show: the precision of a product, and whether a maximum keeps NaN."""


class Mutant(NamedTuple):
    """One module with one fault."""

    module: str
    place: str
    """The statement's line of code, without spaces before it, and the fault: what stays when lines move."""
    source: str
    only_compiled: bool


def mutants() -> Iterator[Mutant]:
    """Every fault of every kernel and device function."""
    for module in MODULES:
        source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        tree = ast.parse(source)
        lines = source.splitlines()
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
        for function in functions:
            for node in (node for statement in function.body for node in ast.walk(statement)):
                for fault, changed in _faults(node):
                    line = lines[node.lineno - 1].strip()
                    place = f"{function.name}: {line} [{fault} at {node.col_offset}]"
                    yield Mutant(module, place, _replaced(source, node, changed), fault.startswith(ONLY_COMPILED))


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=[operator]):
            other = COMPARISONS[type(operator)]
            yield f"{_name(operator)} → {other.__name__}", ast.Compare(node.left, [other()], node.comparators)
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            other = OPERATORS[type(operator)]
            yield f"{_name(operator)} → {other.__name__}", ast.BinOp(node.left, other(), node.right)
        case ast.BinOp(op=operator) if isinstance(operator, SWAPPED):
            yield f"{_name(operator)} swapped", ast.BinOp(node.right, operator, node.left)
        case ast.Call(func=ast.Attribute(attr="where"), args=[condition, first, second]):
            yield "where swapped", ast.Call(node.func, [condition, second, first], [])
        case ast.Constant(value=bool() | None):
            pass
        case ast.Constant(value=float() as value) if value == 0:
            yield "0.0 → nan", ast.parse('float("nan")', mode="eval").body
        case ast.Constant(value=int() | float() as value):
            yield f"{value} → {value + 1}", ast.Constant(value + 1)
        case ast.Constant(value=str() as word) if word in WORDS:
            yield f"{word} → {WORDS[word]}", ast.Constant(WORDS[word])
        case ast.Attribute(attr="ALL"):
            yield "ALL → NONE", ast.Attribute(node.value, "NONE", ast.Load())


def _name(operator: ast.AST) -> str:
    return type(operator).__name__


def _replaced(source: str, node: ast.AST, changed: ast.AST) -> str:
    """The module's text with another expression at this node's place, in parentheses."""
    assert isinstance(node, ast.expr)
    starts = [0, *accumulate(len(line.encode()) for line in source.splitlines(keepends=True))]
    first = starts[node.lineno - 1] + node.col_offset
    last = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
    return b"".join([source.encode()[:first], f"({ast.unparse(changed)})".encode(), source.encode()[last:]]).decode()
