"""Output to a program that stops reading, such as `head`: the rest is dropped, and the command goes on.

A run over many slides still writes its results, and its exit code is its own. Output to a file that cannot be written,
as on a full disk, ends the command: its results would be missing there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.files import why_not_written


class Pipe:
    """A stream like the one it is made of, which drops what nobody reads any more.

    Args:
        stream: to write to.
        must_be_written: whether another failure than that is an error.
    """

    def __init__(self, stream: TextIO, *, must_be_written: bool = False) -> None:
        self._stream, self._must_be_written = stream, must_be_written
        self.used = False
        """Whether anything was written."""

    def write(self, text: str) -> int:
        """Write the text."""
        if text == "":  # Click tries a stream so, and hides what that raises
            return 0
        self.used = True
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop_the_rest(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop_the_rest(error)

    def _drop_the_rest(self, error: OSError) -> None:
        """Redirect to where everything can be written: what is still in the stream's buffer, too.

        Raises:
            OutputError: nobody stopped reading; the stream is stdout, and cannot be written.
        """
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._must_be_written and not isinstance(error, BrokenPipeError):
            raise OutputError(f"Standard output cannot be written: {why_not_written(error)}") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_pipes() -> Iterator[Pipe]:
    """Make stdout and stderr pipes that never end the command; yields stdout."""
    before = sys.stdout, sys.stderr
    out, err = Pipe(sys.stdout, must_be_written=True), Pipe(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
