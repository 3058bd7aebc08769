"""What `mminfer verify` found on this machine, kept in the cache: one row for each engine and precision of a bundle.

A row holds for one bundle, one version of the runtimes, one processor or GPU and its driver: when any of them changes,
it is no longer found, and the bundle's sealed parity counts again.
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
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
}
"""The distributions whose versions decide what an engine computes."""
ON_GPU = ("triton", "tensorrt", "tensorrt-rtx")
"""Engines that run on a GPU when no device is named."""
REFERENCE_ENGINES = ("torch",)
"""What these compute is the reference, unless it was measured to differ from the golden outputs."""
GPU_FACTS = "/proc/driver/nvidia"


class MeasuredParity(BaseModel):
    """How far one engine and precision was from the reference on this machine. None: not measured, or not there."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    engine: str
    precision: Precision
    version: str
    device: str
    reference: str
    on: str
    """What it was measured on."""
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
    """The least of the maps' correlations with the reference's."""
    decision_flips: int | None = None
    """Tiles and slides whose malignant score stands on the other side of the threshold."""
    slide_flips: int | None = None
    t_set_flips: int | None = None
    """None: this version gives no T sets."""
    passed: bool
    why: str = ""
    """What is beyond its tolerance, or how the process died."""
    over_tolerance: float | None = None
    """The largest ratio of a figure to its tolerance; above 1 it failed."""
    stage: str | None = None
    """The first stage whose numbers differ; None where it passed."""
    stage_detail: str = ""
    seconds: float | None = None

    @property
    def largest(self) -> float | None:
        """The largest difference that a score was seen to have."""
        return max((each for each in (self.max_dp, self.max_dscore) if each is not None), default=None)


def measured(bundle: Bundle, engine: str, precision: str, device: str | None = None) -> MeasuredParity | None:
    """What was found here of an engine at a precision; None where it was never measured as things are now."""
    content = read_cached(_path(bundle.digest, engine, precision, device))
    if content is None:
        return None
    try:
        return MeasuredParity.model_validate_json(content)
    except ValidationError:  # of another version, or damaged: as if it were not there
        return None


def keep(bundle: Bundle, row: MeasuredParity, device: str | None = None) -> None:
    """Keep a row for `measured`.

    Raises:
        OutputError: the cache cannot be written.
    """
    path = _path(bundle.digest, row.engine, row.precision, device)
    write_cached(path, row.model_dump_json(indent=1).encode())


def engine_band(bundle: Bundle, engine: str, precision: Precision, device: str | None = None) -> float:
    """How far a score of this engine may be from the reference's: twice the largest difference seen.

    Seen when the bundle was sealed or when it was verified on this machine, whichever is larger; the card's tolerance
    where neither was done; 0 for the reference.
    """
    sealed, here = bundle.parity_of(engine, precision), measured(bundle, engine, precision, device)
    seen = [] if sealed is None else [sealed.max_dp]
    if here is not None:
        # Where it died, or gave numbers that are not finite, nothing is known of its scores.
        seen.append(1.0 if here.largest is None else here.largest)
    if seen:
        return 2 * max(seen)
    if engine in REFERENCE_ENGINES:
        return 0.0
    return bundle.card.tolerance_of(precision).dp


def _path(digest: str, engine: str, precision: str, device: str | None) -> Path:
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
    return cache_folder(KIND) / f"{key[:32]}.json"


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
