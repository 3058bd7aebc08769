"""Score slides from the command line: record the results, show progress, report each outcome when it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.cli.console import note, progress_bar

if TYPE_CHECKING:
    from melanoma_infer.pipeline.request import RunOptions, SlideRequest
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.result import SlideOutcome


def score_and_record(
    requests: Sequence[SlideRequest],
    scorer: Scorer,
    out: Path,
    *,
    command: Sequence[str],
    options: RunOptions,
    tell: Callable[[SlideOutcome], None],
    fail_fast: bool = False,
) -> list[SlideOutcome]:
    """Score slides into the folder `out`; returns the outcomes, up to the first failure if `fail_fast`.

    `command` is stored in run.json, so it must contain no path and no patient value.
    """
    from melanoma_infer.pipeline.flow import score_slides
    from melanoma_infer.reports.output import OutputFolder
    from melanoma_infer.reports.run_files import RunFiles

    outcomes: list[SlideOutcome] = []
    with (
        OutputFolder(out) as folder,
        RunFiles(out, scorer.bundle, scorer.numerics, command=command) as run,
        progress_bar() as progress,
        closing(score_slides(requests, scorer, folder, options=options, progress=progress)) as scored,
    ):
        for outcome in scored:
            run.add(outcome)
            outcomes.append(outcome)
            tell(outcome)
            if fail_fast and outcome.exit_code:
                break
    return outcomes


def tell_failure(outcome: SlideOutcome) -> None:
    """Print which slide failed, at which stage and why."""
    note(f"{outcome.id or 'a slide'}: failed at {outcome.stage!r} (exit {outcome.exit_code}): {outcome.message}")
