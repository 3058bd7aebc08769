"""`mminfer`: the commands, and the exit code for each error. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from melanoma_infer.cli.bench import app as bench_app
from melanoma_infer.cli.bundle import app as bundle_app
from melanoma_infer.cli.demo import demo
from melanoma_infer.cli.doctor import doctor
from melanoma_infer.cli.export import export
from melanoma_infer.cli.phantom import app as phantom_app
from melanoma_infer.cli.rescore import rescore
from melanoma_infer.cli.score import score
from melanoma_infer.cli.verify import verify
from melanoma_infer.errors import MminferError, Stopped

app = typer.Typer(
    name="mminfer",
    help="Score melanoma slides with a multi-modal network. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(score)
app.command()(rescore)
app.command()(doctor)
app.command()(demo)
app.command()(verify)
app.command()(export)
app.add_typer(bench_app, name="bench")
app.add_typer(bundle_app, name="bundle")
app.add_typer(phantom_app, name="phantom")


def _print_version(wanted: bool) -> None:
    if wanted:
        from melanoma_infer.runtime.provenance import VERSION

        print(f"mminfer {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(128 + number)


def main() -> None:
    """Run the command line, and exit with the code of the error, if there is one."""
    # Typer ends without a word on the KeyboardInterrupt that Python raises for SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except MminferError as error:
        print(f"mminfer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stop:
        print(f"mminfer: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
