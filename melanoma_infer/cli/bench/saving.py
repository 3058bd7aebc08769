"""What every `mminfer bench` does with its result: tell it, keep it, compare it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from melanoma_infer.cli.console import note, say
from melanoma_infer.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from melanoma_infer.bench.compare import Change
    from melanoma_infer.bundle.bundle import Bundle

BUNDLE: Any = typer.Option(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")
SAVE: Any = typer.Option(metavar="FILE", help="Write everything as JSON, and a chart beside it as PNG.")
COMPARE: Any = typer.Option(metavar="OLD.json", help="Say what is faster, slower or noise since a saved run.")
JSON: Any = typer.Option("--json", help="Print the result as JSON and nothing else.")


def frame(kind: str, bundle: Bundle, threads: int) -> dict[str, Any]:
    """What every result of a bench says beside its figures."""
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
    """The changes since an earlier run, noted in the result, too."""
    from melanoma_infer.bench.compare import changes

    found = [] if before is None else list(changes(result, before))
    result["changes"] = [asdict(change) for change in found]
    return found


def say_changes(since: list[Change], compare: Path | None) -> None:
    """One line for each."""
    for change in since:
        say(f"since {compare.name if compare else ''}: {change.name} {change.ratio:.2f} × ({change.verdict})")


def say_json(result: dict[str, Any]) -> None:
    """The result for programs."""
    import json

    say(json.dumps(result))


def teller(*, json: bool) -> Callable[[str], None]:
    """What tells the user what is being done: nobody, where a program listens."""
    return (lambda _text: None) if json else note


def save_run(path: Path, result: dict[str, Any], picture: bytes) -> None:
    """The result as JSON, and its chart beside it."""
    import json

    try:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".png").write_bytes(picture)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror}). Choose another --save.") from error
