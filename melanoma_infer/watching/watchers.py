"""The watchers that share an output folder: each shows that it is alive, and sees whether the others are.

A watcher writes a number that grows into its own file. Another one is dead if its process is known to have ended, or if
its number has not grown for STALE_S of the observer's own time: clocks of different computers are never compared.
"""

from __future__ import annotations

import json
import platform
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from melanoma_infer.runtime.files import part_of
from melanoma_infer.runtime.output_files import output_error, write_output
from melanoma_infer.runtime.privacy import safe_name
from melanoma_infer.watching.process import Process, is_known_dead, this_process

STALE_S = 300.0
"""A watcher writes its file every 10 s. A look at a slow share or the opening of a slide may hold it up for minutes."""


class Watchers:
    """The files of all watchers in a folder, and this watcher's own.

    Args:
        folder: made if it does not exist.
        is_dead: whether a process is known to have ended.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, is_dead: Callable[[Process], bool] = is_known_dead) -> None:
        self._folder, self._is_dead = folder, is_dead
        self._process = this_process()
        self._host = platform.node()
        self.me = f"{safe_name(self._host)}-{self._process.number}-{secrets.token_hex(4)}"
        """The name of this watcher."""
        self._beats = 0
        self._grown_s: dict[str, tuple[int | None, float]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error) from error

    def beat(self, facts: dict[str, Any]) -> None:
        """Show that this watcher is alive.

        Raises:
            OutputError: its file cannot be written.
        """
        self._beats += 1
        shown = {"host": self._host, "process": asdict(self._process), "beats": self._beats, **facts}
        write_output(self._file(self.me), (json.dumps(shown, indent=1) + "\n").encode())

    def shown(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each watcher's name and file; one that was damaged is empty."""
        for file in sorted(self._folder.glob("[!.]*.json")):
            yield file.stem, self._read(file.stem)

    def is_dead(self, watcher: str, passed_s: float) -> bool:
        """Whether a watcher will not write any more, as far as can be known at this moment of this watcher's time."""
        if watcher == self.me:
            return False
        facts = self._read(watcher)
        beats = facts.get("beats")
        before, since_s = self._grown_s.get(watcher, (None, passed_s))
        if watcher not in self._grown_s or beats != before:
            since_s = passed_s
        self._grown_s[watcher] = (beats, since_s)
        if (process := facts.get("process")) and self._is_dead(Process(**process)):
            return True
        return passed_s - since_s >= STALE_S

    def remove(self, watcher: str) -> None:
        """Remove the file of a watcher that has ended, and what it was writing when it was killed."""
        file = self._file(watcher)
        for gone in (file, part_of(file)):
            gone.unlink(missing_ok=True)
        self._grown_s.pop(watcher, None)

    def _read(self, watcher: str) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads(self._file(watcher).read_bytes())
        except (OSError, ValueError):
            return {}
        return read

    def _file(self, watcher: str) -> Path:
        return self._folder / f"{watcher}.json"
