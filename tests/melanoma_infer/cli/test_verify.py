"""`mminfer verify`: table, JSON, exit codes."""

from __future__ import annotations

import csv
import json

import pytest
from broken_bundles_for_tests import drop_bias, edited, forget_255, small_bundle, swap_attention_inputs, swap_colours
from bundles_for_tests import tampered

from melanoma_infer.bundle.contents import PACKAGED

REQUIRED = {
    "engine", "precision", "tiles", "max_dp", "p999_dp", "max_dmm", "features_rms", "decision_flips", "passed"
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "small.mminfer")


def test_a_right_bundle_passes_and_its_rows_are_json(mminfer, small):
    ended = mminfer("verify", small, "--drawn", 1, "--engine", "onnxruntime", "--json")
    result = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert result["passed"] is result["kept"] is True
    (row,) = result["rows"]
    assert set(row) >= REQUIRED
    assert (row["engine"], row["precision"], row["passed"], row["tiles"]) == ("onnxruntime", "fp32", True, 10)


def test_a_broken_one_is_exit_22_with_the_stage(mminfer, small, tmp_path):
    broken = edited(small, tmp_path / "bgr.mminfer", swap_colours)
    ended = mminfer("verify", broken, "--drawn", 1, "--engine", "onnxruntime")
    assert ended.code == 22
    assert "onnxruntime fp32 failed" in ended.out
    assert "input decoding and normalisation" in ended.out
    assert "BGR" in ended.out
    assert "auto" in ended.err


def test_an_engine_that_was_named_and_is_not_here_is_exit_21(mminfer, small):
    assert mminfer("verify", small, "--drawn", 1, "--engine", "torch").code == 21


def test_expected_is_compared_drawn_and_refused(mminfer, small, cmu, tmp_path):
    assert mminfer("score", cmu, "--bundle", small, "--out", tmp_path / "r", "--engine", "onnxruntime").code == 0
    (ours,) = (tmp_path / "r").glob("*/tiles.csv")
    out = tmp_path / "verify"
    argv = ("verify", small, "--slide", cmu, "--engine", "onnxruntime", "--out", out)
    same = mminfer(*argv, "--expected", ours)
    assert same.code == 0
    assert "agree" in same.out
    rows = list(csv.reader(ours.read_text().splitlines()))
    for row in rows[1:]:
        row[4:6] = row[5:3:-1]
    with (tmp_path / "theirs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    other = mminfer(*argv, "--expected", tmp_path / "theirs.csv", "--json")
    result = json.loads(other.out)
    assert other.code == 22
    assert result["matched"] == len(rows) - 1
    assert len(result["worst"]) == 5
    assert (out / "expected.html").read_text().count("<figure>") == 5
    assert "theirs" not in (out / "expected.html").read_text().replace("yours", "")


def test_expected_without_a_slide_is_a_usage_error(mminfer, small, tmp_path):
    assert mminfer("verify", small, "--expected", tmp_path / "x.csv").code == 2


def test_a_cache_that_cannot_be_written_is_reported_and_changes_nothing(mminfer, small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "file"))
    ended = mminfer("verify", small, "--drawn", 1, "--engine", "onnxruntime")
    assert ended.code == 0
    assert "not stored" in ended.err
    assert "MMINFER_CACHE" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "stage"),
    [
        (swap_colours, "input decoding and normalisation"),
        (forget_255, "input decoding and normalisation"),
        (swap_attention_inputs, "attention"),
        (drop_bias(20), "backbone"),
    ],
    ids=["bgr", "no-255", "w-swapped", "no-bias"],
)
def test_each_broken_export_of_our_own_network_is_far_beyond_a_tolerance_and_its_stage_is_named(
    mminfer, tmp_path, edit, stage
):
    broken = edited(PACKAGED / "demo.mminfer", tmp_path / "broken.mminfer", edit)
    ended = mminfer("verify", broken, "--drawn", 2, "--precision", "fp32", "--json")
    assert ended.code == 22
    rows = {row["engine"]: row for row in json.loads(ended.out)["rows"]}
    assert rows["torch"]["passed"]
    for name in ("openvino", "onnxruntime"):
        assert not rows[name]["passed"]
        assert rows[name]["over_tolerance"] > 3
        assert rows[name]["stage"] == stage


def test_a_copy_with_another_digest_is_another_bundle(mminfer, small, tmp_path):
    """A failure of one bundle says nothing about another."""
    copy = tampered(small, tmp_path / "copy.mminfer", "parity.json", b'{"rows": []  }')
    assert mminfer("verify", copy, "--drawn", 1, "--engine", "onnxruntime").code == 0
