"""`--json` of every command: lines of JSON on stdout and nothing else, also when the command fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from broken_bundles_for_tests import edited, small_bundle, swap_colours
from datasets_for_tests import write_picture
from kept_for_tests import result_folders
from own_models_for_tests import linear_onnx, wsinfer_folder
from training_for_tests import CARD as SMALL_CARD
from training_for_tests import NETWORK, write_small_dataset

from melanoma_infer.bench import engines, slide
from melanoma_infer.cli.app import app, main
from melanoma_infer.cli.console import say_json

CARD = """
name = "mine"
classes = ["normal", "tumour"]
malignant = ["tumour"]
tile_px = 32
um_per_px = 1.0
mean = [0.7, 0.5, 0.6]
std = [0.2, 0.25, 0.2]
resize = "pillow-bilinear"
"""

WORKS: dict[str, tuple[str, ...]] = {
    "score": ("SKIN", "--out", "again"),
    "rescore": ("SCORED",),
    "watch": ("in", "--out", "watched", "--stable-for", "0.3", "--once"),
    "dataset": ("--tiles", "tiles", "--mpp", "1", "--card", "card.toml", "--out", "data"),
    "doctor": ("--bundle", "small.mminfer"),
    "verify": ("small.mminfer", "--drawn", "1", "--engine", "onnxruntime"),
    "export": ("small.mminfer", "--precision", "fp16", "--out", "fp16.mminfer"),
    "bench engines": ("--bundle", "small.mminfer", "--engine", "openvino", "--precision", "fp32", "--rounds", "1"),
    "bench slide": ("SKIN", "--rounds", "1"),
    "bench kernels": ("--kernel", "aggregate_tiles", "--batch", "2"),
    "bundle show": ("small.mminfer",),
    "bundle check": ("small.mminfer",),
    "bundle create": ("new.mminfer", "--onnx", "model.onnx", "--card", "card.toml"),
    "bundle import": ("zoo.mminfer", "--wsinfer", "zoo", "--malignant", "tumor"),
    "phantom slide": ("--out", "p.svs", "--size-um", "2000,2000", "--mpp", "1"),
    "phantom cohort": ("--out", "cohort", "--tiles", "2"),
    "train": ("labelled", "--card", "network.toml", "--out", "trained", "--epochs", "1", "--set", "batch=16"),
}
FAILS: dict[str, tuple[int, tuple[str, ...]]] = {
    "score": (20, ("SKIN", "--bundle", "nowhere")),
    "rescore": (20, ("SCORED", "--bundle", "nowhere")),
    "watch": (2, ("nowhere", "--out", "x")),
    "dataset": (15, ("--tiles", "nowhere", "--card", "card.toml", "--out", "x")),
    "doctor": (20, ("--bundle", "nowhere")),
    "verify": (20, ("nowhere",)),
    "export": (20, ("nowhere", "--out", "x.mminfer")),
    "bench engines": (20, ("--bundle", "nowhere")),
    "bench slide": (10, ("nowhere.svs",)),
    "bench kernels": (2, ("--kernel", "abacus")),
    "bundle show": (20, ("nowhere",)),
    "bundle check": (20, ("nowhere",)),
    "bundle create": (2, ("x.mminfer",)),
    "bundle import": (2, ("x.mminfer", "--wsinfer", "zoo", "--malignant", "Tumor")),
    "phantom slide": (2, ("--out", "p.png")),
    "phantom cohort": (2, ("--out", "data", "--tiles", "2", "--styles", "G")),
    "train": (2, ("labelled", "--card", "card.toml", "--out", "x")),
}
SLOW = ("bundle import", "export", "train")


def commands_with_json() -> Iterator[str]:
    """The commands that have --json, as they are typed."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for child, each in getattr(command, "commands", {}).items():
            yield from below(each, f"{name} {child}".strip())
        yield name, command

    for name, command in below(typer.main.get_command(app), ""):
        if any("--json" in param.opts for param in command.params):
            yield name


