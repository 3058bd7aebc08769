"""Seconds from the shell to the help page and to the first scored tile: medians of whole processes.

    python benchmarks/startup.py SLIDE [--rounds 7]

The tests hold what start-up imports; this is what that costs on a machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

MAIN = "import sys; sys.argv[0] = 'mminfer'\nfrom melanoma_infer.cli.app import main\n"
REACHED = 77
TO_FIRST_TILE = MAIN + (
    "import os\n"
    "from melanoma_infer.pipeline.scorer import Scorer\n"
    f"Scorer._check_head = lambda self, outputs: os._exit({REACHED})\n"
    "main()"
)


def main() -> None:
    """Print three medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="mminfer-startup-") as folder:
        for name, program, argv, code in (
            ("help", MAIN + "main()", ["--help"], 0),
            ("first tile", TO_FIRST_TILE, ["score", asked.slide, "--out", Path(folder, "first")], REACHED),
            ("whole slide", MAIN + "main()", ["score", asked.slide, "--out", Path(folder, "whole"), "--overwrite"], 0),
        ):
            seconds = [_seconds(program, argv, code) for _ in range(asked.rounds)]
            print(f"{name:12} {median(seconds):6.2f} s   fastest {min(seconds):.2f} s   of {asked.rounds} processes")


def _seconds(program: str, argv: list[object], code: int) -> float:
    started = perf_counter()
    ended = subprocess.run([sys.executable, "-c", program, *map(str, argv)], capture_output=True, text=True)
    seconds = perf_counter() - started
    if ended.returncode != code:
        sys.exit(f"A process ended with {ended.returncode}, not {code}, so its time means nothing: {ended.stderr}")
    return seconds


if __name__ == "__main__":
    main()
