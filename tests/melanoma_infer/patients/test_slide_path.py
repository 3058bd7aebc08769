"""Paths in manifests as other systems write them: a file that is there, never a guess."""

import pytest

from melanoma_infer.patients.slide_path import slide_path

ONE, TWO = "Mü.svs", "Mu\u0308.svs"
"""The same name with ü in one code point, and in two as macOS writes it."""


@pytest.mark.parametrize(
    ("written", "there", "meant"),
    [
        ("sub\\a.svs", ["sub/a.svs"], "sub/a.svs"),
        (".\\sub\\a.svs", ["sub/a.svs"], "sub/a.svs"),
        ("sub\\a.svs", ["sub/a.svs", "sub\\a.svs"], "sub\\a.svs"),
        ("sub\\a.svs", ["a.svs"], "sub/a.svs"),
        ("C:\\sub\\a.svs", ["sub/a.svs"], "C:\\sub\\a.svs"),
        ("\\\\server\\sub\\a.svs", ["sub/a.svs"], "\\\\server\\sub\\a.svs"),
        (ONE, [TWO], TWO),
        (TWO, [ONE], ONE),
        (ONE, [ONE, TWO], ONE),
        (TWO, [ONE, TWO], TWO),
        (f"{ONE}\\a.svs", [f"{TWO}/a.svs"], f"{TWO}/a.svs"),
        ("A.SVS", ["a.svs"], "A.SVS"),
        ("a", ["a.svs"], "a"),
        ("my%20slide.svs", ["my slide.svs"], "my%20slide.svs"),
        ("x" * 5000, [], "x" * 5000),
    ],
)
def test_another_spelling_counts_only_if_its_file_is_there_and_the_literal_one_is_not(tmp_path, written, there, meant):
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert slide_path(tmp_path, written) == tmp_path / meant


def test_an_absolute_path_is_relative_to_nothing(tmp_path):
    assert slide_path(tmp_path / "other", str(tmp_path / "a.svs")) == tmp_path / "a.svs"
