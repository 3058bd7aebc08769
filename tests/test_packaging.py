"""What is installed is what was built."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.wheel
@pytest.mark.skipif("MMINFER_WHEEL" not in os.environ, reason="only `make check-package` runs against a wheel")
@pytest.mark.parametrize("package", ["melanoma_infer", "mminfer_kernels", "mminfer_export"])
def test_the_tests_of_the_wheel_import_the_wheel(package):
    spec = find_spec(package)
    assert spec is not None
    assert Path(str(spec.origin)).is_relative_to(sys.prefix)


def test_the_wheel_holds_no_proofs_and_no_tests():
    """Proofs about the kernels are for developers: `mminfer_proofs`, with its sanitizer, stays in the sources."""
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(Path(__file__).resolve().parent.parent))
    files = [Path(str(each.distribution_path)) for each in builder.recurse_included_files()]
    assert Path("mminfer_kernels/attention_tail.py") in files
    assert [path for path in files if {"mminfer_proofs", "sanitizer", "tests", "benchmarks"} & {*path.parts}] == []


def test_no_package_has_a_name_that_others_use():
    """`kernels` and `export` are folders that hold packages; as packages they would shadow other people's."""
    root = Path(__file__).resolve().parent.parent
    assert not (root / "kernels" / "__init__.py").exists()
    assert not (root / "export" / "__init__.py").exists()
