"""summary.csv keeps a row for every result of every run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from kept_for_tests import run_records, summary_rows
from results_for_tests import hand_made_result

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import OutputError
from melanoma_infer.result import SlideOutcome
from melanoma_infer.store import summary
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.store.run_record import RunRecord
from melanoma_infer.store.summary import COLUMNS, Summary

NUMERICS = Numerics("openvino", "2026.1", "fp32", "cpu")


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle("demo")


def outcome(folder: str = "a-1-2", **changes: object) -> SlideOutcome:
    done = SlideOutcome(
        "a", None, 0, "", "", 1.5, "2026-11-29T06:23:11Z", "2026-11-29T06:23:15Z", "5" * 64, Path("out") / folder,
        hand_made_result(),
    )  # fmt: skip
    return replace(done, **changes)  # type: ignore[arg-type]


def test_rows_are_added_by_every_run_and_never_taken_away(tmp_path, demo):
    for folder in ("a-1-2", "b-1-2", "c-1-2"):
        Summary(OutputFolder(tmp_path)).add(outcome(folder), demo, NUMERICS)
    rows = summary_rows(tmp_path)
    assert [row["folder"] for row in rows] == ["a-1-2", "b-1-2", "c-1-2"]
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["digest"] == "5" * 64
    assert (rows[0]["started"], rows[0]["finished"]) == ("2026-11-29T06:23:11Z", "2026-11-29T06:23:15Z")
    assert rows[0]["settings"] == "tile-um=400"


def test_a_slide_that_was_finished_before_has_one_row(tmp_path, demo):
    rows = Summary(OutputFolder(tmp_path))
    rows.add(outcome("a-1-2"), demo, NUMERICS)
    for folder in ("a-1-2", "b-1-2"):  # a run was killed before it wrote the row of b
        Summary(OutputFolder(tmp_path)).add(outcome(folder, skipped=True), demo, NUMERICS)
    assert [row["folder"] for row in summary_rows(tmp_path)] == ["a-1-2", "b-1-2"]


def test_a_result_that_took_the_place_of_one_with_a_row_gets_its_own(tmp_path, demo):
    Summary(OutputFolder(tmp_path)).add(outcome("a-1-2"), demo, NUMERICS)
    later = outcome("a-1-2", skipped=True, started="2026-11-29T07:00:00Z")  # made by a run that was killed then
    for _ in range(2):
        Summary(OutputFolder(tmp_path)).add(later, demo, NUMERICS)
    assert [row["started"] for row in summary_rows(tmp_path)] == ["2026-11-29T06:23:11Z", "2026-11-29T07:00:00Z"]


def test_a_failure_has_a_row(tmp_path, demo):
    failed = outcome(exit_code=10, message="damaged", stage="open", result=None, settings="tile-um=64")
    Summary(OutputFolder(tmp_path)).add(replace(failed, folder=None), demo, NUMERICS)
    (row,) = summary_rows(tmp_path)
    assert (row["exit_code"], row["folder"], row["verdict"]) == ("10", "", "")
    assert (row["stage"], row["message"], row["settings"]) == ("open", "damaged", "tile-um=64")


def test_a_file_with_other_columns_is_moved_not_overwritten(tmp_path, demo):
    told: list[str] = []
    for number, text in enumerate(("id,verdict\na,suspected\n", "mine\n"), start=1):
        (tmp_path / "summary.csv").write_text(text)
        Summary(OutputFolder(tmp_path), told.append).add(outcome(), demo, NUMERICS)
        assert told.pop() == f"summary-{number}.csv"
        assert (tmp_path / f"summary-{number}.csv").read_text() == text
        assert len(summary_rows(tmp_path)) == 1


def test_a_line_without_an_end_is_ended_first(tmp_path, demo):
    Summary(OutputFolder(tmp_path)).add(outcome("a-1-2"), demo, NUMERICS)
    file = tmp_path / "summary.csv"
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    Summary(OutputFolder(tmp_path)).add(outcome("b-1-2"), demo, NUMERICS)
    assert [row["folder"] for row in summary_rows(tmp_path)] == ["a-1-2", "b-1-2"]


def test_a_full_disk_leaves_the_rows_that_were_there(tmp_path, demo, monkeypatch):
    rows = Summary(OutputFolder(tmp_path))
    rows.add(outcome("a-1-2"), demo, NUMERICS)
    before = (tmp_path / "summary.csv").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary.os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        rows.add(outcome("b-1-2"), demo, NUMERICS)
    assert (tmp_path / "summary.csv").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="Windows has no limit on the size of a file")
@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_disk_that_is_full_in_the_middle_of_a_row_leaves_none_of_it(tmp_path, demo, left):
    import resource

    rows = Summary(OutputFolder(tmp_path))
    rows.add(outcome("a-1-2"), demo, NUMERICS)
    before = (tmp_path / "summary.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + left, limits[1]))
    try:
        with pytest.raises(OutputError):
            rows.add(outcome("b-1-2", id="com,ma"), demo, NUMERICS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "summary.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+41 79", "'+41 79"),
        ("-5", "'-5"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("S-1", "S-1"),
        ("'S1", "'S1"),
    ],
)
def test_no_cell_is_a_formula_and_one_quote_less_gives_the_text(tmp_path, demo, text, cell):
    out = OutputFolder(tmp_path)
    Summary(out).add(outcome(id=text, case_id=text), demo, NUMERICS)
    (row,) = summary_rows(tmp_path)
    assert (row["id"], row["case_id"]) == (cell, cell)
    with RunRecord(out, demo, NUMERICS, command=["score"]) as record:
        record.add(outcome(id=text, case_id=text))
    (slide,) = run_records(tmp_path)[0]["slides"]
    assert (slide["id"], slide["case_id"]) == (text, text)
