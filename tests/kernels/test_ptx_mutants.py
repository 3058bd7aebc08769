"""Faults in compiled code are found by the sanitizer or by wrong numbers: at least 95 in 100, the others with reasons.

A mutant that changes no thread's result is not a fault: comparisons and masks of compile-time sizes, unrolled for
threads that never reach the border. For each of these, the right code is run with the faulty statement beside it.
"""

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import pytest
import torch
from ptx_mutants_for_tests import mutants

from mminfer_kernels import catalogue
from mminfer_kernels.bounds import compare
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.compile import compile_launch
from mminfer_kernels.launch import TARGETS
from mminfer_proofs.errors import KernelFault

pytestmark = pytest.mark.slow

HARMLESS = {
    r"guard turned round: @%p st\.": "threads hold copies of one value, and the guard picks the one that stores it",
    r"comparison: setp\.(eq|ne)\.b32 %p, %r, 0;": "the same, where the guard is made",
    r"attention_tail: comparison: setp\.lt\.u32 %p, %r, (32|128);": "the same, for those that add up partial sums",
    r"(attention_head|spatial_attention): comparison: setp\.lt\.u32": "rows guarded twice",
    r"spatial_attention: integer constant: add\.s32": "an address beyond the map: a guard holds it back",
    r"attention_head: operands swapped: div": "attention beyond the map: never stored",
    r"resize_tiles: operands swapped: sub": "bytes beyond the image: never stored",
    r"resize_tiles: integer constant: and\.b32 %r, %r, 255": "the cast to bytes of what is below 256 already",
    r"normalize_tiles: (integer constant: sh[lr]|operands swapped: (sub|selp))": "bytes beyond the tile: never stored",
    r"aggregate_tiles: comparison: setp\.l": "one of the threshold's 41 bits: it matters only if exactly as many "
    "scores as asked for are above, at that bit",
    r"aggregate_tiles: integer constant: add\.s32 %r, %r, 1024": "one pass of 41 over the scores: as above",
}
"""By a pattern of the place, the reason that no check can notice."""


class Found(NamedTuple):
    """The fate of one kernel's mutants."""

    tried: int
    same: int
    """Mutants whose statement gives every thread the right result."""
    alive: list[str]
    """The places of the other mutants that no check notices."""


class Subject:
    """A kernel's compiled launches on a problem with partial blocks along every axis, and the expected outputs."""

    def __init__(self, name: str) -> None:
        dtype = catalogue.dtypes(name)[0]
        problem = Problem(
            dtype, 2, 44, 5, 7, kernel_size=3, classes=3, tile_px=33, native_px=60, block_px=3, pixel_bytes=3
        )
        arguments = catalogue.inputs(name, problem) if name != "aggregate_tiles" else slides()
        self.name = name
        self.exact = catalogue.reference(name, arguments)
        self.low = catalogue.reference(name, arguments, dtype)
        self.planned = catalogue.plan(name, arguments, TARGETS[80])
        self.compiled = [compile_launch(launch, TARGETS[80]) for launch in self.planned.launches]

    def is_right(self, index: int, ptx: str) -> bool:
        """Whether every check passes when that launch runs this code."""
        from mminfer_proofs.sanitizer.storage import run_launch

        for number, (launch, code) in enumerate(zip(self.planned.launches, self.compiled, strict=True)):
            try:
                done = run_launch(launch, ptx if number == index else code.ptx, code.shared_bytes)
            except KernelFault:
                return False
            if any(done.unwritten.values()):
                return False
        outputs = catalogue.outputs_of(self.planned.outputs)
        return all(compare(*each).holds for each in zip(outputs, self.exact, self.low, strict=True))


def slides() -> dict[str, torch.Tensor]:
    """No tile, one, more than a block; then slides whose highest tile alone counts."""
    sizes = torch.tensor([0, 1, 1025, 130, *[7] * 8])
    scores = torch.randint(0, 2**40 + 1, (int(sizes.sum()),), generator=torch.Generator().manual_seed(2))
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)))
    return {"scores": scores, "offsets": offsets, "ranks": torch.tensor([2, 4, *[1] * 10])}


def try_all(name: str) -> Found:
    torch.set_num_threads(1)
    subject = Subject(name)
    tried, same, alive = 0, 0, []
    for index, code in enumerate(subject.compiled):
        assert subject.is_right(index, code.ptx)
        for mutant in mutants(code.ptx):
            tried += 1
            if not subject.is_right(index, mutant.ptx):
                continue
            if mutant.witness is not None and subject.is_right(index, mutant.witness):
                same += 1
            else:
                alive.append(f"{subject.planned.launches[index].name}: {mutant.place}")
    return Found(tried, same, alive)


def test_faults_in_compiled_code_are_found():
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(try_all, KERNELS))
    tried, same = sum(each.tried for each in found), sum(each.same for each in found)
    alive = [place for each in found for place in each.alive]
    unknown = sorted(place for place in set(alive) if not any(re.search(known, place) for known in HARMLESS))
    assert not unknown, "\n".join(unknown)
    assert len(alive) <= 0.05 * (tried - same), f"{len(alive)} of {tried - same} survive:\n" + "\n".join(sorted(alive))
    # A thread of block_means compares 8 values with one border, and 7 of them never meet it: 32 of 549 in all.
    assert same <= 0.06 * tried
