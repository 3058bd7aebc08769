"""The output folder: one folder a result, named so that no other slide, model, setting or patient can replace it.

`<id>-<slide8>-<run8>`: `slide8` begins the digest of the slide, `run8` the run key, a keyed hash of everything else
that the result depends on. The secret of the hash is `.key` in the output folder, so that nobody without this file can
search the names for a patient's values. Several runs may write to one output folder: a lock is held on each result
folder from before the slide is scored until its files are written, and a short one on the output folder.
"""

from __future__ import annotations

import hmac
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from melanoma_infer.errors import OutputError
from melanoma_infer.records import Identity
from melanoma_infer.reports import result_json
from melanoma_infer.result import SlideResult
from melanoma_infer.runtime.output_files import output_error
from melanoma_infer.runtime.privacy import DIGEST_CHARS, folder_name
from melanoma_infer.runtime.utc import in_file_name, utc_now
from melanoma_infer.slides.base import Closing

KEY, LOCK, LOCKS, REPLACED = ".key", ".lock", ".locks", "replaced"
KEY_BYTES = 32
LOCK_SECONDS = 60.0
"""The short lock is held for a few file operations. Whoever waits this long for it waits for a computer that hangs."""
POLL_SECONDS = 0.2


class OutputFolder:
    """An output folder, to which other runs may write at the same time.

    Raises:
        OutputError: it cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide_of: dict[Path, Path] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            with self.alone():
                self._secret = self._read_or_make_secret()
        except OSError as error:
            raise output_error(error) from error

    @classmethod
    def of(cls, result_folder: Path) -> OutputFolder:
        """The output folder that holds a result, also one that was replaced.

        Raises:
            OutputError: it cannot be written.
        """
        parent = result_folder.parent
        return cls(parent.parent if parent.name == REPLACED else parent)

    def _read_or_make_secret(self) -> bytes:
        file = self.path / KEY
        with suppress(FileNotFoundError):
            return file.read_bytes()
        secret = secrets.token_bytes(KEY_BYTES)
        aside = self.path / f"{KEY}.part"
        aside.touch(mode=0o600)
        aside.write_bytes(secret)
        aside.replace(file)
        return secret

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the short lock on the output folder.

        Raises:
            OutputError: it is not free for a minute.
        """
        try:
            with FileLock(self.path / LOCK, timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise OutputError(
                f"Another program has held the lock {LOCK} of the output folder for a minute. Choose another --out."
            ) from error

    def run_key(self, parts: Mapping[str, object]) -> str:
        """The keyed hash of what a result depends on, 64 hex digits: HMAC-SHA256 under the folder's secret."""
        text = json.dumps(parts, sort_keys=True, default=str)
        return hmac.digest(self._secret, text.encode(), "sha256").hex()

    def claim(self, slide_id: str, digest: str, run_key: str, slide: Path, stopping: Event) -> ResultFolder:
        """The locked folder of one result; waits while another run is making the same result.

        The folder is the first of `<name>`, `<name>-2`, … that holds no other result and no other slide of this run:
        a slide may be there twice under one name.

        Args:
            slide_id: its name in every output.
            digest: of the slide's bytes.
            run_key: from `run_key`.
            slide: the slide's path.
            stopping: set, it ends the waiting.

        Raises:
            OutputError: the output folder cannot be written, or the run was stopped while it waited.
        """
        name = f"{folder_name(slide_id, digest)}-{run_key[:DIGEST_CHARS]}"
        folder, number = self.path / name, 1
        while True:
            if self._slide_of.setdefault(folder, slide) == slide:
                claimed = ResultFolder(self, folder, self._lock(folder, stopping))
                old = claimed.result()
                if old is None or old.run.key == run_key:
                    return claimed
                claimed.close()
            number += 1
            folder = self.path / f"{name}-{number}"

    def _lock(self, folder: Path, stopping: Event) -> FileLock:
        """The lock on a result folder. Its file is opened and removed under the short lock, so that none is left."""
        try:
            (self.path / LOCKS).mkdir(exist_ok=True)
            while True:
                with self.alone(), suppress(Timeout):
                    lock = FileLock(self.path / LOCKS / folder.name, thread_local=False)
                    lock.acquire(timeout=0)
                    return lock
                if stopping.wait(POLL_SECONDS):
                    raise OutputError("Stopped while another run was making the same result.")
        except OSError as error:
            raise output_error(error) from error


class ResultFolder(Closing):
    """The folder of one result, locked until it is closed."""

    def __init__(self, out: OutputFolder, path: Path, lock: FileLock) -> None:
        self.path = path
        self._out, self._lock = out, lock

    def close(self) -> None:
        """Release the folder for other runs."""
        if not self._lock.is_locked:
            return
        try:
            with self._out.alone():
                self._lock.release()
                Path(self._lock.lock_file).unlink(missing_ok=True)
        except (OSError, OutputError):  # the lock's file stays; the lock does not
            self._lock.release()

    def result(self) -> SlideResult | None:
        """The result in the folder, without its tiles; None if there is none that this version wrote."""
        return result_json.read(self.path / result_json.NAME)

    def finished(self, identity: Identity) -> SlideResult | None:
        """The result in the folder if all its files are there and the slide has not been written since; else None."""
        result = self.result()
        if result is None or result.run.slide_mtime_ns != identity.mtime_ns:
            return None
        return result if self.is_complete() else None

    def is_complete(self) -> bool:
        """Whether all files of a result are there, and none of them is empty or has lost its end, as after a copy that
        failed.
        """
        from melanoma_infer.reports.writing import REPORTS  # what draws reports takes long to import

        return all(_is_whole(self.path / name) for name in REPORTS)

    def write(self, result: SlideResult) -> None:
        """Write the files of a result into a folder beside, which is then renamed: it is there whole or not at all.

        What is there already is moved to `replaced/`.

        Raises:
            OutputError: a file cannot be written; what is there stays.
        """
        from melanoma_infer.reports.writing import write_reports

        aside = self.path.with_name(f".{self.path.name}.part")
        shutil.rmtree(aside, ignore_errors=True)  # a run that was killed may have left it
        try:
            write_reports(aside, result)
            if self.path.exists():
                self._set_aside()
            aside.rename(self.path)
        except OSError as error:
            raise output_error(error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _set_aside(self) -> None:
        old = self.result()
        moment = in_file_name((old.run.started if old else None) or utc_now())
        replaced = self._out.path / REPLACED
        replaced.mkdir(exist_ok=True)
        place, number = replaced / f"{self.path.name}-{moment}", 1
        while place.exists():
            number += 1
            place = replaced / f"{self.path.name}-{moment}-{number}"
        self.path.rename(place)


def _is_whole(file: Path) -> bool:
    """Whether a file has content; an archive also its table of contents, which is at the end."""
    return file.is_file() and file.stat().st_size > 0 and (file.suffix != ".npz" or zipfile.is_zipfile(file))
