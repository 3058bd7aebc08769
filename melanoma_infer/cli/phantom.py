"""`mminfer phantom`: draw slides whose ground truth is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.errors import UsageError

app = typer.Typer(help="Draw slides whose ground truth is known.", no_args_is_help=True)


class Lesion(StrEnum):
    """The lesion to draw."""

    melanoma = "melanoma"
    nevus = "nevus"
    none = "none"


class Style(StrEnum):
    """The laboratory and scanner to imitate."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    F = "F"


class Case(StrEnum):
    """A hard case."""

    thick_horn = "thick-horn"
    papillomatous = "papillomatous"
    polypoid = "polypoid"
    curved = "curved"
    unpigmented = "unpigmented"
    dark = "dark"
    large = "large"
    infiltrate = "infiltrate"
    melanophages = "melanophages"
    on_nevus = "on-nevus"
    ulcerated = "ulcerated"
    ink = "ink"
    fold = "fold"
    blur = "blur"


@app.command()
def slide(
    out: Annotated[
        Path, typer.Option(metavar="FILE.svs", help="The slide to write; the ground truth goes to FILE.json.")
    ],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed draws another section of skin.")] = 1,
    lesion: Annotated[
        Lesion, typer.Option(help="The lesion to draw; the skin around it is the same.")
    ] = Lesion.melanoma,
    depth_mm: Annotated[
        float | None, typer.Option(help="Breslow thickness of the melanoma.", show_default="from the seed")
    ] = None,
    width_mm: Annotated[
        float | None, typer.Option(help="Width of the melanoma along the skin.", show_default="from the seed")
    ] = None,
    case: Annotated[list[Case] | None, typer.Option(help="A hard case; may be given several times.")] = None,
    sections: Annotated[int, typer.Option(help="Serial sections on the slide, 1 to 4.")] = 1,
    angle: Annotated[float, typer.Option(help="Direction of the skin in degrees; at 0 its surface is up.")] = 0.0,
    style: Annotated[Style, typer.Option(help="The laboratory and scanner: A to D are for training.")] = Style.A,
    size_um: Annotated[str, typer.Option(metavar="W,H", help="Size of the slide in µm.")] = "9000,6000",
    mpp: Annotated[float, typer.Option(help="µm per pixel.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    json: opt.JsonOption = False,
) -> None:
    """Draw a section of skin, with or without a lesion, as a pyramidal SVS. The same options give the same bytes."""
    from melanoma_infer.phantom.mark import CAUTION
    from melanoma_infer.phantom.options import CASES, Options
    from melanoma_infer.phantom.scene import make_scene
    from melanoma_infer.phantom.write import require_drawable, truth_file, write_phantom

    try:
        width, height = (float(side) for side in size_um.split(","))
    except ValueError as error:
        raise UsageError(
            f"--size-um {size_um}: not a width and a height in µm. An example: --size-um 9000,6000"
        ) from error
    size = (width, height)
    require_drawable(size, mpp)
    if out.suffix.lower() != ".svs":
        raise UsageError(f"--out {out.name}: a phantom is written as SVS. Choose a name that ends in .svs.")
    if not overwrite and (out.exists() or truth_file(out).exists()):
        existing = out if out.exists() else truth_file(out)
        raise UsageError(f"{existing.name} already exists. Give --overwrite, or choose another --out.")
    if lesion is not Lesion.melanoma and (depth_mm is not None or width_mm is not None):
        raise UsageError("--depth-mm and --width-mm are a melanoma's. Leave them out, or draw --lesion melanoma.")
    asked = {one.value for one in case or ()}
    cases = frozenset(name for name in CASES if name in asked)
    options = Options(style.value, cases, depth_mm, sections, angle, width_mm)
    write_phantom(out, make_scene(seed, lesion.value, size, options), mpp)
    if json:
        say_json({"slide": str(out), "truth": str(truth_file(out))})
    else:
        say(str(out))
        say(str(truth_file(out)))
        note(CAUTION)


@app.command()
def cohort(
    out: Annotated[Path, typer.Option(parser=opt.named_path, metavar="DATA", help="The folder for the data set.")],
    tiles: Annotated[int, typer.Option(min=1, help="Number of tiles, two of each patient.")],
    slides: Annotated[int, typer.Option(min=0, help="Number of whole slides, of other patients.")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed draws other patients.")] = 1,
    styles: Annotated[
        str, typer.Option(metavar="S,S,…", help="Styles to mix. Patients in style E or F are for testing only.")
    ] = "A,B,C,D",
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="The card of the model.", show_default="that of the demo bundle"),
    ] = None,
    json: opt.JsonOption = False,
) -> None:
    """Draw a data set for `mminfer train`: tiles with labels, patients and outcomes, and the truth of each tile."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.datasets.drawn import TRUTH, Cohort, write_cohort
    from melanoma_infer.phantom.mark import CAUTION
    from melanoma_infer.phantom.styles import STYLES
    from melanoma_infer.runtime.cores import available_cores

    asked = tuple(styles.split(","))
    if unknown := [name for name in asked if name not in STYLES]:
        raise UsageError(f"--styles {styles}: there is no style {unknown[0]!r}. Choose among {', '.join(STYLES)}.")
    if (out / "dataset.json").exists():
        raise UsageError(f"{out.name} already holds a data set. Choose another --out.")
    if card is None:
        known = open_bundle("demo").card
    else:
        from mminfer_export.card_toml import read_training_card

        known = read_training_card(card)
    write_cohort(out, known, Cohort(tiles, slides, seed, asked), processes=available_cores())
    if json:
        say_json({"dataset": str(out), "truth": str(out / TRUTH)})
    else:
        say(str(out))
        note(CAUTION)
