"""Count the bytes that the kernels load and store, in Triton's interpreter: `python -m mminfer_proofs.traffic`.

The unmasked lanes of every load and store are counted, at the network's size. Bytes that a GPU's caches serve again are
counted again. So the counts are upper bounds of the memory traffic, and exact if nothing is read twice, as x in
attention_tail. The sectors of 32 bytes that are loaded at all are the lower bound: what memory delivers if the caches
serve every repetition.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.launch import TARGETS, Planned
from mminfer_proofs.rows import write_rows


@dataclass(frozen=True)
class Row:
    """The bytes that one call moves of one of its tensors, scratch memory included."""

    kernel: str
    argument: str
    dtype: str
    shape: str
    loaded_bytes: int
    stored_bytes: int
    argument_bytes: int
    sector_bytes: int
    """Bytes of the sectors that are loaded at least once."""


@dataclass(frozen=True)
class Moved:
    """What interpreted kernels have loaded and stored so far, by tensor."""

    loaded: Counter[str]
    """In bytes, repetitions included."""
    stored: Counter[str]
    sectors: dict[str, NDArray[np.bool_]]
    """Whether each sector was loaded."""


@dataclass(frozen=True)
class Bound:
    """The bytes that a kernel may move, as a multiple of the size of one of its arguments."""

    kernel: str
    what: str
    unit: str
    loads: tuple[str, ...]
    stores: tuple[str, ...]
    """The arguments that are counted; "*" for all."""
    least: float
    most: float
    once: bool = False
    """Count the loaded sectors, each once, in place of all loads."""


SECTOR = 32
"""Bytes that memory delivers at once."""
BOUNDS = (
    Bound("block_means", "tiles", "tiles", ("tiles",), (), 1.0, 1.0),
    Bound("block_means", "means", "means", (), ("means",), 1.0, 1.0),
    Bound("resize_tiles", "tiles, from memory", "tiles", ("tiles",), (), 0.99, 1.0, once=True),
    Bound("resize_tiles", "tiles, from caches too", "tiles", ("tiles",), (), 0.99, 3.0),
    Bound("resize_tiles", "images", "images", (), ("images",), 1.0, 1.0),
    Bound("attention_tail", "x", "x", ("x",), (), 1.0, 1.0),
    Bound("attention_tail", "w1_image", "x", ("w1_image",), (), 0.0, 0.5),
    Bound("attention_tail", "all stores", "x", (), ("*",), 0.0, 0.01),
    Bound("attention_project", "x", "x", ("x",), (), 1.0, 1.0),
    Bound("spatial_attention", "x and the attended map", "x", ("x", "attended"), ("x", "attended"), 0.0, 3.0 * 1.01),
    Bound("normalize_tiles", "tiles", "tiles", ("tiles",), (), 1.0, 1.0),
    Bound("normalize_tiles", "images", "images", (), ("images",), 1.0, 1.0),
)


def rows_of(name: str, problem: Problem) -> list[Row]:
    """The bytes that a kernel moves, with a row for each argument; Triton's interpreter must be on."""
    planned = catalogue.plan(name, catalogue.inputs(name, problem), TARGETS[80])
    tensors = tensors_of(planned)
    with counting(tensors) as moved:
        planned.run()
    return [
        Row(
            kernel=name,
            argument=argument,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape="x".join(map(str, tensor.shape)),
            loaded_bytes=moved.loaded[argument],
            stored_bytes=moved.stored[argument],
            argument_bytes=_bytes(tensor),
            sector_bytes=min(SECTOR * int(moved.sectors[argument].sum()), _bytes(tensor)),
        )
        for argument, tensor in tensors.items()
    ]


@contextmanager
def counting(tensors: dict[str, Tensor]) -> Iterator[Moved]:
    """Within it, interpreted kernels add to the record what they load and store of each tensor."""
    # Imported here: the interpreter must be turned on before Triton is imported.
    from triton.runtime.interpreter import InterpreterBuilder

    from mminfer_proofs.interpreted import mended

    sectors = {name: np.zeros(-(-_bytes(tensor) // SECTOR), np.bool_) for name, tensor in tensors.items()}
    moved = Moved(Counter[str](), Counter[str](), sectors)
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def counted_load(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        if (place := _place(tensors, pointers, mask)) is not None:
            name, offsets = place
            moved.loaded[name] += offsets.size * tensors[name].element_size()
            moved.sectors[name][offsets // SECTOR] = True
        return load(builder, pointers, mask, *rest)

    def counted_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        if (place := _place(tensors, pointers, mask)) is not None:
            name, offsets = place
            moved.stored[name] += offsets.size * tensors[name].element_size()
        return store(builder, pointers, value, mask, *rest)

    with (
        mended(),
        patch.object(InterpreterBuilder, "create_masked_load", counted_load),
        patch.object(InterpreterBuilder, "create_masked_store", counted_store),
    ):
        yield moved


def problems(rows: Sequence[Row]) -> Iterator[str]:
    """Yield each bound that the rows exceed, in words."""
    kernels = {row.kernel for row in rows}
    for bound in BOUNDS:
        if bound.kernel in kernels:
            share = _share(bound, [row for row in rows if row.kernel == bound.kernel])
            if not bound.least <= share <= bound.most:
                yield f"{bound.kernel} moves {share:.4f} of {bound.unit} for {bound.what}: at most {bound.most}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count everything, print the problems, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mminfer_proofs.traffic", description=__doc__)
    parser.add_argument("--save", type=Path, required=True, metavar="FILE", help="CSV, one row for each argument")
    options = parser.parse_args(arguments)
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: it is read when a kernel is defined
    rows = [row for name in KERNELS for row in rows_of(name, Problem(catalogue.dtypes(name)[0], batch=2))]
    write_rows(options.save, rows)
    wrong = list(problems(rows))
    for bound in BOUNDS:
        share = _share(bound, [row for row in rows if row.kernel == bound.kernel])
        sys.stdout.write(f"{bound.kernel:18} {bound.what:24} {share:7.4f} of {bound.unit}\n")
    sys.stdout.write("".join(f"{problem}\n" for problem in wrong))
    return bool(wrong)


def tensors_of(planned: Planned[Any]) -> dict[str, Tensor]:
    """Every tensor of every launch by name; the launches of one plan use the same name for a tensor."""
    named = [item for launch in planned.launches for item in launch.arguments.items()]
    return {name: value for name, value in named if isinstance(value, Tensor)}


def _place(tensors: dict[str, Tensor], pointers: Any, mask: Any) -> tuple[str, NDArray[np.int64]] | None:
    """The tensor that an access belongs to, and the offsets in bytes of its lanes; None if all lanes are masked."""
    addresses = pointers.data[mask.data].astype(np.int64)
    if not addresses.size:
        return None
    for name, tensor in tensors.items():
        first = tensor.data_ptr()
        if first <= addresses.min() and addresses.max() < first + _bytes(tensor):
            return name, addresses - first
    raise ValueError("A kernel accesses memory outside its arguments.")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _share(bound: Bound, rows: Sequence[Row]) -> float:
    unit = next(row.argument_bytes for row in rows if row.argument == bound.unit)
    loaded = sum(row.sector_bytes if bound.once else row.loaded_bytes for row in rows if row.argument in bound.loads)
    stored = sum(row.stored_bytes for row in rows if "*" in bound.stores or row.argument in bound.stores)
    return (loaded + stored) / unit


if __name__ == "__main__":
    sys.exit(main())
