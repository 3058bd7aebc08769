"""`mminfer bench` on the command line."""

from __future__ import annotations

import json


def test_the_command_prints_a_table_one_sentence_and_saves_all(mminfer, tmp_path):
    saved = tmp_path / "engines.json"
    ended = mminfer("bench", "engines", "--engine", "openvino", "--precision", "fp32", "--rounds", "1", "--save", saved)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split()[:3] == ["engine", "precision", "batch"]
    assert lines[-1].startswith("The fastest engine within its gate is openvino fp32:")
    result = json.loads(saved.read_text())
    assert result["kind"] == "engines"
    assert {"engine", "precision", "batch", "tiles_per_s", "ratio_to_nchw", "ratio_to_best", "p999_dp"} <= set(
        result["rows"][0]
    )
    assert result["rows"][0]["share_of_peak"] > 0
    assert result["machine"]["cores"] >= 1
    argv = ("--engine", "openvino", "--precision", "fp32", "--rounds", "1", "--compare", saved)
    assert "since engines.json: openvino fp32" in mminfer("bench", "engines", *argv).out


def test_a_name_that_nothing_has_is_refused(mminfer):
    ended = mminfer("bench", "engines", "--engine", "abacus")
    assert ended.code == 21
    assert "--engine" in ended.err


def test_a_file_that_cannot_be_written_is_said(mminfer, tmp_path):
    argv = ("--engine", "openvino", "--precision", "fp32", "--rounds", "1", "--save", tmp_path / "no" / "where.json")
    ended = mminfer("bench", "engines", *argv)
    assert ended.code == 14
    assert "--save" in ended.err
