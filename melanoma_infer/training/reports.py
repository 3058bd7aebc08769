"""What is reported of a training: training.json, and the tables that compare networks or folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from melanoma_infer.runtime.provenance import machine
from melanoma_infer.training.calibration import Calibrated
from melanoma_infer.training.curves import ablation_bars
from melanoma_infer.training.experiment import Experiment, Trained, comparison, spread
from melanoma_infer.training.record import table_csv, table_markdown

PHANTOM = "\nThe data are drawings: nothing here says anything about tissue.\n"


def report(
    experiment: Experiment,
    trained: Sequence[Trained],
    done: Calibrated,
    *,
    test: dict[str, Any] | None,
    left_out: Sequence[str],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The content of training.json.

    Args:
        experiment: what was trained.
        trained: every network.
        done: the final card.
        test: figures of the final network on the test tiles, which nothing else has used.
        left_out: why a precision is not in the bundle.
        facts: of run.json.
    """
    (final,) = (each for each in trained if each.job is experiment.final)
    division = experiment.final.division
    split = {"train": division.train, "validation": division.validation, "test": division.test}
    tiles = experiment.data.tiles
    return {
        **facts,
        "machine": machine(),
        "split": {
            name: {"tiles": len(rows), "patients": sorted({tiles[row].case_id for row in rows})}
            for name, rows in split.items()
        },
        "network": experiment.final.name,
        "parts": str(experiment.final.parts),
        "epochs": len(final.fitted.history),
        "best_epoch": final.fitted.best.epoch,
        "best_loss": final.fitted.best.loss,
        "validation": final.validation,
        "test": test,
        "threshold_on": done.on,
        "card": json.loads(done.card.model_dump_json()),
        "left_out": list(left_out),
        "doubts": list(experiment.doubts),
        "spread": spread(comparison(trained)) if experiment.what == "folds" else {},
        "networks": {
            each.job.name: {
                "parts": str(each.job.parts),
                "validation": each.validation,
                "history": [asdict(epoch) for epoch in each.fitted.history],
            }
            for each in trained
        },
    }


def comparison_files(experiment: Experiment, rows: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """The tables and pictures that compare several networks, by file name; none for one network."""
    if experiment.what == "one":
        return {}
    text = table_markdown(rows) + (PHANTOM if experiment.data.domain == "phantom" else "")
    name = experiment.what
    return {
        f"{name}.csv": table_csv(rows),
        f"{name}.md": text.encode(),
        f"{name}.png": ablation_bars(rows),
    }
