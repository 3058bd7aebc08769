"""Output to a program that stops reading, such as `head`: the rest is dropped, and the command goes on.

A run over many slides still writes its results, and its exit code is its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Pipe:
    """A stream like the one it is made of, which drops what nobody reads any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.used = False
        """Whether anything was written."""

    def write(self, text: str) -> int:
        """Write the text."""
        self.used |= bool(text)
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop_the_rest()
            return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop_the_rest()

    def _drop_the_rest(self) -> None:
        """Redirect to where everything can be written: what is still in the stream's buffer, too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_pipes() -> Iterator[Pipe]:
    """Make stdout and stderr pipes that never end the command; yields stdout."""
    before = sys.stdout, sys.stderr
    out, err = Pipe(sys.stdout), Pipe(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
