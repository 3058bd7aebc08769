"""`mminfer bench` on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from melanoma_infer.bench import engines, slide


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """One on which every table has a line per row."""
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def short_turns(monkeypatch):
    """An engine for a twentieth of a second: what is tested is what the command says of a time."""
    monkeypatch.setattr(engines, "time_engines", partial(engines.time_engines, seconds=0.05))
    monkeypatch.setattr(slide, "time_slide", partial(slide.time_slide, engine_seconds=0.05))


@pytest.mark.usefixtures("short_turns")
def test_the_command_prints_a_table_one_sentence_and_saves_all(mminfer, tmp_path):
    saved = tmp_path / "engines.json"
    ended = mminfer("bench", "engines", "--engine", "openvino", "--precision", "fp32", "--rounds", "1", "--save", saved)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split()[:3] == ["engine", "precision", "batch"]
    assert lines[-1].startswith("The fastest engine within its tolerance is openvino fp32:")
    result = json.loads(saved.read_text())
    assert result["kind"] == "engines"
    assert {"engine", "precision", "batch", "tiles_per_s", "ratio_to_nchw", "ratio_to_best", "p999_dp"} <= set(
        result["rows"][0]
    )
    assert result["rows"][0]["share_of_peak"] > 0
    assert result["machine"]["cores"] >= 1
    argv = ("--engine", "openvino", "--precision", "fp32", "--rounds", "1", "--compare", saved)
    assert "since engines.json: openvino fp32" in mminfer("bench", "engines", *argv).out


def test_an_unknown_engine_is_refused(mminfer):
    ended = mminfer("bench", "engines", "--engine", "abacus")
    assert ended.code == 2
    assert "--engine abacus: no such engine. Choose from torch-eager-nchw" in ended.err
    assert mminfer("bench", "engines", "--precision", "fp64").code == 2


def test_a_file_that_cannot_be_written_is_an_error_that_names_the_option(mminfer, tmp_path):
    argv = ("--kernel", "aggregate_tiles", "--batch", "2", "--save", tmp_path / "no" / "where.json")
    ended = mminfer("bench", "kernels", *argv)
    assert ended.code == 14
    assert "--save" in ended.err


@pytest.mark.usefixtures("short_turns")
def test_a_slide_is_timed_and_everything_saved(mminfer, cmu, tmp_path):
    saved = tmp_path / "slide.json"
    argv = ("bench", "slide", cmu, "--tile-um", "200", "--rounds", "1")
    ended = mminfer(*argv, "--target", "1/day", "--save", saved)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert "1 slide like this one per day is within reach" in lines[-2]
    assert lines[-1].rstrip(".").endswith("ms per tile")
    result = json.loads(saved.read_text())
    keys = {
        "overhead_s",
        "tiles",
        "tiles_per_s",
        "engine_only_tiles_per_s",
        "share_of_engine",
        "peak_rss_bytes",
        "stages",
    }
    assert keys <= result.keys()
    assert result["kind"] == "slide"
    assert {"open", "tissue", "read", "decode", "resize", "wait", "infer", "write"} <= result["stages"].keys()
    assert result["sentence"] == lines[-1]
    assert saved.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    again = json.loads(mminfer(*argv, "--json", "--compare", saved).out)
    assert again["tiles"] == result["tiles"]
    assert again["changes"][0]["name"] == "openvino fp32"


def test_a_malformed_target_is_refused_with_an_example(mminfer, cmu):
    ended = mminfer("bench", "slide", cmu, "--rounds", "1", "--target", "lots")
    assert ended.code == 2
    assert "4000/day" in ended.err


def test_runs_of_another_kind_are_not_compared(mminfer, cmu, tmp_path):
    saved = tmp_path / "engines.json"
    saved.write_text(json.dumps({"kind": "engines", "tile_px": 512, "threads": 1, "rows": []}))
    ended = mminfer("bench", "slide", cmu, "--rounds", "1", "--compare", saved)
    assert ended.code == 2
    assert "mminfer bench engines" in ended.err


def test_kernels_are_timed_saved_and_compared(mminfer, tmp_path):
    saved = tmp_path / "kernels.json"
    argv = ("bench", "kernels", "--kernel", "aggregate_tiles", "--kernel", "attention_head", "--batch", "2")
    ended = mminfer(*argv, "--save", saved)
    assert ended.code == 0, ended.err
    assert ended.out.split()[0] == "kernel"
    result = json.loads(saved.read_text())
    assert result["kind"] == "kernels"
    assert {row["kernel"] for row in result["rows"]} == {"aggregate_tiles", "attention_head"}
    assert result["sentence"] == ended.out.splitlines()[-1]
    assert saved.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    again = json.loads(mminfer(*argv, "--compare", saved, "--json").out)
    assert {change["name"].split()[0] for change in again["changes"]} == {"aggregate_tiles", "attention_head"}


def test_an_unknown_kernel_is_refused_with_the_list_of_kernels(mminfer):
    ended = mminfer("bench", "kernels", "--kernel", "abacus")
    assert ended.code == 2
    assert "attention_tail" in ended.err
    assert mminfer("bench", "kernels", "--precision", "int8").code == 2


@pytest.mark.parametrize(("module", "name"), [("torch", "PyTorch"), ("triton", "Triton")])
def test_the_package_that_the_kernels_lack_is_named(module, name):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "sys.argv = ['mminfer', 'bench', 'kernels', '--kernel', 'aggregate_tiles']\n"
        "from melanoma_infer.cli.app import main; main()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 21
    assert f"The kernels need {name}, which cannot be imported here." in ended.stderr


@pytest.mark.usefixtures("short_turns")
def test_a_slide_of_one_tile_says_nothing_about_others(mminfer, cmu, tmp_path):
    saved = tmp_path / "slide.json"
    ended = mminfer("bench", "slide", cmu, "--rounds", "1", "--target", "4000/day", "--save", saved)
    assert ended.code == 0, ended.err
    assert "Whether 4000 slides per day can be scored is not known: this slide has 1 tile," in ended.out
    assert "1 tile in " in ended.out
    assert "slides/h" not in ended.out
    result = json.loads(saved.read_text())
    assert (result["tiles"], result["slides_per_h"]) == (1, None)
