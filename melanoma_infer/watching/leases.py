"""Leases on slides: one watcher holds a slide, and it is taken over from a watcher that has died.

A lease is the folder `leases/<job>/` with one file in it, named by its holder. Every step is one rename, which the file
system does for one process and refuses to all others: to take a lease, a folder is made aside and renamed to its place,
which fails if there is one; to take it over, the file is renamed from the old holder's name to the new one's.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
"""How file systems refuse to rename a folder to the place of another one."""
LEAVING = "leaving."
"""Before the holder's name: the holder is removing its lease."""


class Leases:
    """The leases in a folder.

    Args:
        folder: which all watchers share; made if it does not exist.
        me: the name of this watcher, unlike any other's.

    Every method raises OSError if the folder cannot be written.
    """

    def __init__(self, folder: Path, me: str) -> None:
        self._folder, self._me, self._numbers = folder, me, count()
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, job: str) -> bool:
        """Whether this watcher has the lease now; False if another one has it."""
        aside = self._aside()
        aside.mkdir()
        (aside / self._me).touch()
        try:
            aside.rename(self._folder / job)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            return False
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return True

    def take_over(self, job: str, holder: str) -> bool:
        """Whether this watcher has the lease of a dead one now; False if another watcher was quicker."""
        lease = self._folder / job
        for name in (holder, LEAVING + holder):
            with suppress(FileNotFoundError):
                (lease / name).rename(lease / self._me)
                return True
        return False

    def holder(self, job: str) -> str | None:
        """Who has the lease; None if nobody has it."""
        try:
            names = os.listdir(self._folder / job)
        except FileNotFoundError:
            return None
        return names[0].removeprefix(LEAVING) if names else None

    def holds(self, job: str) -> bool:
        """Whether this watcher has the lease still."""
        return (self._folder / job / self._me).exists()

    def release(self, job: str) -> None:
        """Remove this watcher's lease; one that was taken over stays."""
        lease, aside = self._folder / job, self._aside()
        with suppress(FileNotFoundError):
            (lease / self._me).rename(lease / (LEAVING + self._me))
            lease.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def held(self) -> Iterator[tuple[str, str]]:
        """Each job with its holder."""
        for job in sorted(os.listdir(self._folder)):
            if not job.startswith(".") and (holder := self.holder(job)) is not None:
                yield job, holder

    def clean_up_after(self, holder: str) -> None:
        """Remove what a watcher that died between two steps left beside the leases."""
        for aside in self._folder.glob(f".{holder}-*"):
            shutil.rmtree(aside, ignore_errors=True)

    def _aside(self) -> Path:
        return self._folder / f".{self._me}-{next(self._numbers)}"
