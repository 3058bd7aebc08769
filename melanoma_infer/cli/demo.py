"""`mminfer demo`: two drawn slides, scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, progress_bar, say, table

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.phantom.scene import LesionKind
    from melanoma_infer.result import SlideOutcome

SLIDES: Mapping[str, LesionKind] = {"with-lesion": "melanoma", "without-lesion": "none"}
SEED = 7
"""One seed for both: the same skin, with the lesion and without."""
SIZE_UM = (9000.0, 6000.0)
"""Three by two tiles of the demo bundle, none of which needs padding."""
UM_PER_PX = 1.0
"""A 10× scan: drawn in a quarter of the time of a 20× one, and far finer than the demo bundle's 5.9 µm/px."""

NEXT = (
    ("mminfer score slide.svs", "your own slide"),
    ("mminfer bundle show", "what the model is, what it needs and what it may say"),
    ("mminfer doctor", "what works on this machine"),
)


def demo(
    out: Annotated[Path, typer.Option(help="The folder for the slides and the results.")] = Path("mminfer-demo"),
) -> None:
    """Draw two slides, one with a lesion and one without, and score them. The second time is quick."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.phantom.mark import CAUTION

    bundle = open_bundle("demo")
    slides = [_drawn(out / f"{name}.svs", lesion) for name, lesion in SLIDES.items()]
    outcomes = _scored(slides, bundle, out / "results")
    for outcome in outcomes:
        _tell(outcome, out)
    say(_why(bundle))
    say(f"{CAUTION}\n")
    say("Try next:")
    say(table([(f"  {command}", what) for command, what in NEXT]))
    if failed := [outcome for outcome in outcomes if outcome.exit_code]:
        raise typer.Exit(failed[0].exit_code)


def _drawn(path: Path, lesion: LesionKind) -> Path:
    """The slide, drawn unless it stands there."""
    from melanoma_infer.errors import OutputError
    from melanoma_infer.phantom.scene import make_scene
    from melanoma_infer.phantom.write import is_written, write_phantom

    scene = make_scene(SEED, lesion, SIZE_UM)
    if is_written(path, scene, UM_PER_PX):
        return path
    note(f"drawing {path} …")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The demo's folder cannot be made ({error.strerror}). Choose another --out.") from error
    write_phantom(path, scene, UM_PER_PX)
    return path


def _scored(slides: list[Path], bundle: Bundle, out: Path) -> list[SlideOutcome]:
    """The slides' outcomes, along the path of `mminfer score`."""
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.pipeline.flow import score_slides
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.reports.output import OutputFolder
    from melanoma_infer.reports.run_files import RunFiles
    from melanoma_infer.settings import Settings

    scorer = Scorer(bundle)
    requests = [SlideRequest(path, SlideCase(path.stem), Settings()) for path in slides]
    outcomes: list[SlideOutcome] = []
    with (
        OutputFolder(out) as folder,
        RunFiles(out, bundle, scorer.numerics, command=["demo"]) as run,
        progress_bar() as progress,
    ):
        for outcome in score_slides(requests, scorer, folder, progress=progress):
            run.add(outcome)
            outcomes.append(outcome)
    return outcomes


def _tell(outcome: SlideOutcome, out: Path) -> None:
    """What was drawn, what the model says of it, and where to look."""
    from melanoma_infer.reports.words import finding

    if outcome.result is None or outcome.folder is None:
        note(f"{outcome.id}: failed at {outcome.stage!r} (exit {outcome.exit_code}): {outcome.message}")
        return
    report = outcome.folder / "report.html"
    say(f"{outcome.id}: {finding(outcome.result)}")
    say(f"  drawn: {_what_was_drawn(out / f'{outcome.id}.json')}")
    say(f"  {report if report.is_file() else outcome.folder}\n")


def _what_was_drawn(truth: Path) -> str:
    import json

    told = json.loads(truth.read_text(encoding="utf-8"))
    if told["lesion"] == "none":
        return "the same skin without a lesion"
    return f"skin with a lesion of {told['area_mm2']:.2f} mm² that reaches {told['depth_mm']:.2f} mm deep"


def _why(bundle: Bundle) -> str:
    """Why nothing was found on a slide that plainly shows something."""
    if bundle.card.trained:
        return "The slides were drawn; what the model says of them says nothing of tissue.\n"
    return (
        "Both are indeterminate, and that is right: the demo bundle is untrained, its weights are random numbers, and "
        "who has\nlearnt nothing may neither suspect nor rule out anything. Everything else that you see is real: the "
        "tissue, the tiles,\nthe scale, the reasons. For a verdict, bring a trained model: --bundle NAME.mminfer.\n"
    )
