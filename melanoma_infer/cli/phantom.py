"""`mminfer phantom`: draw slides whose truth is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from melanoma_infer.cli.console import note, say
from melanoma_infer.errors import UsageError

app = typer.Typer(help="Draw slides whose truth is known.", no_args_is_help=True)


class Lesion(StrEnum):
    """What there is to find."""

    melanoma = "melanoma"
    none = "none"


@app.callback()
def _group() -> None:
    """Keep `slide` a command of its own."""


@app.command()
def slide(
    out: Annotated[Path, typer.Option(metavar="FILE.svs", help="The slide; its truth is written to FILE.json.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed is another section of skin.")] = 1,
    lesion: Annotated[Lesion, typer.Option(help="What there is to find; the skin is the same.")] = Lesion.melanoma,
    size_um: Annotated[str, typer.Option(metavar="W,H", help="Size of the slide in µm.")] = "9000,6000",
    mpp: Annotated[float, typer.Option(help="µm per pixel.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that stand there.")] = False,
) -> None:
    """Draw a section of skin, with a melanoma or without, as a pyramidal SVS; the same seed gives the same bytes."""
    from melanoma_infer.phantom.mark import CAUTION
    from melanoma_infer.phantom.scene import make_scene
    from melanoma_infer.phantom.write import require_drawable, truth_file, write_phantom

    size = _size(size_um)
    require_drawable(size, mpp)
    if out.suffix.lower() != ".svs":
        raise UsageError("A phantom is written as SVS: give --out a name that ends in .svs.")
    if not overwrite and (out.exists() or truth_file(out).exists()):
        raise UsageError("The slide or its truth is there already. Give --overwrite, or another --out.")
    write_phantom(out, make_scene(seed, lesion.value, size), mpp)
    say(str(out))
    say(str(truth_file(out)))
    note(CAUTION)


def _size(text: str) -> tuple[float, float]:
    try:
        width, height = (float(side) for side in text.split(","))
    except ValueError as error:
        raise UsageError("--size-um takes a width and a height: --size-um 9000,6000") from error
    return width, height
