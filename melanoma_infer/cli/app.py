"""`mminfer`: the commands, and the exit code for each error. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from melanoma_infer.cli.bench import app as bench_app
from melanoma_infer.cli.bundle import app as bundle_app
from melanoma_infer.cli.console import failed, say_error, say_json
from melanoma_infer.cli.dataset import dataset
from melanoma_infer.cli.demo import demo
from melanoma_infer.cli.doctor import doctor
from melanoma_infer.cli.export import export
from melanoma_infer.cli.phantom import app as phantom_app
from melanoma_infer.cli.pipes import Pipe, quiet_pipes
from melanoma_infer.cli.rescore import rescore
from melanoma_infer.cli.score import score
from melanoma_infer.cli.sections import SectionedCommand
from melanoma_infer.cli.train import train
from melanoma_infer.cli.verify import verify
from melanoma_infer.cli.watch import watch
from melanoma_infer.errors import MminferError, OutputError, Stopped

app = typer.Typer(
    name="mminfer",
    help="Score melanoma slides with a multi-modal network. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(cls=SectionedCommand)(score)
app.command()(rescore)
app.command(cls=SectionedCommand)(watch)
app.command(cls=SectionedCommand)(dataset)
app.command()(doctor)
app.command()(demo)
app.command()(verify)
app.command()(export)
app.command()(train)
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
        with quiet_pipes() as out:
            code = _run(out)
    except OutputError as error:  # what was left in a buffer
        say_error(f"mminfer: {error}")
        code = error.exit_code
    sys.exit(code)


def _run(out: Pipe) -> int:
    """Run the command; the exit code, after what went wrong has been printed."""
    try:
        return int(app(standalone_mode=False) or 0)
    except MminferError as error:
        code, message = error.exit_code, str(error)
        say_error(f"mminfer: {message}")
    except Stopped as stop:
        say_error(f"mminfer: {stop}")
        out.used = False  # the lines that were printed say nothing of it
        code, message = stop.exit_code, str(stop)
    except Exception as error:
        # Click's errors by what they have: some versions of Typer import Click, others have a copy of it.
        if not hasattr(error, "format_message"):
            _tell_program(out, 1, f"This is a bug in mminfer, please report it ({type(error).__name__}).")
            raise
        error.show()  # type: ignore[attr-defined]
        code, message = error.exit_code, error.format_message()  # type: ignore[attr-defined]
    _tell_program(out, code, message)
    return code


def _tell_program(out: Pipe, code: int, message: str) -> None:
    """With --json, print a failure as JSON, too, unless the command printed its result: that has the failure in it."""
    if "--json" in sys.argv and not out.used:
        say_json(failed(code, message))
