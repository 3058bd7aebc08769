"""Small faults put into compiled PTX, one at a time: barriers, waits, comparisons, constants, operands."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "eq": "ne", "ne": "eq"}
EACH = 8
"""How many of a kind are tried, drawn once and for all; barriers and waits are tried one and all."""

Kind = tuple[str, re.Pattern[str], str]
KINDS: tuple[Kind, ...] = (
    ("barrier removed", re.compile(r"^(\s*)bar\.sync\s+0;"), r"\1"),
    ("waits for one group less", re.compile(r"(cp\.async\.wait_group\s+)(\d+)"), "next"),
    ("comparison", re.compile(r"(setp\.)(lt|le|gt|ge|eq|ne)(\.[a-z])"), "comparison"),
    ("integer constant", re.compile(r"((?:add|mul\.lo|mul\.wide|shl|shr|and|or)\.[a-z]\d+\s.*, )(-?\d+)(;)"), "next"),
    ("float constant", re.compile(r"(\b0f)(3F800000|00000000|FF800000|7F800000)()"), "float"),
    ("guard turned round", re.compile(r"(@)(!?)(%p\d+ (?:ld|st))"), "guard"),
    ("operands swapped", re.compile(r"((?:sub|div|selp|shl|shr)[\w.]*\s+%\w+, )(%\w+), (%\w+)"), r"\1\3, \2"),
)
FLOATS = {"3F800000": "40000000", "00000000": "3F800000", "FF800000": "7F800000", "7F800000": "FF800000"}


class Mutant(NamedTuple):
    """One kernel's PTX with one fault."""

    place: str
    """The kind of fault and the statement, as they read without registers' numbers."""
    ptx: str
    witness: str | None
    """The kernel as it was, with a forbidden access wherever the fault would change the statement's result; for faults
    in statements that compute something."""


def mutants(ptx: str) -> Iterator[Mutant]:
    """Faults of every kind, of the kernel's body."""
    lines = ptx.splitlines()
    draw = random.Random(5)
    for name, pattern, change in KINDS:
        places = [number for number, line in enumerate(lines) if pattern.search(line)]
        everyone = name in ("barrier removed", "waits for one group less")
        for number in places if everyone else sorted(draw.sample(places, min(EACH, len(places)))):
            changed = pattern.sub(lambda match, change=change: _changed(match, change), lines[number], count=1)
            statement = " ".join(re.sub(r"%(\w+?)\d+", r"%\1", lines[number]).split())
            before, after = lines[:number], lines[number + 1 :]
            witness = _witness(lines[number], changed)
            yield Mutant(
                f"{name}: {statement}",
                "\n".join([*before, changed, *after]),
                None if witness is None else "\n".join([*before, lines[number], *witness, *after]),
            )


def _changed(match: re.Match[str], change: str) -> str:
    match change:
        case "next":
            return "".join([match[1], str(int(match[2]) + 1), *match.groups()[2:]])
        case "comparison":
            return match[1] + COMPARISONS[match[2]] + match[3]
        case "float":
            return match[1] + FLOATS[match[2]]
        case "guard":
            return match[1] + ("" if match[2] else "!") + match[3]
        case _:
            return match.expand(change)


def _witness(line: str, changed: str) -> list[str] | None:
    """Statements that compute the faulty result beside the right one, and fail where they differ."""
    result = re.match(r"\s*[a-z][\w.]*\s+(%(p|rs|rd|r)\d+),", line)
    if result is None:
        return None
    right, kind = result[1], result[2]
    wrong = f"%{kind}99999"
    width = {"p": "pred", "rs": "b16", "r": "b32", "rd": "b64"}[kind]
    differs = f"xor.pred %p99998, {right}, {wrong};" if kind == "p" else f"setp.ne.{width} %p99998, {right}, {wrong};"
    faulty = changed.replace(right, wrong, 1)
    return [faulty, differs, "mov.b64 %rd99997, 0;", "@%p99998 st.global.b64 [ %rd99997 + 0 ], %rd99997;"]
