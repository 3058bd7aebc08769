"""An engine on disk and the manifest beside it: `NAME.engine` and `NAME.engine.json`.

An engine is machine code for one runtime version and certain GPUs. Its bytes are hashed before a runtime reads them,
and its manifest records what it was built from, so an engine of another model or machine is refused with that reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from melanoma_infer.engines.tensorrt_api import TITLES, ApiName
from melanoma_infer.errors import BundleError, EngineUnavailableError, OutputError
from melanoma_infer.runtime.files import write_atomically
from melanoma_infer.tolerances import Precision

MANIFEST = ".json"
AGAIN = "Export it again: mminfer export"


class Part(BaseModel):
    """Base of a manifest's parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Part):
    """An input or output of an engine."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """-1 for the batch axis, unless the batch size is fixed."""


class Origin(Part):
    """What an engine is built from, with which runtime, and for which GPUs. Equal origins give equivalent engines."""

    runtime: ApiName
    runtime_version: str
    onnx_sha256: str
    precision: Precision
    targets: tuple[str, ...]
    """Compute capabilities, ascending: sm86, …"""
    gpu: str | None = None
    """The GPU on which it was built; None if the build needed no GPU."""
    flags: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """SHA-256 of the origin, hexadecimal: the engine's name in the cache."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class EngineManifest(Part):
    """The content of the JSON file beside an engine."""

    format: Literal[1] = 1
    origin: Origin
    engine_sha256: str
    engine_bytes: int
    buckets: tuple[int, ...]
    """Batch sizes that it was built for, ascending."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> bytes:
        """The manifest as the bytes of its file."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True)
class EngineFile:
    """An engine whose bytes match the hash in its manifest."""

    content: bytes
    manifest: EngineManifest


def manifest_path(engine: Path) -> Path:
    """The path of an engine's manifest."""
    return engine.with_name(engine.name + MANIFEST)


def read_engine(path: Path) -> EngineFile:
    """The engine at a path, checked against its manifest.

    Raises:
        BundleError: it or its manifest cannot be read, or the hash in the manifest does not match.
    """
    try:
        content, manifest = path.read_bytes(), manifest_path(path).read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path.name} or its manifest {path.name}{MANIFEST} cannot be read ({error.strerror}). Keep both together."
        ) from error
    return checked_engine(content, manifest, path.name)


def checked_engine(content: bytes, manifest: bytes, name: str) -> EngineFile:
    """The engine with these bytes, checked against this manifest.

    Raises:
        BundleError: the manifest is invalid, or its hash does not match.
    """
    try:
        parsed = EngineManifest.model_validate_json(manifest)
    except ValidationError as error:
        raise BundleError(f"{name}{MANIFEST} is not a valid engine manifest of this version. {AGAIN}.") from error
    if hashlib.sha256(content).hexdigest() != parsed.engine_sha256:
        raise BundleError(
            f"{name} was not opened, because its SHA-256 differs from the one in its manifest. Copy both files again, "
            "or export the engine again."
        )
    return EngineFile(content, parsed)


def require_origin(manifest: EngineManifest, wanted: Origin, name: str) -> None:
    """Raise unless the engine was built from this graph, and for this runtime and GPU.

    Args:
        manifest: the engine's manifest.
        wanted: the origin for this bundle and machine; its only target is this machine's GPU. Flags may differ.
        name: the engine's file name.

    Raises:
        BundleError: it was built from another graph.
        EngineUnavailableError: it was built for another runtime, version or GPU.
    """
    origin = manifest.origin
    if (origin.onnx_sha256, origin.precision) != (wanted.onnx_sha256, wanted.precision):
        raise BundleError(
            f"{name} was not built from this bundle's {wanted.precision} graph. {AGAIN} BUNDLE --to {wanted.runtime} "
            f"--precision {wanted.precision}."
        )
    built, here = (f"{TITLES[each.runtime]} {each.runtime_version}" for each in (origin, wanted))
    if built != here:
        raise EngineUnavailableError(f"{name} was built by {built}, but {here} is installed here. {AGAIN}.")
    if not set(wanted.targets) <= set(origin.targets) or origin.gpu not in (None, wanted.gpu):
        raise EngineUnavailableError(
            f"{name} was built for {origin.gpu or ', '.join(origin.targets)}, but this GPU is {wanted.gpu} "
            f"({', '.join(wanted.targets)}). {AGAIN}, for this GPU."
        )


def write_engine(path: Path, engine: EngineFile) -> None:
    """Write an engine and its manifest, each completely or not at all; an existing engine is replaced.

    Raises:
        OutputError: they cannot be written, or the path holds a file that is not an engine.
    """
    if path.exists() and not manifest_path(path).is_file():
        raise OutputError(f"{path.name} exists and is not an engine (it has no manifest). Choose another --out.")
    place_file(path, engine.content)
    place_file(manifest_path(path), engine.manifest.to_json())


def place_file(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is created if needed.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, shared=True)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror}). Choose another --out.") from error
