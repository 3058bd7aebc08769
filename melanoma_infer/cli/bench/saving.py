"""What every `mminfer bench` command does with its result: print it, save it, compare it with an earlier one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melanoma_infer.cli.console import note, say
from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.files import why_not_written

if TYPE_CHECKING:
    from collections.abc import Callable

    from melanoma_infer.bench.compare import Change
    from melanoma_infer.bundle.bundle import Bundle

SaveOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save the result as JSON, and a chart beside it as PNG.")
]
CompareOption = Annotated[
    Path | None, typer.Option(metavar="OLD.json", help="Show what is faster, slower or noise since a saved run.")
]


def frame(kind: str, bundle: Bundle, threads: int) -> dict[str, Any]:
    """What every benchmark result contains apart from its figures."""
    from melanoma_infer.runtime.provenance import machine, versions

    return {
        "kind": kind,
        "bundle": bundle.name,
        "digest": bundle.digest,
        "tile_px": bundle.card.tile_px,
        "threads": threads,
        "machine": machine(),
        "versions": versions(),
    }


def since(result: dict[str, Any], before: dict[str, Any] | None) -> list[Change]:
    """The changes since an earlier run; they are also stored in the result."""
    from melanoma_infer.bench.compare import changes

    found = [] if before is None else list(changes(result, before))
    result["changes"] = [asdict(change) for change in found]
    return found


def say_changes(since: list[Change], compare: Path | None) -> None:
    """Print one line per change."""
    for change in since:
        say(f"since {compare.name if compare else ''}: {change.name} {change.ratio:.2f} × ({change.verdict})")


def teller(*, json: bool) -> Callable[[str], None]:
    """The function that reports progress: `note`, or one that does nothing when JSON was asked for."""
    return (lambda _text: None) if json else note


def save_run(path: Path, result: dict[str, Any], picture: bytes) -> None:
    """Write the result as JSON, and its chart beside it as PNG.

    Raises:
        OutputError: a file cannot be written.
    """
    import json

    try:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".png").write_bytes(picture)
    except OSError as error:
        raise OutputError(f"--save: {path.name} cannot be written: {why_not_written(error)}") from error
