"""`mminfer export`: a bundle's graph in another precision, or as another runtime's engine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, say, table
from melanoma_infer.errors import EngineUnavailableError, SlideUnreadableError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from melanoma_infer.bundle.bundle import Bundle, ParityRow
    from melanoma_infer.engines.engine_file import EngineManifest
    from mminfer_export.precisions import Added, Tiles

CALIBRATION_TILES_MAX = 32
"""Of all slides together: twice as many changed no range by more than a few percent."""


class Target(StrEnum):
    """What is made of a bundle."""

    onnx = "onnx"
    tensorrt_rtx = "tensorrt-rtx"
    tensorrt = "tensorrt"


class Precision(StrEnum):
    """In what the graph computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export(
    bundle: Annotated[str, typer.Argument(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="NEW",
            help="onnx: the NAME.mminfer to make; else the engine's file, default ./BUNDLE.PRECISION.TARGETS.engine. "
            "BUNDLE is never changed.",
        ),
    ] = None,
    to: Annotated[
        Target,
        typer.Option(
            help="onnx: a new bundle with one more graph, for every engine; tensorrt-rtx: an engine, built without a "
            "GPU; tensorrt: an engine, built on the GPU of this machine."
        ),
    ] = Target.onnx,
    precision: Annotated[Precision, typer.Option(help="In what the graph computes.")] = Precision.fp16,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(metavar="SLIDE", help="For int8: a slide whose tiles set the ranges, beside drawn ones."),
    ] = None,
    tile_um: Annotated[
        float | None, typer.Option(metavar="UM", help="Side of the calibration slides' tiles; default: the card's.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="SM,…", help="For tensorrt-rtx, of sm75,sm80,sm86,sm89,sm120.  [default: sm86,sm89,sm120]"
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="For tensorrt: cuda:1 and so on; default: the first GPU.")] = None,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="For engines: leave the weights in the bundle.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Make a bundle's graph in another precision, compared with fp32 before it is written, or an engine of it."""
    from melanoma_infer.bundle.bundle import open_bundle

    if (calibration or tile_um is not None) and precision is not Precision.int8:
        raise UsageError("--calibration and --tile-um are for --precision int8: no other precision has ranges to set.")
    _require_fitting(to, target, device, calibrated=bool(calibration) or tile_um is not None, stripped=strip_weights)
    # One branch a target: what needs another runtime is imported in its own function.
    match to:
        case Target.onnx if out is not None:
            _require_new(out)
            opened = open_bundle(bundle)
            _export_onnx(opened, out, precision, _calibration(calibration or [], opened, tile_um), json=json)
        case Target.onnx:
            raise UsageError("Give --out NEW.mminfer: the bundle to make.")
        case Target.tensorrt_rtx:
            _export_tensorrt_rtx(open_bundle(bundle), out, precision, target, strip_weights=strip_weights, json=json)
        case Target.tensorrt:
            _export_tensorrt(open_bundle(bundle), out, precision, device, strip_weights=strip_weights, json=json)


def _require_fitting(to: Target, target: str | None, device: str | None, *, calibrated: bool, stripped: bool) -> None:
    """Refuse an option that the target would not look at."""
    given = {
        "--target": (target is not None, [Target.tensorrt_rtx]),
        "--device": (device is not None, [Target.tensorrt]),
        "--strip-weights": (stripped, [Target.tensorrt_rtx, Target.tensorrt]),
        "--calibration and --tile-um": (calibrated, [Target.onnx]),
    }
    for option, (is_given, targets) in given.items():
        if is_given and to not in targets:
            raise UsageError(f"{option}: only for --to {' or '.join(targets)}.")


def _export_onnx(bundle: Bundle, out: Path, precision: Precision, calibration: Tiles | None, *, json: bool) -> None:
    try:
        from mminfer_export.precisions import make_precision, write_with
    except ImportError as error:
        raise _missing(error) from error
    added = make_precision(bundle, precision.value, calibration)
    write_with(bundle, [added], out)
    if json:
        _say_json(out, added)
        return
    say(str(out))
    say(table([("engine", "p99.9 |Δp|", "p99.9 |Δmm|", "flips", "on"), *(_cells(row) for row in added.rows)]))
    if added.kept_float:
        note(f"{len(added.kept_float)} layers stay in float: with them in int8 too little of the tolerance is left.")
    sizes = {"fp32": len(bundle.graphs["fp32"]), precision.value: len(added.graph)}
    note(", ".join(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()))


