"""The options of the commands, each declared once, so that an option has the same help text wherever it occurs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VERDICTS = ("suspected", "not-detected", "indeterminate", "not-configured")

# Shared by several commands.
BundleArgument = Annotated[
    str, typer.Argument(help="The name of a packaged bundle, or the path of a NAME.mminfer folder.")
]
BundleOption = Annotated[str, typer.Option(help="The name of a packaged bundle, or the path of a NAME.mminfer folder.")]
EngineOption = Annotated[
    str, typer.Option(help="auto, openvino, triton, onnxruntime, torch, tensorrt or tensorrt-rtx.")
]
EnginesOption = Annotated[
    list[str] | None,
    typer.Option("--engine", help="Only this engine; repeat the option for more.  [default: all]"),
]
PrecisionOption = Annotated[str | None, typer.Option(help="fp32, bf16, fp16, int8 or fastest.  [default: the card's]")]
PrecisionsOption = Annotated[
    list[str] | None,
    typer.Option("--precision", help="Only this precision; repeat the option for more.  [default: all]"),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Number of threads.  [default: all available cores]")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, or another device that the engine supports.  [default: the engine's choice]")
]
ReaderOption = Annotated[
    str,
    typer.Option(help="auto, openslide, or tiff (decodes the slide's JPEG tiles directly). All give the same pixels."),
]
MppOption = Annotated[
    str | None,
    typer.Option(help="µm per level-0 pixel, as X or X,Y; replaces the scale stored in the slide."),
]
TileUmOption = Annotated[float | None, typer.Option(help="Side of a tile in µm.  [default: the card's]")]
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
AgeOption = Annotated[str | None, typer.Option(help="The patient's age in years.")]
SexOption = Annotated[str | None, typer.Option(help="The patient's sex.")]
SiteOption = Annotated[str | None, typer.Option(help="The site of the lesion.")]
UlcerationOption = Annotated[str | None, typer.Option(help="yes, no or unknown.")]
PatientOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Another patient field of the card; repeat the option for more."),
]

# What `score` scores.
SlidesArgument = Annotated[
    # Typer must not check them: one that may not be read is a slide that fails, and the others are scored.
    list[Path] | None, typer.Argument(readable=False, help="Slides, or folders that contain slides.")
]
PatientsOption = Annotated[Path | None, typer.Option(metavar="FILE.csv", help="A manifest with one row per slide.")]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a manifest with a column that is not used or a value that is not understood."
    ),
]
StrideUmOption = Annotated[
    float | None, typer.Option(help="Distance between neighbouring tiles in µm.  [default: the side of a tile]")
]
TissueOption = Annotated[
    str,
    typer.Option(help="auto (find the tissue), all (score every tile), or the path of a mask image of the slide."),
]
AggregateOption = Annotated[
    str | None,
    typer.Option(help="How tile scores become the slide's: mean, max or top-area-mean.  [default: the card's]"),
]
SpecimenOption = Annotated[str | None, typer.Option(help="primary, re-excision, metastasis or other.")]
StainOption = Annotated[str | None, typer.Option(help="H&E, IHC, fluorescence or other.")]

# How `score` runs, and what it writes.
OutOption = Annotated[Path, typer.Option(help="The folder for the results.")]
EngineFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For tensorrt and tensorrt-rtx: the engine that `mminfer export` built."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Score finished slides again.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON, one per line, and nothing else.")
]
FailFastOption = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.")]
FailOnOption = Annotated[
    list[str] | None,
    typer.Option(metavar="VERDICT", help=f"End with exit code 4 if a slide gets this verdict: {', '.join(VERDICTS)}."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Draw the tile grid (grid.png) and score nothing.")]
RequireTissueModelOption = Annotated[
    bool, typer.Option("--require-tissue-model", help="Refuse a bundle that was trained on phantoms only.")
]
HideNamesOption = Annotated[
    bool, typer.Option("--hide-names", help="Use digests in place of slide names in all output.")
]
NoPatientOption = Annotated[
    bool,
    typer.Option("--no-patient-in-output", help="Write no patient values, neither to result.json nor to the report."),
]
FullDigestOption = Annotated[
    bool, typer.Option("--full-digest", help="Hash every byte of a slide to identify it, instead of samples.")
]
