"""What a scanner calls after each scan: scores the slide, and says what is to be done, in one line and an exit code.

    python post_scan_hook.py SLIDE OUT

It needs nothing but Python and the command `mminfer` (or the one in the variable MMINFER). The scanner calls it when
the slide is whole, and waits for it or not. Its exit codes:

    0  the result is in OUT; the line on stdout has the verdict and the report
    1  scan or export the slide again: it is damaged, incomplete, or states no scale
    2  call IT: nothing is wrong with the slide, and it has not been scored
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time

SCAN_AGAIN = (10, 11, 12)
"""Exit codes of `mminfer score` that are about the slide: damaged, not supported, without a scale."""
TRY_AGAIN = (104, 175)
"""Exit codes that may be gone in a minute: storage failed, or there was not enough memory."""
PAUSES_S = [float(pause) for pause in os.environ.get("HOOK_PAUSES_S", "60 300").split()]
"""Seconds before the second and the third attempt."""


def score(slide: str, out: str) -> tuple[int, dict[str, object]]:
    """The exit code of `mminfer score`, and its line of JSON about the slide."""
    command = [*shlex.split(os.environ.get("MMINFER", "mminfer")), "score", slide, "--out", out, "--json", "--quiet"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return ended.returncode, lines[-1] if lines else {"message": "mminfer printed nothing"}


def main(slide: str, out: str) -> int:
    """Score the slide, again after a pause where that may help; the exit code for the scanner."""
    code, told = score(slide, out)
    for pause_s in PAUSES_S:
        if code not in TRY_AGAIN:
            break
        time.sleep(pause_s)
        code, told = score(slide, out)
    if code == 0:
        print(f"{told['id']}: {told['verdict']} {told['report']}")
        return 0
    print(f"{told.get('id') or 'the slide'}: exit {code}: {told['message']}")
    return 1 if code in SCAN_AGAIN else 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
