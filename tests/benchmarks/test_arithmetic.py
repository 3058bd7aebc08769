"""arithmetic.md contains the tables that its script prints."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_page_contains_the_tables_of_its_script():
    command = [sys.executable, str(BENCHMARKS / "arithmetic.py")]
    done = subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
    assert done.stdout in (BENCHMARKS / "arithmetic.md").read_text(encoding="utf-8")
