"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from melanoma_infer.runtime import files
from melanoma_infer.runtime.files import why_not_written, write_atomically, written_aside


def test_the_new_content_replaces_the_old_and_nothing_else_is_left(tmp_path):
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "a", content)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_a_failure_while_writing_leaves_the_old_file_alone(tmp_path):
    write_atomically(tmp_path / "a", b"old")

    def interrupted():
        with written_aside(tmp_path / "a") as aside:
            aside.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_full_disk_is_noticed_before_the_old_file_is_replaced(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_writers_of_one_shared_file_do_not_meet(tmp_path):
    contents = [bytes([i]) * 100_000 for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomically(tmp_path / "a", content, shared=True), contents))
    assert (tmp_path / "a").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_the_next_run_overwrites_what_a_killed_one_left(tmp_path):
    (tmp_path / ".a.part").write_bytes(b"half of it, and more than the whole of the next")
    write_atomically(tmp_path / "a", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no permission bits")
def test_a_file_is_as_readable_as_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("code", "cause", "remedy"),
    [
        (errno.ENOSPC, "no space left", "Free some space"),
        (errno.EDQUOT, "quota", "Free some space"),
        (errno.EROFS, "read-only", "another folder"),
        (errno.EACCES, "not allowed", "Get the right"),
        (errno.EPERM, "not allowed", "Get the right"),
        (errno.ENOENT, "no such folder", "another folder"),
        (errno.ENOTDIR, "a file is where a folder", "another folder"),
        (errno.EEXIST, "a file is where a folder", "another folder"),
        (errno.ENOLCK, "no locks", "local disk"),
        (errno.ENOTSUP, "no locks", "local disk"),
        (errno.ENAMETOOLONG, "too long", "shorter"),
        (errno.EMFILE, "too many files", "ulimit"),
        (errno.ECONNRESET, os.strerror(errno.ECONNRESET), "another folder"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_the_cause_of_a_failed_write_is_named_with_what_to_do_and_without_the_path(code, cause, remedy):
    why = why_not_written(OSError(code, os.strerror(code), "/data/Erika Mustermann"))
    assert cause in why
    assert remedy in why
    assert ("space" in why) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert "Erika" not in why


@pytest.mark.skipif(not os.path.isdir("/proc/1"), reason="there is no /proc")
@pytest.mark.parametrize("folder", ["/proc/results", "/dev/null/results"])
def test_a_folder_that_cannot_be_made_is_not_called_full(folder):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - each folder has its own
        os.makedirs(folder)
    assert "Choose another folder." in why_not_written(caught.value)
    assert "space" not in why_not_written(caught.value)
