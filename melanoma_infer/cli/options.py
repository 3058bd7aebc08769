"""The options of the commands, each declared once, so that an option has the same help text wherever it occurs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# The sections of `score --help`.
SLIDES, MODEL, TILES, PATIENT = "Slides", "Model and engine", "Tiles", "Patient"
RUN, OUTPUT, TERMINAL = "Run", "Output", "Terminal"
ARRIVALS = "Arrivals"
"""A section of `watch --help`."""

VERDICTS = ("suspected", "not-detected", "indeterminate", "not-configured")

# Shared by several commands.
BundleArgument = Annotated[
    str, typer.Argument(help="The name of a packaged bundle, or the path of a NAME.mminfer folder.")
]
BundleOption = Annotated[
    str,
    typer.Option(help="The name of a packaged bundle, or the path of a NAME.mminfer folder.", rich_help_panel=MODEL),
]
EngineOption = Annotated[
    str,
    typer.Option(help="auto, openvino, triton, onnxruntime, torch, tensorrt or tensorrt-rtx.", rich_help_panel=MODEL),
]
EnginesOption = Annotated[
    list[str] | None,
    typer.Option("--engine", help="Only this engine; repeat the option for more.  [default: all]"),
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="fp32, bf16, fp16, int8 or fastest.  [default: the card's]", rich_help_panel=MODEL)
]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option("--precision", help="Only this precision; repeat the option for more.  [default: all]"),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Number of threads.  [default: all available cores]", rich_help_panel=MODEL)
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="cpu, or another device that the engine supports.  [default: the engine's choice]", rich_help_panel=MODEL
    ),
]
ReaderOption = Annotated[
    str,
    typer.Option(
        help="auto, openslide, or tiff (decodes the slide's JPEG tiles directly). All give the same pixels.",
        rich_help_panel=SLIDES,
    ),
]
MppOption = Annotated[
    str | None,
    typer.Option(
        help="µm per level-0 pixel, as X or X,Y; replaces the scale stored in the slide.", rich_help_panel=SLIDES
    ),
]
TileUmOption = Annotated[
    float | None, typer.Option(help="Side of a tile in µm.  [default: the card's]", rich_help_panel=TILES)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
TilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--tiles",
        metavar="PATH",
        help="Images of tile_px × tile_px pixels, or folders of them, to compare on.  [default: drawn tiles]",
    ),
]

# The patient.
AgeOption = Annotated[str | None, typer.Option(help="The patient's age in years.", rich_help_panel=PATIENT)]
SexOption = Annotated[str | None, typer.Option(help="The patient's sex.", rich_help_panel=PATIENT)]
SiteOption = Annotated[str | None, typer.Option(help="The site of the lesion.", rich_help_panel=PATIENT)]
UlcerationOption = Annotated[str | None, typer.Option(help="yes, no or unknown.", rich_help_panel=PATIENT)]
PatientOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Another patient field of the card; repeat the option for more.",
        rich_help_panel=PATIENT,
    ),
]


def named_path(text: str) -> Path:
    """The path; nothing else is checked: one that may not be read is a slide that fails, and the others are scored."""
    if not text:
        raise typer.BadParameter("The name is empty. Is a variable not set? Give . for this folder.")
    return Path(text)


# What `score` scores.
SlidesArgument = Annotated[
    list[Path] | None,
    typer.Argument(parser=named_path, metavar="SLIDES", help="Slides, or folders that contain slides."),
]
PatientsOption = Annotated[
    Path | None, typer.Option(metavar="FILE.csv", help="A manifest with one row per slide.", rich_help_panel=PATIENT)
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse a manifest with a column that is not used or a value that is not understood.",
        rich_help_panel=PATIENT,
    ),
]
StrideUmOption = Annotated[
    float | None,
    typer.Option(
        help="Distance between neighbouring tiles in µm.  [default: the side of a tile]", rich_help_panel=TILES
    ),
]
TissueOption = Annotated[
    str,
    typer.Option(
        help="auto (find the tissue), all (score every tile), or the path of a mask of the whole slide: tissue is "
        "where it is neither black (zero) nor transparent.",
        rich_help_panel=TILES,
    ),
]
AggregateOption = Annotated[
    str | None,
    typer.Option(
        help="How tile scores become the slide's: mean, max or top-area-mean.  [default: the card's]",
        rich_help_panel=MODEL,
    ),
]
SpecimenOption = Annotated[
    str | None, typer.Option(help="primary, re-excision, metastasis or other.", rich_help_panel=SLIDES)
]
StainOption = Annotated[str | None, typer.Option(help="H&E, IHC, fluorescence or other.", rich_help_panel=SLIDES)]

# How `score` runs, and what it writes.
OutOption = Annotated[
    Path, typer.Option(parser=named_path, metavar="DIR", help="The folder for the results.", rich_help_panel=OUTPUT)
]
EngineFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="For tensorrt and tensorrt-rtx: the engine that `mminfer export` built.",
        rich_help_panel=MODEL,
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Score finished slides again.", rich_help_panel=RUN)]
JsonLinesOption = Annotated[
    bool,
    typer.Option("--json", help="Print the results as JSON, one per line, and nothing else.", rich_help_panel=TERMINAL),
]
FailFastOption = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.", rich_help_panel=RUN)
]
FailOnOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VERDICT",
        help=f"End with exit code 4 if a slide gets this verdict: {', '.join(VERDICTS)}.",
        rich_help_panel=RUN,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Draw the tile grid (grid.png) and score nothing.", rich_help_panel=RUN)
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print versions, the engine and the time of each stage, too.", rich_help_panel=TERMINAL
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print results and errors only, and no progress.", rich_help_panel=TERMINAL),
]
LogJsonOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Append what happens to this file as JSON, one event per line. It has slide ids, but no paths and no "
        "patient values.",
        rich_help_panel=TERMINAL,
    ),
]
RequireTissueModelOption = Annotated[
    bool,
    typer.Option(
        "--require-tissue-model", help="Refuse a bundle that was trained on phantoms only.", rich_help_panel=MODEL
    ),
]
HideNamesOption = Annotated[
    bool,
    typer.Option("--hide-names", help="Use digests in place of slide names in all output.", rich_help_panel=OUTPUT),
]
NoPatientOption = Annotated[
    bool,
    typer.Option(
        "--no-patient-in-output",
        help="Write no patient values, neither to result.json nor to the report.",
        rich_help_panel=OUTPUT,
    ),
]
FullDigestOption = Annotated[
    bool,
    typer.Option(
        "--full-digest", help="Hash every byte of a slide to identify it, instead of samples.", rich_help_panel=SLIDES
    ),
]

# When `watch` takes a slide.
WatchedArgument = Annotated[
    Path, typer.Argument(parser=named_path, metavar="FOLDER", help="The folder, with its subfolders, to watch.")
]
StableForOption = Annotated[
    float,
    typer.Option(
        min=0.1,
        metavar="SECONDS",
        help="A slide has arrived when nobody has written to any of its files for so long and it opens.",
        rich_help_panel=ARRIVALS,
    ),
]
OpenWithinOption = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="A slide that does not open fails only if it is still so that long after its last change.",
        rich_help_panel=ARRIVALS,
    ),
]
AttemptsOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="How often a slide is tried that fails for want of memory or storage, or during which the watcher died.",
        rich_help_panel=ARRIVALS,
    ),
]
OnceOption = Annotated[
    bool,
    typer.Option(
        "--once",
        help="End when every slide in the folder is done, failed or given up.",
        rich_help_panel=ARRIVALS,
    ),
]
