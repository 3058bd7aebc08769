"""The results of `mminfer verify` on this machine, in the cache: one row for each engine and precision of a bundle.

A row is valid for one bundle, one version of the runtimes, and one processor or GPU with its driver. When any of them
changes, the row is no longer found and the bundle's sealed parity applies again.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.runtime.cache import cache_folder, read_cached, write_cached
from melanoma_infer.runtime.provenance import VERSION, digest_of, machine
from melanoma_infer.tolerances import Precision

KIND = "parity"
RUNTIMES: dict[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
    "triton": ("torch", "triton"),
    "tensorrt": ("tensorrt", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx",),
}
"""The packages whose versions affect what an engine computes."""
ON_GPU = ("triton", "tensorrt", "tensorrt-rtx")
"""Engines that run on a GPU when no device is named."""
REFERENCE_ENGINES = ("torch",)
"""Their outputs are the reference, unless they were measured to differ from the golden outputs."""
GPU_FACTS = "/proc/driver/nvidia"


class MeasuredParity(BaseModel):
    """How far one engine and precision is from the reference on this machine. None: not measured, or no such output."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    engine: str
    precision: Precision
    version: str
    device: str
    reference: str
    on: str
    """The tiles, in words: "4 golden tiles, 8 drawn slides"."""
    tiles: int
    slides: int
    max_dp: float | None = None
    p999_dp: float | None = None
    mean_dp: float | None = None
    max_dscore: float | None = None
    """Largest difference of a tile's or slide's malignant score, for any of the golden patients."""
    max_dmm: float | None = None
    p999_dmm: float | None = None
    features_rms: float | None = None
    """Root mean square of the differences over that of the reference's features."""
    p999_dlogit: float | None = None
    p999_dattention: float | None = None
    cam_correlation: float | None = None
    """The lowest correlation of a map with the reference's."""
    decision_flips: int | None = None
    """Tiles and slides whose malignant score is on the other side of the threshold."""
    slide_flips: int | None = None
    passed: bool
    why: str = ""
    """The figures that exceed their tolerance, or how the process died."""
    over_tolerance: float | None = None
    """The largest ratio of a figure to its tolerance; above 1 the row failed."""
    stage: str | None = None
    """The first stage whose numbers differ; None when the row passed or no single stage is at fault."""
    stage_detail: str = ""
    seconds: float | None = None

    @property
    def largest(self) -> float | None:
        """The largest measured difference of a probability or score."""
        return max((each for each in (self.max_dp, self.max_dscore) if each is not None), default=None)


def measured(bundle: Bundle, engine: str, precision: str, device: str | None = None) -> MeasuredParity | None:
    """The row of an engine at a precision; None when it was not measured with this bundle, machine and versions."""
    content = read_cached(path_on_this_machine(KIND, bundle.digest, engine, precision, device))
    if content is None:
        return None
    try:
        return MeasuredParity.model_validate_json(content)
    except ValidationError:  # written by another version, or damaged: ignored
        return None


def keep(bundle: Bundle, row: MeasuredParity, device: str | None = None) -> None:
    """Store a row, for `measured` to find.

    Raises:
        OutputError: the cache cannot be written.
    """
    path = path_on_this_machine(KIND, bundle.digest, row.engine, row.precision, device)
    write_cached(path, row.model_dump_json(indent=1).encode())


def engine_band(bundle: Bundle, engine: str, precision: Precision, device: str | None = None) -> float:
    """The largest difference to expect between a score of this engine and the reference's.

    Twice the largest difference measured when the bundle was sealed or verified on this machine; the card's tolerance
    when it was never measured; 0 for the reference.
    """
    sealed, here = bundle.parity_of(engine, precision), measured(bundle, engine, precision, device)
    seen = [] if sealed is None else [sealed.max_dp]
    if here is not None:
        # An engine that died or gave NaN or infinity may give any score.
        seen.append(1.0 if here.largest is None else here.largest)
    if seen:
        return 2 * max(seen)
    if engine in REFERENCE_ENGINES:
        return 0.0
    return bundle.card.tolerance_of(precision).dp


def path_on_this_machine(kind: str, digest: str, engine: str, precision: str, device: str | None) -> Path:
    """The cache's file for what was measured of an engine and precision: with this bundle, machine and versions."""
    # Where it runs, from what was asked for or from what an engine says that it runs on.
    on_cpu = engine not in ON_GPU if device is None else device.startswith("cpu")
    key = digest_of(
        {
            "bundle": digest,
            "engine": engine,
            "precision": precision,
            "place": "cpu" if on_cpu else "gpu",
            "versions": {name: _version(name) for name in ("mminfer", *RUNTIMES.get(engine, ()))},
            "machine": _machine(),
        }
    )
    return cache_folder(kind) / f"{key[:32]}.json"


@cache
def _version(distribution: str) -> str:
    if distribution == "mminfer":
        return VERSION
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


@cache
def _machine() -> str:
    """A digest of the processor, and of the GPUs and their driver where there are any."""
    facts = {name: value for name, value in machine().items() if name != "cores"}
    gpus = sorted(Path(GPU_FACTS).glob("gpus/*/information"))
    driver = [line for path in (Path(GPU_FACTS, "version"), *gpus) for line in _lines(path, ("NVRM", "Model"))]
    processor = "\n".join(_lines(Path("/proc/cpuinfo"), ("model name", "flags"))[:2])
    return digest_of({**facts, "processor": processor or platform.processor(), "gpu": driver})


def _lines(path: Path, beginnings: tuple[str, ...]) -> list[str]:
    try:
        return [line for line in path.read_text(errors="replace").splitlines() if line.startswith(beginnings)]
    except OSError:
        return []
