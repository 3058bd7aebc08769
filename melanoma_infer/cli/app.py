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
from melanoma_infer.errors import MminferError

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


class Terminated(BaseException):
    """The process was asked to stop."""


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


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def main() -> None:
    """Run the command line, and exit with the code of the error, if there is one."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except MminferError as error:
        print(f"mminfer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Terminated) as stop:
        print("mminfer: stopped. Run the same command again: finished slides are skipped.", file=sys.stderr)
        sys.exit(143 if isinstance(stop, Terminated) else 130)
