"""Options that several commands share behave and read the same in each of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
import typer

from melanoma_infer.cli.app import app

OWN_MEANING = {
    "--out", "--bundle", "--json", "--precision", "--engine", "--target", "--device", "--tile-um", "--mpp",
    "--overwrite", "--rounds", "--tiles", "--card", "--patients", "--seed", "--weights",
}  # fmt: skip
"""Options with a different meaning in some command, and so with a different help text there."""


def options(command: object, name: str = "mminfer") -> Iterator[tuple[str, str, str]]:
    """Command, option and help text, for every option of every command."""
    for child_name, child in getattr(command, "commands", {}).items():
        yield from options(child, f"{name} {child_name}")
    for param in getattr(command, "params", ()):
        for option in param.opts:
            if option.startswith("--"):
                yield name, option, param.help or ""


def test_an_option_has_the_same_help_in_every_command():
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for _, option, text in options(typer.main.get_command(app)):
        texts[option].add(text)
    assert {option for option, found in texts.items() if len(found) > 1} == OWN_MEANING
    assert {"--threads", "--reader", "--age", "--save", "--tiles"} <= texts.keys()


def test_every_option_and_command_has_a_help_text():
    found = list(options(typer.main.get_command(app)))
    assert len(found) > 80
    assert [(command, option) for command, option, text in found if not text] == []


@pytest.mark.parametrize(
    "argv",
    [
        ("score", "a.svs"),
        ("bench", "slide", "a.svs"),
        ("verify", "demo"),
        ("export", "demo", "--out", "b.mminfer", "--precision", "int8", "--calibration", "a.svs"),
    ],
    ids=lambda argv: argv[0],
)
def test_an_impossible_tile_size_is_a_usage_error_that_names_the_option(mminfer, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    ended = mminfer(*argv, "--tile-um", "-1")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "mminfer: --tile-um -1.0 should be greater than 0.\n"
    assert list(tmp_path.iterdir()) == []


def test_score_lists_its_options_in_sections_whose_texts_begin_in_one_column(mminfer, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = mminfer("score", "--help").out
    sections = dict(re.findall(r"^(\S.*):\n((?:  .*\n?)+)", text, re.MULTILINE))
    assert list(sections) == [
        "Arguments", "Slides", "Patient", "Tiles", "Model and engine", "Run", "Output", "Terminal", "Other options"
    ]  # fmt: skip
    listed = {title: re.findall(r"^  (?:-\w, )?(--[a-z-]+)", body, re.MULTILINE) for title, body in sections.items()}
    assert listed["Other options"] == ["--help"]
    assert listed["Terminal"] == ["--json", "--verbose", "--quiet", "--log-json"]
    everything = [option for options in listed.values() for option in options]
    declared = [option for name, option, _ in options(typer.main.get_command(app)) if name == "mminfer score"]
    assert sorted(everything) == sorted([*declared, "--help"])
    entries = re.findall(r"^  \S.*?  +(?=\S)", "".join(sections.values()), re.MULTILINE)
    assert len(entries) == len(everything) + 1
    assert len({len(entry) for entry in entries}) == 1


@pytest.mark.parametrize(
    "argv", [("score", ""), ("score", "a.svs", "--out", ""), ("rescore", ""), ("demo", "--out", "")]
)
def test_an_empty_name_is_not_this_folder(mminfer, argv):
    ended = mminfer(*argv)
    assert ended.code == 2
    assert "The name is empty. Is a variable not set?" in ended.err
