"""Seconds from the shell to the help page and to the first scored tile, and of a process besides its slide: medians.

    python benchmarks/startup.py SLIDE [--rounds 7] [--bundle BUNDLE] [--precision int8]

The tests hold what start-up imports; this is what that costs on a machine.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

MAIN = "import sys; sys.argv[0] = 'mminfer'\nfrom melanoma_infer.cli.app import program as main\n"
KILLED = -9
TO_FIRST_TILE = MAIN + (
    "import os\n"
    "from melanoma_infer.pipeline.scorer import Scorer\n"
    "Scorer._check_head = lambda self, *outputs: os.kill(os.getppid(), 9)\n"
    "main()"
)
"""The process that scores ends the one that waits for it."""


def main() -> None:
    """Print four medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--precision", default="fp32")
    asked = parser.parse_args()
    model = ["--bundle", asked.bundle, "--precision", asked.precision]
    with TemporaryDirectory(prefix="mminfer-startup-") as folder:
        whole, besides = Path(folder, "whole"), []
        for name, program, argv, code in (
            ("help", MAIN + "main()", ["--help"], 0),
            ("first tile", TO_FIRST_TILE, ["score", asked.slide, *model, "--out", Path(folder, "first")], KILLED),
            ("whole slide", MAIN + "main()", ["score", asked.slide, *model, "--out", whole, "--overwrite"], 0),
        ):
            seconds = []
            for _ in range(asked.rounds):
                seconds.append(_seconds(program, argv, code))
                if name == "whole slide":
                    besides.append(seconds[-1] - _of_the_slide(whole))
            _tell(name, seconds)
        _tell("besides the slide", besides)


def _tell(name: str, seconds: list[float]) -> None:
    print(f"{name:18} {median(seconds):6.2f} s   fastest {min(seconds):.2f} s   of {len(seconds)} processes")


def _of_the_slide(out: Path) -> float:
    """The seconds that the last result says it took."""
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])


def _seconds(program: str, argv: list[object], code: int) -> float:
    started = perf_counter()
    ended = subprocess.run([sys.executable, "-c", program, *map(str, argv)], capture_output=True, text=True)
    seconds = perf_counter() - started
    if ended.returncode != code:
        sys.exit(f"A process ended with {ended.returncode}, not {code}, so its time means nothing: {ended.stderr}")
    return seconds


if __name__ == "__main__":
    main()
