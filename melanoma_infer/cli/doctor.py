"""`mminfer doctor`: show what is installed, which engines work here, and what to install for more."""

from __future__ import annotations

from typing import Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import say, table


def doctor(
    bundle: Annotated[str, typer.Option(help="The bundle whose golden tiles are used for the check.")] = "demo",
    json: opt.JsonOption = False,
) -> None:
    """Show what is installed, and run the golden tiles through every engine that loads here."""
    import json as json_module

    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.engines.check import check_engines
    from melanoma_infer.runtime.provenance import machine, versions

    checks = check_engines(open_bundle(bundle))
    if json:
        say(json_module.dumps({"versions": versions(), "machine": machine(), "engines": [vars(row) for row in checks]}))
        return
    say(table([(name, str(value)) for name, value in (*machine().items(), *versions().items())]))
    say("")
    say(table([("engine", "state", "max |Δp|", ""), *(row.cells for row in checks)]))
    say("")
    working = [row for row in checks if row.state == "agrees"]
    if working:
        say(f"`mminfer score` works here with {', '.join(f'{row.engine} {row.precision}' for row in working)}.")
    else:
        say("No engine reproduces the golden outputs here. Reinstall: pip install --force-reinstall mminfer")
        raise typer.Exit(21)
