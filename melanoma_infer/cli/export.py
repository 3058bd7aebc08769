"""`mminfer export`: add a graph in another precision to a bundle, or build an engine for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.calibration import CalibrationOptions, calibration_tiles
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError, OutputError, UsageError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle, ParityRow
    from melanoma_infer.engines.engine_file import EngineManifest


class Target(StrEnum):
    """What to make from a bundle."""

    onnx = "onnx"
    tensorrt_rtx = "tensorrt-rtx"
    tensorrt = "tensorrt"


class Precision(StrEnum):
    """The precision in which the graph computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="NEW",
        help="For onnx: the NAME.mminfer folder to create. For engines: the file to write, by default "
        "./BUNDLE.PRECISION.TARGETS.engine. BUNDLE itself is never changed.",
    ),
]
ToOption = Annotated[
    Target,
    typer.Option(
        help="onnx: a new bundle with one more graph, for every engine; tensorrt-rtx: an engine, built without a GPU; "
        "tensorrt: an engine, built on this machine's GPU."
    ),
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="SLIDE", help="For int8: a slide whose tiles set the ranges, in addition to drawn ones."),
]
CalibrationTileOption = Annotated[
    float | None, typer.Option(metavar="UM", help="For --calibration: side of a tile in µm.  [default: the card's]")
]
CalibrationTilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--tiles",
        metavar="PATH",
        help="For int8: images of tile_px × tile_px pixels, or folders of them, that set the ranges, too.",
    ),
]
CalibrationMppOption = Annotated[
    str | None, typer.Option(help="For --calibration: µm per level-0 pixel, as X or X,Y; replaces the slide's scale.")
]
GpuTargetsOption = Annotated[
    str | None,
    typer.Option(
        metavar="SM,…",
        help="For tensorrt-rtx: GPUs, out of sm75,sm80,sm86,sm89,sm120.  [default: sm86,sm89,sm120]",
    ),
]
GpuOption = Annotated[str | None, typer.Option(help="For tensorrt: the GPU, such as cuda:1.  [default: the first GPU]")]
StripWeightsOption = Annotated[
    bool,
    typer.Option("--strip-weights", help="For engines: store no weights; they are read from the bundle."),
]
PluginsOption = Annotated[
    bool,
    typer.Option(
        "--plugins", help="For tensorrt: attention, projection, head and maps by this project's Triton kernels."
    ),
]


CALIBRATING = "--calibration, --tiles, --mpp and --tile-um"


