"""Faults that the interpreter cannot see show when compiled: it knows neither TF32 nor a maximum that drops NaN."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from mutant_checks_for_tests import problems_when_compiled
from source_mutants_for_tests import mutants

EXPECTED = {"ieee → tf32": "float32 is rounded to TF32", "ALL → NONE": "a maximum or minimum drops NaN"}
MUTANTS = [mutant for mutant in mutants() if mutant.only_compiled]


def test_there_are_such_faults():
    assert {expected for expected in EXPECTED if any(expected in mutant.place for mutant in MUTANTS)} == {*EXPECTED}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}: {mutant.place}")
def test_the_fault_shows_in_the_compiled_code(mutant, tmp_path):
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        found = process.submit(problems_when_compiled, mutant.module, mutant.source, tmp_path / "mutant.py").result()
    assert [problem for fault, problem in EXPECTED.items() if fault in mutant.place] == found
