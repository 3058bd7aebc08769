"""Faults in the kernels' source are found: at least 95 in 100, and every survivor is known, with its reason."""

import multiprocessing
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from mutant_checks_for_tests import check, fails
from source_mutants_for_tests import mutants

from mminfer_kernels.catalogue import KERNELS

pytestmark = [pytest.mark.interpreter, pytest.mark.slow]

SECONDS = 120
HARMLESS = {
    r"relu: .*Lt → LtE": "0 and 0.0 are one number",
    r"block_means.* total \+= .*\[0 → 1": "bytes beyond the tile: never stored",
    r"normalize_tiles.* level = .*\[0 → 1": "bytes beyond the tile: never stored",
    r"spatial_attention.* values = .*\[0\.0 → nan": "pixels beyond the map: never stored",
    r"attention_tail.* if C % BLOCK_C == 0": "the masked way is slower, and gives the same",
    r"attention_tail.* maps = pooled_maps": "tiles write into each other's scratch: seen only where programs run "
    "side by side, and by the sanitizer",
    r"attention_head.* (y|heat) = .*\[0\.0 → nan": "pixels beyond the map: the maps are never stored there",
    r"aggregate_tiles.* over = .*Gt → GtE": "scores equal to the threshold weigh the same whether counted or left over",
    r"aggregate_tiles.* values = .*\[0 → 1": "what is not live is not counted",
}
"""By a pattern of the place, the reason that no check can notice."""


def ends_badly(servers, moved, folder, numbered):
    number, mutant = numbered
    path = folder / f"{mutant.module}_{number}.py"
    process = servers.Process(target=fails, args=(mutant.module, mutant.source, path, moved))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != 0


def test_faults_in_the_source_are_found(tmp_path, monkeypatch):
    moved = {key: value for name in KERNELS for key, value in check(name, {}).items()}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # without it the server cannot load what it preloads
    servers = multiprocessing.get_context("forkserver")
    servers.set_forkserver_preload(["mutant_checks_for_tests", "mminfer_proofs.interpreted"])
    tried = [mutant for mutant in mutants() if not mutant.only_compiled]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        killed = list(threads.map(partial(ends_badly, servers, moved, tmp_path), enumerate(tried)))
    survivors = {f"{mutant.module}.{mutant.place}" for mutant, dead in zip(tried, killed, strict=True) if not dead}
    unknown = sorted(place for place in survivors if not any(re.search(known, place) for known in HARMLESS))
    assert not unknown, "\n".join(unknown)
    assert sum(killed) >= 0.95 * len(tried), f"{sum(killed)} of {len(tried)} killed"
