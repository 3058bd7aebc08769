"""Files are written whole or not at all, and result.json shows that the others are complete."""

from __future__ import annotations

import errno

import pytest

from melanoma_infer.errors import OutputError
from melanoma_infer.reports.writing import REPORTS
from melanoma_infer.runtime import files
from melanoma_infer.runtime.output_files import write_output


def test_result_json_is_written_last():
    assert list(REPORTS)[-1] == "result.json"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_an_error_and_leaves_no_partial_file(tmp_path, monkeypatch, code):
    def full(descriptor: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="--out"):
        write_output(tmp_path / "a.csv", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path):
    write_output(tmp_path / "a.csv", b"old")
    write_output(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
