"""A bundle's graph → an engine for RTX GPUs, built ahead of time on a machine that needs no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.engine_file import EngineManifest, write_engine
from melanoma_infer.engines.tensorrt_api import import_api
from melanoma_infer.engines.tensorrt_build import build, graph_of, origin_of
from melanoma_infer.errors import UsageError
from melanoma_infer.tolerances import Precision

TARGETS = ("sm86", "sm89", "sm120")
"""The default targets: RTX 30, 40 and 50."""


def build_engine(
    bundle: Bundle,
    precision: Precision,
    targets: Sequence[str] = TARGETS,
    out: Path | None = None,
    *,
    strip_weights: bool = False,
) -> tuple[Path, EngineManifest]:
    """Build the engine, and return its path (the manifest is next to it) and the manifest.

    Two builds of one graph do the same, but are not the same bytes.

    Args:
        bundle: the verified model.
        precision: one that the bundle has a graph of.
        targets: compute capabilities: sm75, sm80, sm86, sm89, sm120, in any order.
        out: the file to write; None for `./<bundle>.<precision>.<targets>.engine`.
        strip_weights: leave the weights out; the engine gets them from the bundle when it is loaded.

    Raises:
        UsageError: a target is none of TensorRT-RTX's.
        EngineUnavailableError: the bundle has no such graph, or TensorRT-RTX is not installed or refuses to build.
        BundleError: the network that TensorRT-RTX read is not the one in the graph.
        MemoryExhaustedError: there was not enough memory to build.
        OutputError: the file cannot be written, or another file is there.
    """
    graph = graph_of(bundle, precision)
    api = import_api("tensorrt-rtx")
    names = {target.strip().lower().replace("_", "") for target in targets}
    known = [name.lower() for name in api.trt.ComputeCapability.__members__ if name.startswith("SM")]
    chosen = tuple(sorted(names, key=lambda name: (len(name), name)))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise UsageError(
            f"{api.title} {api.version} builds for {', '.join(known)}, not for {', '.join(unknown) or 'nothing'}. "
            "For other GPUs, use --to tensorrt on the machine that has one."
        )
    built = build(api, graph, origin_of(api, bundle, precision, chosen, strip_weights=strip_weights))
    path = out if out is not None else Path(f"{bundle.name}.{precision}.{'-'.join(chosen)}.engine")
    write_engine(path, built.file)
    return path, built.file.manifest
