"""`mminfer bench`: how fast this machine is, and how close the engines come to its limit."""

from __future__ import annotations

import typer

from melanoma_infer.cli.bench.engines import engines
from melanoma_infer.cli.bench.kernels import kernels
from melanoma_infer.cli.bench.slide import slide

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")
app.command()(engines)
app.command()(slide)
app.command()(kernels)


@app.callback()
def _root() -> None:
    """Measure this machine."""
