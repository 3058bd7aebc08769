"""How one slide ended, for programs: the same first fields for a result and for a failure."""

from __future__ import annotations

from typing import Any

from melanoma_infer.result import SlideOutcome

REPORT = "report.html"


def outcome_json(outcome: SlideOutcome) -> dict[str, Any]:
    """The fields id, case_id, exit_code, message, stage, skipped, folder and report, then those of result.json.

    `folder` and `report` are paths, None for a failure, which has of result.json only `run` with its times.
    """
    folder = outcome.folder
    ended = {
        "id": outcome.id,
        "case_id": outcome.case_id,
        "exit_code": outcome.exit_code,
        "message": outcome.message,
        "stage": outcome.stage,
        "skipped": outcome.skipped,
        "folder": str(folder) if folder else None,
        "report": str(folder / REPORT) if folder else None,
    }
    if outcome.result is None:
        return ended | {"run": {"started": outcome.started, "finished": outcome.finished}}
    return ended | outcome.result.model_dump(mode="json", by_alias=True)
