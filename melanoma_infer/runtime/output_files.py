"""Files of the output folder, written atomically; what cannot be written is an OutputError."""

from __future__ import annotations

from pathlib import Path

from melanoma_infer.errors import OutputError
from melanoma_infer.runtime import files


def write_output(path: Path, content: bytes) -> None:
    """Write a file of the output folder atomically.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        files.write_atomically(path, content)
    except OSError as error:
        raise output_error(error) from error


def output_error(error: OSError) -> OutputError:
    """That the output folder cannot be written, and why."""
    return OutputError(f"The output folder (--out) cannot be written: {files.why_not_written(error)}")
