"""`mminfer demo`: draw two slides and score them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, say
from melanoma_infer.cli.options import named_path
from melanoma_infer.cli.running import score_and_record, tell_failure
from melanoma_infer.cli.tables import table

if TYPE_CHECKING:
    from melanoma_infer.phantom.options import Kind
    from melanoma_infer.result import SlideOutcome

SLIDES: Mapping[str, Kind] = {"with-lesion": "melanoma", "without-lesion": "none"}
SEED = 7
DEPTH_MM, WIDTH_MM = 1.8, 2.5
"""The melanoma's thickness and width: large enough to compare its outline with the drawing by eye."""
SIZE_UM = (9000.0, 6000.0)
"""Three by two tiles of the demo bundle, none of which needs padding."""
UM_PER_PX = 1.0
"""A 10× scan: drawn in a quarter of the time of a 20× scan, and still far finer than the demo bundle's 5.9 µm/px."""

NEXT = (
    ("mminfer score slide.svs", "score your own slide"),
    ("mminfer bundle show", "see what the model is, what it needs and what it reports"),
    ("mminfer doctor", "see which engines work on this machine"),
)

WHAT_THIS_IS = """\
Both slides are drawings of the same skin. The demo bundle has learned from other drawings and judges nothing else: of
a slide of tissue it says "indeterminate". For tissue, use a model that was trained on it: --bundle NAME.mminfer"""


def demo(
    out: Annotated[
        Path, typer.Option(parser=named_path, metavar="DIR", help="The folder for the slides and the results.")
    ] = Path("mminfer-demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed draws other skin.")] = SEED,
) -> None:
    """Draw the same skin twice, with a melanoma and without, and score both slides. A second run is quick."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.patients.case import SlideCase
    from melanoma_infer.phantom.mark import CAUTION
    from melanoma_infer.pipeline.request import RunOptions, SlideRequest
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.settings import Settings

    bundle = open_bundle("demo")
    slides = [_drawn(out / f"{name}.svs", lesion, seed) for name, lesion in SLIDES.items()]
    requests = [SlideRequest(path, SlideCase(path.stem), Settings()) for path in slides]
    outcomes = score_and_record(
        requests,
        bundle,
        partial(Scorer, bundle),
        out / "results",
        command=["demo"],
        options=RunOptions(),
        tell=lambda outcome: _tell(outcome, out / f"{outcome.id}.json"),
    )
    say(WHAT_THIS_IS)
    say(f"\n{CAUTION}\n")
    say("Try next:")
    say(table([(f"  {command}", what) for command, what in NEXT]))
    if failed := [outcome for outcome in outcomes if outcome.exit_code]:
        raise typer.Exit(failed[0].exit_code)


def _drawn(path: Path, lesion: Kind, seed: int) -> Path:
    """The path of the slide, which is drawn unless an earlier run drew it."""
    from melanoma_infer.errors import OutputError
    from melanoma_infer.phantom.options import Options
    from melanoma_infer.phantom.scene import make_scene
    from melanoma_infer.phantom.write import is_written, write_phantom
    from melanoma_infer.runtime.files import why_not_written

    scene = make_scene(seed, lesion, SIZE_UM, Options(depth_mm=DEPTH_MM, width_mm=WIDTH_MM))
    if is_written(path, scene, UM_PER_PX):
        return path
    note(f"drawing {path} …")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out: the folder cannot be created: {why_not_written(error)}") from error
    write_phantom(path, scene, UM_PER_PX)
    return path


def _tell(outcome: SlideOutcome, truth: Path) -> None:
    """Print what was drawn, what the model says about it, and where the report is."""
    import json

    from melanoma_infer.reports.words import finding

    if outcome.result is None or outcome.folder is None:
        tell_failure(outcome)
        return
    drawn = json.loads(truth.read_text(encoding="utf-8"))
    what = "the same skin without it"
    if drawn["lesion"] != "none":
        what = f"skin with a melanoma of {drawn['area_mm2']:.2f} mm² that reaches {drawn['breslow_mm']:.2f} mm deep"
    report = outcome.folder / "report.html"
    say(f"{outcome.id}: {finding(outcome.result)}")
    say(f"  drawn: {what}")
    say(f"  {report if report.is_file() else outcome.folder}\n")
