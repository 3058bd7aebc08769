"""`mminfer doctor`: show what is installed, which engines work here, and what to install for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import say, say_json
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError

if TYPE_CHECKING:
    from melanoma_infer.engines.check import EngineCheck


def doctor(
    bundle: Annotated[str, typer.Option(help="The bundle whose golden tiles are used for the check.")] = "demo",
    json: opt.JsonOption = False,
) -> None:
    """Show what is installed, and run the golden tiles through every engine that loads here."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.engines.check import check_engines
    from melanoma_infer.runtime.provenance import machine, versions

    checks = check_engines(open_bundle(bundle))
    working = [row for row in checks if row.state == "agrees"]
    failure = None
    if not working:
        failure = EngineUnavailableError(
            "No engine reproduces the golden outputs here. Reinstall: pip install --force-reinstall mminfer"
        )
    if json:
        say_json({"versions": versions(), "machine": machine(), "engines": [vars(row) for row in checks]}, failure)
    else:
        say(table([(name, str(value)) for name, value in (*machine().items(), *versions().items())]))
        say(f"\n{checks_table(checks)}\n")
    if failure is not None:
        raise failure
    if not json:
        say(f"`mminfer score` works here with {', '.join(f'{row.engine} {row.precision}' for row in working)}.")


def checks_table(checks: Sequence[EngineCheck]) -> str:
    """The engines, how each compares with the golden outputs, and why some do not load."""
    return table([row.cells for row in checks], ("engine", "state", "max |Δp|", ""))