def export(
    bundle: opt.BundleArgument,
    out: OutOption = None,
    to: ToOption = Target.onnx,
    precision: Annotated[Precision, typer.Option(help="The precision in which the graph computes.")] = Precision.fp16,
    calibration: CalibrationOption = None,
    tiles: CalibrationTilesOption = None,
    mpp: CalibrationMppOption = None,
    tile_um: CalibrationTileOption = None,
    target: GpuTargetsOption = None,
    device: GpuOption = None,
    strip_weights: StripWeightsOption = False,
    plugins: PluginsOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Convert a bundle to another precision, or build an engine from it.

    A converted graph is compared with the fp32 graph before it is written.
    """
    from melanoma_infer.bundle.bundle import open_bundle

    ranges = CalibrationOptions(calibration or (), tiles or (), mpp, tile_um)
    if ranges.given and precision is not Precision.int8:
        raise UsageError(f"{CALIBRATING} are only for --precision int8: no other precision needs ranges.")
    _require_fitting(to, target, device, calibrated=ranges.given, stripped=strip_weights, plugins=plugins)
    ranges.require_slides()
    match to:
        case Target.onnx if out is not None:
            if out.exists():
                raise OutputError(
                    f"{out.name} exists, and bundles are never overwritten. Remove it, or choose another --out."
                )
            _export_onnx(open_bundle(bundle), out, precision, ranges, json=json)
        case Target.onnx:
            raise UsageError("Give --out NEW.mminfer, the bundle to create.")
        case Target.tensorrt_rtx:
            from mminfer_export import to_tensorrt_rtx

            targets = to_tensorrt_rtx.TARGETS if target is None else target.split(",")
            opened, started = open_bundle(bundle), perf_counter()
            built = to_tensorrt_rtx.build_engine(opened, precision.value, targets, out, strip_weights=strip_weights)
            _say_engine(*built, perf_counter() - started, json=json)
        case Target.tensorrt:
            from mminfer_export import to_tensorrt

            opened, started = open_bundle(bundle), perf_counter()
            built = to_tensorrt.build_engine(
                opened, precision.value, out, device=device, strip_weights=strip_weights, plugins=plugins
            )
            _say_engine(*built, perf_counter() - started, json=json)


def _require_fitting(
    to: Target, target: str | None, device: str | None, *, calibrated: bool, stripped: bool, plugins: bool
) -> None:
    """Raise UsageError for an option that the target would ignore."""
    given = {
        "--target": (target is not None, [Target.tensorrt_rtx]),
        "--device": (device is not None, [Target.tensorrt]),
        "--strip-weights": (stripped, [Target.tensorrt_rtx, Target.tensorrt]),
        "--plugins": (plugins, [Target.tensorrt]),
        CALIBRATING: (calibrated, [Target.onnx]),
    }
    for option, (is_given, targets) in given.items():
        if is_given and to not in targets:
            raise UsageError(f"{option} is only for --to {' or '.join(targets)}, not for --to {to}.")


def _export_onnx(bundle: Bundle, out: Path, precision: Precision, ranges: CalibrationOptions, *, json: bool) -> None:
    try:
        from mminfer_export.precisions import Tiles, make_precision, write_with
        from mminfer_export.sample_tiles import picture_tiles
    except ImportError as error:
        raise EngineUnavailableError(
            f"Exporting needs {error.name or 'a package'}, which cannot be imported here. "
            "Install it: pip install 'mminfer[export]'"
        ) from error
    images = picture_tiles(ranges.images, bundle.card) if ranges.images else None
    given = calibration_tiles(ranges, bundle, images)
    added = make_precision(bundle, precision.value, None if given is None else Tiles(*given))
    write_with(bundle, [added], out)
    if json:
        rows = [row.model_dump() for row in added.rows]
        result = {"out": str(out), "precision": added.precision, "kept_float": added.kept_float, "parity": rows}
        say_json({**result, "bytes": len(added.graph)})
        return
    say(str(out))
    say(parity_table(added.rows))
    if added.kept_float:
        note(f"{plural(len(added.kept_float), 'layer')} kept in float: in int8, too little of the tolerance was left.")
    sizes = {"fp32": len(bundle.graphs["fp32"]), precision.value: len(added.graph)}
    note(", ".join(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()))


def parity_table(rows: Sequence[ParityRow]) -> str:
    """How far each engine with the new graph is from the fp32 graph."""
    cells = [
        (
            f"{row.engine} {row.precision}",
            f"{row.p999_dp:.1e}",
            "" if row.p999_dmm is None else f"{row.p999_dmm:.1e}",
            str(row.decision_flips),
            row.on,
        )
        for row in rows
    ]
    return table(cells, ("engine", "p99.9 |Δp|", "p99.9 |Δmm|", "flips", "on"))


def _say_engine(path: Path, manifest: EngineManifest, seconds: float, *, json: bool) -> None:
    if json:
        say_json({"out": str(path), "build_s": round(seconds, 3), **manifest.model_dump(mode="json")})
        return
    origin = manifest.origin
    say(str(path))
    note(f"{origin.runtime} {origin.runtime_version}, {origin.precision}, {origin.gpu or ', '.join(origin.targets)}")
    note(
        f"{manifest.engine_bytes / 1e6:.1f} MB, built in {seconds:.1f} s, not run. "
        f"Keep {path.name}.json in the same folder: scoring needs it."
    )
    if (origin.runtime, origin.precision) == ("tensorrt-rtx", "int8"):
        note(
            "Building does not show that its convolutions run in int8: NVIDIA documents that for matrix products alone."
        )
