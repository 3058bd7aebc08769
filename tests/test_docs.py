"""Docs cannot drift: what they show is run, and what exists is named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from melanoma_infer import card, settings, tolerances
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import MminferError
from melanoma_infer.result import ReasonCode, Verdict
from melanoma_infer.training import settings as training_settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[!.]*/README.md")])


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_command_line_reference_is_the_command_line_s():
    command = [sys.executable, "-m", "typer", "melanoma_infer.cli.app", "utils", "docs", "--name", "mminfer"]
    generated = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert (ROOT / "docs" / "cli.md").read_text().split() == generated.split()


def test_the_readme_s_python_runs(cmu, tmp_path, monkeypatch, capsys):
    (tmp_path / "slide.svs").symlink_to(cmu)
    monkeypatch.chdir(tmp_path)
    (block,) = code_blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    assert "indeterminate" in capsys.readouterr().out


def test_every_option_that_the_readme_shows_exists():
    reference = (ROOT / "docs" / "cli.md").read_text()
    shown = [
        line for block in code_blocks(ROOT / "README.md", "sh") for line in block.splitlines() if "mminfer" in line
    ]
    options = {option for line in shown for option in re.findall(r" (--[a-z-]+)", line)}
    assert options
    assert all(f"`{option}" in reference for option in options)
    commands = {line.split()[1] for line in shown if line.startswith("mminfer ")}
    assert all(f"## `mminfer {command}`" in reference for command in commands)


def test_the_bundle_page_s_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = code_blocks(ROOT / "docs" / "bundle.md", "python")
    exec(compile(block, "bundle.md", "exec"), {})
    assert capsys.readouterr().out == "demo ('fp32', 'int8') (4, 512, 512, 3)\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_verdict_reason_and_exit_code_is_explained():
    text = (ROOT / "docs" / "results.md").read_text()
    for word in (*ReasonCode.__args__, *Verdict.__args__):
        assert f"`{word}`" in text, word
    codes = text.split("## Exit codes")[1].split("##")[0]
    for leaf in MminferError.__subclasses__():
        assert re.search(rf"\b{leaf.exit_code}\b", codes), leaf


@pytest.mark.parametrize("module", [card, tolerances, settings, training_settings], ids=lambda module: module.__name__)
def test_every_field_has_a_docstring(module):
    """A string follows each field of the card, of its parts and of all settings."""
    tree = ast.parse(Path(module.__file__).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    documented = 0
    for kind in classes:
        for field, following in pairwise([*kind.body, None]):
            if isinstance(field, ast.AnnAssign):
                text = following.value if isinstance(following, ast.Expr) else None
                assert isinstance(text, ast.Constant), f"{kind.name}.{ast.unparse(field.target)}"
                assert isinstance(text.value, str)
                documented += 1
    assert documented > 5


def test_the_bundle_page_names_the_fields_that_have_consequences():
    required = [name for name, field in ModelCard.model_fields.items() if field.is_required()]
    page = (ROOT / "docs" / "bundle.md").read_text()
    for name in (*required, "um_per_px", "tile_um", "threshold", "outcome", "patient_fields"):
        assert f"`{name}`" in page, name


def test_paper_s_files_and_tests_exist():
    table = (ROOT / "docs" / "paper.md").read_text()
    named = re.findall(r"`([a-z_/]+(?:/[a-z_0-9]+)+\.py)`", table)
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name


def test_the_readme_s_figures_are_rows_of_the_results():
    import csv
    import json

    results, readme = ROOT / "benchmarks" / "results", (ROOT / "README.md").read_text()
    rows = json.loads((results / "engines.json").read_text())["rows"]
    result = {(row["engine"], row["precision"]): row for row in rows}
    shown = re.findall(r"^\| `([a-z-]+)` ([a-z0-9]+) \|(.*)\|$", readme, re.MULTILINE)
    assert len(shown) >= 6
    for engine, precision, cells in shown:
        row = result[engine, precision]
        ratios = [row["ratio_to_nchw"], row["ratio_to_best"]]
        expected = [f"{value:.1f}" for value in (row["tiles_per_s"], *ratios)]
        expected += [f"{row['share_of_peak']:.0%}", f"{row['p999_dp']:.0e}"]
        assert [cell.strip() for cell in cells.split("|")] == expected, (engine, precision)
    with (results / "peers.csv").open() as file:
        ours = {line["precision"]: line for line in csv.DictReader(file) if line["tool"] == "mminfer"}
    for precision, row in ours.items():
        assert (
            f"in {precision} {float(row['ratio_to_wsinfer']):.1f} × WSInfer's and "
            f"{float(row['ratio_to_tiatoolbox']):.1f} × TIAToolbox's"
        ) in " ".join(readme.split())
