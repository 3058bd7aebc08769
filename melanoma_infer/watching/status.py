"""`status.json`: what a monitor reads. Every watcher of an output folder writes the same one, whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from melanoma_infer.runtime.files import write_atomically
from melanoma_infer.runtime.output_files import output_error
from melanoma_infer.watching.ledger import ATTEMPTS, Ledger
from melanoma_infer.watching.watchers import Watchers

STATUS = "status.json"
SHOWN = ("host", "started", "updated", "scoring")
"""What is shown of a watcher."""


def write_status(folder: Path, ledger: Ledger, watchers: Watchers, updated: str, counts: Mapping[str, int]) -> None:
    """Write the status into `folder`; a reader sees the old one or the new one.

    Raises:
        OutputError: it cannot be written.
    """
    shown = [{"watcher": name} | {key: facts[key] for key in SHOWN if key in facts} for name, facts in watchers.shown()]
    status = {
        "updated": updated,
        **counts,
        "begun": len(ledger.jobs(ATTEMPTS)),
        "done": len(ledger.jobs("done")),
        "failed": len(ledger.jobs("failed")),
        "dead_letter": len(ledger.jobs("dead-letter")),
        "watchers": shown,
    }
    try:
        write_atomically(folder / STATUS, (json.dumps(status, indent=1) + "\n").encode(), shared=True)
    except OSError as error:
        raise output_error(error) from error