def _export_tensorrt_rtx(
    bundle: Bundle, out: Path | None, precision: Precision, target: str | None, *, strip_weights: bool, json: bool
) -> None:
    from mminfer_export.to_tensorrt_rtx import TARGETS, build_engine

    targets = TARGETS if target is None else target.split(",")
    started = perf_counter()
    built = build_engine(bundle, precision.value, targets, out, strip_weights=strip_weights)
    _say_engine(*built, perf_counter() - started, json=json)


def _export_tensorrt(
    bundle: Bundle, out: Path | None, precision: Precision, device: str | None, *, strip_weights: bool, json: bool
) -> None:
    from mminfer_export.to_tensorrt import build_engine

    started = perf_counter()
    built = build_engine(bundle, precision.value, out, device=device, strip_weights=strip_weights)
    _say_engine(*built, perf_counter() - started, json=json)


def _say_engine(path: Path, manifest: EngineManifest, seconds: float, *, json: bool) -> None:
    import json as json_module

    if json:
        say(json_module.dumps({"out": str(path), "build_s": round(seconds, 3), **manifest.model_dump(mode="json")}))
        return
    origin = manifest.origin
    say(str(path))
    note(f"{origin.runtime} {origin.runtime_version}, {origin.precision}, {origin.gpu or ', '.join(origin.targets)}")
    note(
        f"{manifest.engine_bytes / 1e6:.1f} MB, built in {seconds:.1f} s; it was not run. "
        f"Keep {path.name}.json beside it."
    )


def _calibration(slides: list[Path], bundle: Bundle, tile_um: float | None) -> Tiles | None:
    """Tiles of these slides, evenly chosen, so many of each that there are CALIBRATION_TILES_MAX at most."""
    if not slides:
        if tile_um is not None:
            raise UsageError("--tile-um says how the slides of --calibration are cut: name one.")
        return None
    import numpy as np

    try:
        from mminfer_export.precisions import Tiles
    except ImportError as error:
        raise _missing(error) from error
    share = max(1, CALIBRATION_TILES_MAX // len(slides))
    pixels = np.concatenate([_tiles_of(slide, bundle, tile_um, share) for slide in slides])
    return Tiles(pixels, f"{len(pixels)} tiles of {len(slides)} slide{'s' if len(slides) > 1 else ''}")


def _tiles_of(path: Path, bundle: Bundle, tile_um: float | None, wanted: int) -> NDArray[np.uint8]:
    import numpy as np

    from melanoma_infer.runtime.cores import available_cores
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.plan import plan_slide
    from melanoma_infer.tiles.reading import read_tiles

    with open_slide(path) as slide:
        plan = plan_slide(slide, bundle.card, Settings(tile_um=tile_um))
        rows = sorted({int(row) for row in np.linspace(0, len(plan.tiles) - 1, min(wanted, len(plan.tiles)))})
        with read_tiles(slide, plan, tiles=[plan.tiles[row] for row in rows], threads=available_cores()) as reads:
            pixels = [read.pixels for read in reads if read.pixels is not None]
    if not pixels:
        raise SlideUnreadableError("A calibration slide has no tile with tissue that can be read. Name another.")
    return np.stack(pixels)


def _require_new(out: Path) -> None:
    """Asked before minutes of work; the writer asks again."""
    if out.exists():
        from melanoma_infer.errors import OutputError

        raise OutputError(f"{out.name} exists. A bundle is never changed: remove it, or choose another name.")


def _missing(error: ImportError) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"Exporting needs {error.name or 'a package'}, which does not load here. "
        "Install it: pip install 'mminfer[export]'."
    )


def _cells(row: ParityRow) -> tuple[str, ...]:
    depth = "" if row.p999_dmm is None else f"{row.p999_dmm:.1e}"
    return (f"{row.engine} {row.precision}", f"{row.p999_dp:.1e}", depth, str(row.decision_flips), row.on)


def _say_json(out: Path, added: Added) -> None:
    import json as json_module

    rows = [row.model_dump() for row in added.rows]
    result = {"out": str(out), "precision": added.precision, "kept_float": added.kept_float, "parity": rows}
    say(json_module.dumps({**result, "bytes": len(added.graph)}))