@pytest.fixture(scope="module")
def place(skin, tmp_path_factory) -> Path:
    """A folder with what the commands need."""
    from commands_for_tests import run_main

    place = tmp_path_factory.mktemp("json")
    small_bundle(place / "small.mminfer")
    (place / "card.toml").write_text(CARD)
    onnx.save(linear_onnx(), place / "model.onnx")
    write_picture(place / "tiles" / "tumour" / "a.png", side=32)
    wsinfer_folder(place / "zoo", None)
    write_small_dataset(place / "labelled")
    (place / "in").mkdir()
    (place / "in" / "skin.svs").symlink_to(skin)
    (place / "network.toml").write_text(SMALL_CARD + NETWORK)
    assert run_main("score", skin, "--out", place / "scored").code == 0
    return place


@pytest.fixture
def run(mminfer, place, skin, monkeypatch):
    """Run a command of WORKS or FAILS, whose turns are short."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(engines, "time_engines", partial(engines.time_engines, seconds=0.05))
    monkeypatch.setattr(slide, "time_slide", partial(slide.time_slide, engine_seconds=0.05))
    scored = min(result_folders(place / "scored"), key=lambda folder: folder.stat().st_mtime)  # rescore adds others
    named = {"SKIN": skin, "SCORED": scored}
    return lambda command, argv: mminfer(*command.split(), *(named.get(each, each) for each in argv), "--json")


def lines(text: str) -> list[dict[str, Any]]:
    """The lines, each an object of strict JSON."""

    def refused(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    read = [json.loads(line, parse_constant=refused) for line in text.splitlines()]
    assert all(isinstance(each, dict) for each in read)
    return read


def test_every_command_with_json_is_run_here():
    assert sorted(commands_with_json()) == sorted(WORKS) == sorted(FAILS)


@pytest.mark.parametrize("command", [command for command in WORKS if command not in SLOW])
def test_the_result_is_json_and_nothing_else_is_on_stdout(run, command):
    ended = run(command, WORKS[command])
    assert ended.code == 0, ended.err
    assert len(lines(ended.out)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_the_result_of_a_conversion_is_json_and_nothing_else_is_on_stdout(run, command, place):
    from own_models_for_tests import SmallNet

    if command == "bundle import":
        (place / "zoo" / "config.json").unlink()
        (place / "zoo").rmdir()
        wsinfer_folder(place / "zoo", SmallNet().eval())
    ended = run(command, WORKS[command])
    assert ended.code == 0, ended.err
    assert len(lines(ended.out)) == 1


@pytest.mark.parametrize("command", FAILS)
def test_a_failure_is_an_object_with_exit_code_and_message(run, command):
    code, argv = FAILS[command]
    ended = run(command, argv)
    (failure,) = lines(ended.out)
    assert (ended.code, failure["exit_code"]) == (code, code)
    assert failure["message"]
    assert failure["message"] in ended.err


@pytest.mark.parametrize("command", FAILS)
def test_a_wrong_option_is_such_an_object_too(mminfer, command):
    ended = mminfer(*command.split(), "--no-such-option", "--json")
    (failure,) = lines(ended.out)
    assert (ended.code, failure["exit_code"]) == (2, 2)
    assert "--no-such-option" in failure["message"]


def test_a_result_that_is_a_failure_has_both_in_one_object(run, place, tmp_path):
    broken = edited(place / "small.mminfer", tmp_path / "bgr.mminfer", swap_colours)
    ended = run("verify", (str(broken), "--drawn", "1", "--engine", "onnxruntime"))
    (result,) = lines(ended.out)
    assert (ended.code, result["exit_code"], result["passed"]) == (22, 22, False)
    assert "onnxruntime fp32" in result["message"]


def test_a_bug_is_such_an_object_and_still_a_traceback(monkeypatch, capsys):
    def broken(_name: str) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("melanoma_infer.bundle.bundle.open_bundle", broken)
    monkeypatch.setattr(sys, "argv", ["mminfer", "bundle", "show", "--json"])
    with pytest.raises(ZeroDivisionError):
        main()
    (failure,) = lines(capsys.readouterr().out)
    assert (failure["exit_code"], "ZeroDivisionError" in failure["message"]) == (1, True)


def test_a_number_that_is_not_finite_is_null(capsys):
    say_json({"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (2, float("-inf"))}})
    assert lines(capsys.readouterr().out) == [{"a": None, "b": [1.5, None], "c": {"d": [2, None]}}]
