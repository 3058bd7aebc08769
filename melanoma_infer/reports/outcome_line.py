"""How one slide ended, as one line of JSON: the same first fields for a result and for a failure."""

from __future__ import annotations

import json
from typing import Any

from melanoma_infer.result import SlideOutcome

REPORT = "report.html"


def outcome_line(outcome: SlideOutcome) -> str:
    """The line: id, case_id, exit_code, message, stage, skipped, folder and report, then the fields of result.json.

    `folder` and `report` are paths, null for a failure, which has of result.json only `run` with its times.
    """
    folder = outcome.folder
    line: dict[str, Any] = {
        "id": outcome.id,
        "case_id": outcome.case_id,
        "exit_code": outcome.exit_code,
        "message": outcome.message,
        "stage": outcome.stage,
        "skipped": outcome.skipped,
        "folder": str(folder) if folder else None,
        "report": str(folder / REPORT) if folder else None,
    }
    if outcome.result is not None:
        line |= outcome.result.model_dump(mode="json", by_alias=True)
    else:
        line["run"] = {"started": outcome.started, "finished": outcome.finished}
    return json.dumps(line, ensure_ascii=False)
