"""PTX text as records: a kernel's statements, labels, parameters and register widths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mminfer_proofs.errors import KernelFault


@dataclass(frozen=True)
class Address:
    """A memory operand, [base + offset]; the base is a register, a parameter or a shared symbol."""

    base: str
    offset: int


Operand = str | tuple[str, ...] | Address
"""A register, number or symbol; a vector of them in braces; or a memory operand."""


@dataclass(frozen=True)
class Guard:
    """The predicate in front of a statement: @%p1, or @!%p1 where negated."""

    predicate: str
    negated: bool


@dataclass(frozen=True)
class Statement:
    """One instruction."""

    text: str
    head: str
    """The opcode up to its first dot."""
    modifiers: tuple[str, ...]
    """The opcode after its first dot, types included."""
    operands: tuple[Operand, ...]
    guard: Guard | None
    source: str
    """FILE:LINE of the source ← those where it was inlined; empty if PTX names none."""

    def __str__(self) -> str:
        return f"`{self.text}`" + (f" of {self.source}" if self.source else "")


@dataclass(frozen=True)
class Program:
    """One kernel."""

    parameters: tuple[str, ...]
    threads: int
    """Threads of one CTA."""
    widths: Mapping[str, int]
    """Bits of a register, by the beginning of its name; 1 is a predicate."""
    shared_symbol: str
    """The name of the shared memory that the launch sizes."""
    statements: tuple[Statement, ...]
    labels: Mapping[str, int]
    """The index of the statement after each label."""


WIDTHS = {"pred": 1}
DIRECTIVES = (".loc", ".reg", ".pragma", ".file", ".section")
DECLARED = re.compile(r"\.reg\s+\.(pred|[bsuf]\d+)\s+(%?\w+)(?:<\d+>)?\s*;")
OUTER_COMMA = re.compile(r",(?![^{\[]*[}\]])")
"""A comma outside braces and brackets."""
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z]\w*)((?:\.[\w:]+)*)\s*(.*)", re.DOTALL)


@lru_cache(maxsize=4)
def parse(ptx: str) -> Program:
    """The program of PTX that has one kernel.

    Raises:
        KernelFault: unsupported: there is not one kernel, or it uses local or static shared memory.
    """
    head, body = _entry(ptx)
    for forbidden, why in ((r"\.local\s", "local memory"), (r"\.shared[^\n]*\[\d+\]", "shared memory of a fixed size")):
        if found := re.search(forbidden + r"[^\n]*", ptx[: ptx.index(".visible .entry")] + _without_comments(body)):
            raise KernelFault(f"unsupported: {why}: `{found.group().strip()}`.")
    statements, labels = _statements(body)
    threads = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", head)
    shared = re.search(r"\.extern \.shared [^\n]*?(\w+)\[\]", ptx)
    if threads is None:
        raise KernelFault("unsupported: the kernel does not state the size of its CTA (.reqntid).")
    if int(threads.group(1)) % 32:
        raise KernelFault(f"unsupported: a CTA of {threads.group(1)} threads, which is not a multiple of 32.")
    return Program(
        parameters=tuple(
            re.findall(r"\.param\s[^\n]*?(\w+)\s*(?=,|\n|\))", head[head.index("(") : head.index(")") + 1])
        ),
        threads=int(threads.group(1)),
        # From declarations such as `.reg .b32 %r<99>;`.
        widths={name: WIDTHS.get(kind) or int(kind[1:]) for kind, name in DECLARED.findall(body)},
        shared_symbol=shared.group(1) if shared else "",
        statements=statements,
        labels=labels,
    )


def _entry(ptx: str) -> tuple[str, str]:
    """The one kernel's header, and its body between the braces."""
    entries = [found.start() for found in re.finditer(r"\.visible \.entry", ptx)]
    if len(entries) != 1 or ".func" in ptx:
        raise KernelFault(f"unsupported: PTX with {len(entries)} kernels, or with a function that it calls.")
    start = ptx.index("{", entries[0])
    depth = 0
    for found in re.finditer(r"[{}]", ptx[start:]):
        depth += 1 if found.group() == "{" else -1
        if depth == 0:
            return ptx[entries[0] : start], ptx[start + 1 : start + found.start()]
    raise KernelFault("unsupported: the kernel's braces do not close.")


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def _statements(body: str) -> tuple[tuple[Statement, ...], dict[str, int]]:
    """The statements in order, and the index after each label."""
    statements: list[Statement] = []
    labels: dict[str, int] = {}
    source = ""
    for line in body.split("\n"):
        if line.lstrip().startswith(".loc"):
            places = re.findall(r"[\w.]+\.py:\d+", line)
            source = " ← ".join(dict.fromkeys(places)) or source
            continue
        for text in _without_comments(line).split(";"):
            rest = text.strip()
            while label := re.match(r"([$\w]+):(?!:)", rest):
                labels[label.group(1)] = len(statements)
                rest = rest[label.end() :].strip()
            if rest and not rest.startswith(DIRECTIVES):
                statements.append(_statement(" ".join(rest.split()), source))
    return tuple(statements), labels


def _statement(text: str, source: str) -> Statement:
    found = STATEMENT.fullmatch(text)
    if found is None:
        raise KernelFault(f"unsupported: `{text}`.")
    negated, predicate, head, modifiers, operands = found.groups()
    return Statement(
        text=text,
        head=head,
        modifiers=tuple(modifiers.split(".")[1:]),
        operands=tuple(_operand(part.strip()) for part in OUTER_COMMA.split(operands) if part.strip()),
        guard=Guard(predicate, bool(negated)) if predicate else None,
        source=source,
    )


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return tuple(part.strip() for part in text.strip("{}").split(","))
    if text.startswith("["):
        found = re.fullmatch(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+)\s*)?\]", text)
        if found is None:
            raise KernelFault(f"unsupported: the memory operand `{text}`.")
        return Address(found.group(1), int(found.group(2) or "0", 0))
    return text
