"""What may leave: no name, no path, no typed value but those that say nothing of a patient."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.runtime.privacy import (
    ID_BYTES_MAX,
    REDACTED,
    folder_name,
    readable,
    redacted_argv,
    safe_name,
    slide_name,
    without_paths,
)

QUICK = settings(deadline=None, max_examples=150, derandomize=True)
CANARY = "Zebrastein"
OPTIONS = {"--out", "--age", "--sex", "--patient", "--mpp", "--threads", "--engine", "--json", "--case-id", "-v"}
DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (f"score /data/{CANARY}.svs", f"score {REDACTED}"),
        (f"score {CANARY}.svs --out /data/{CANARY}", f"score {REDACTED} --out {REDACTED}"),
        (f"score --out=/data/{CANARY} x", f"score --out={REDACTED} {REDACTED}"),
        ("score x --age 63 --sex=female", f"score {REDACTED} --age {REDACTED} --sex={REDACTED}"),
        (f"score x --patient name={CANARY}", f"score {REDACTED} --patient {REDACTED}"),
        ("score x --mpp 0.25 --threads=2", f"score {REDACTED} --mpp 0.25 --threads=2"),
        (f"score --engine openvino {CANARY}", f"score --engine openvino {REDACTED}"),
        (f"score --mpp=0.25 {CANARY}", f"score --mpp=0.25 {REDACTED}"),
        (f"score --json {CANARY}", f"score --json {REDACTED}"),
        ("score --case-id -zebrastein x", f"score --case-id {REDACTED} {REDACTED}"),
        ("score --zebra-stein x", f"score {REDACTED} {REDACTED}"),
        (f"score -o{CANARY} -v", f"score {REDACTED} -v"),
        (f"score --{CANARY}", f"score {REDACTED}"),
        ("doctor", "doctor"),
        ("", ""),
    ],
)
def test_only_commands_options_and_harmless_values_are_shown(typed, shown):
    assert redacted_argv(typed.split(), OPTIONS) == shown.split()


def test_after_two_dashes_everything_is_a_value():
    name = f"-{CANARY.lower()}"
    assert redacted_argv(["score", "--json", "--", name, "--mpp"], OPTIONS) == ["score", "--json"] + [REDACTED] * 3


@QUICK
@given(st.lists(st.text(min_size=1, max_size=8).map(lambda text: f"/{CANARY}/{text}"), max_size=5), st.randoms())
def test_no_path_is_ever_shown(paths, random):
    argv = ["score"]
    for path in paths:
        argv += random.choice([[path], ["--out", path], [f"--out={path}"], ["--json", path]])
    assert CANARY not in " ".join(redacted_argv(argv, OPTIONS))
    assert len(redacted_argv(argv, OPTIONS)) == len(argv)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("case-7_b.2", "case-7_b.2"),
        ("Müller 3", "Müller 3"),
        ("a/b\\c:d*e?f", "a_b_c_d_e_f"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "slide"),
        (" . ", "slide"),
        ("", "slide"),
        ("a\0b\nc", "a_b_c"),
        ("name. ", "name"),
        ("x" * 200, "x" * 120),
        ("x" * 119 + ".y", "x" * 119),
        ("ö" * 100, "ö" * 60),
    ],
)
def test_a_safe_name_holds_no_path_and_no_sign_that_a_file_system_refuses(text, name):
    assert safe_name(text) == name


@QUICK
@given(st.text(max_size=120))
def test_every_text_has_a_safe_name_that_is_its_own(text):
    name = safe_name(text)
    assert 0 < len(name.encode()) <= ID_BYTES_MAX
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert name.strip(" .") == name
    assert safe_name(name) == name
    assert Path("out", name).parent == Path("out")


def test_a_folder_is_the_id_and_eight_signs_of_the_digest():
    assert folder_name("case 7", DIGEST) == "case 7-01234567"
    assert folder_name("a/b", DIGEST) == "a_b-01234567"


def test_where_the_digest_is_the_id_the_folder_is_the_digest_alone():
    assert folder_name("01234567", DIGEST) == "01234567"


def test_a_librarys_message_loses_the_path_its_folders_and_its_name(tmp_path, monkeypatch):
    path = tmp_path / CANARY / "slide-77.svs"
    messages = [
        f"cannot open {path}",
        f"cannot open '{path.parent}'",
        f"in {path.parent.parent}: cannot open slide-77.svs, sorry",
    ]
    for message in messages:
        clean = without_paths(message, path)
        assert CANARY not in clean
        assert "slide-77" not in clean
        assert str(tmp_path) not in clean
        assert REDACTED in clean
    monkeypatch.chdir(tmp_path)
    assert (
        without_paths(f"cannot open {CANARY}/slide-77.svs", Path(CANARY) / "slide-77.svs") == f"cannot open {REDACTED}"
    )


def test_a_message_without_a_path_stays_as_it_is():
    assert without_paths("division by zero", Path("/data/a.svs")) == "division by zero"


@given(name=st.binary(min_size=1, max_size=40))
@QUICK
def test_any_bytes_of_a_name_become_text_that_can_be_written(name):
    text = readable(os.fsdecode(name))
    text.encode()
    assert text == name.decode(errors="backslashreplace")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("case.svs", "case"),
        ("case.ome.tif", "case.ome"),
        ("I0001", "I0001"),
        ("1.2.840.113619.2", "1.2.840.113619.2"),
        ("Pr\udce9l\udce8vement 12.svs", r"Pr\xe9l\xe8vement 12"),
    ],
)
def test_a_slide_is_called_after_its_file_without_the_suffix(name, shown):
    assert slide_name(Path("folder", name)) == shown


def test_a_link_to_itself_has_no_paths_to_show(tmp_path):
    loop = tmp_path / "loop.svs"
    loop.symlink_to(loop)
    assert without_paths(f"cannot read {loop}", loop) == f"cannot read {REDACTED}"


def test_a_name_that_would_write_to_the_terminal_is_escaped():
    name = "a\nb: Suspected melanoma\x1b[2J\u202e"
    assert slide_name(Path(f"/x/{name}.svs")) == r"a\nb: Suspected melanoma\x1b[2J\u202e"
    assert slide_name(Path("Prélèvement 7.svs")) == "Prélèvement 7"
