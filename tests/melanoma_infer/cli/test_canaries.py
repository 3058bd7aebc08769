"""Privacy: canaries are planted where hospitals keep names, and searched for in everything written or printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import openslide
import pytest
from kept_for_tests import kept, run_records

FOLDER = "CANARYfolder"
STEM = "CANARYstem"
DESCRIPTION = b"CANARYDESC"
LABEL = b"CANARYLABL"
AGE, SEX, SITE = "47.31859", "female", "mucosal"


@pytest.fixture
def slide(cmu: Path, tmp_path: Path) -> Path:
    """The real slide, with canaries in its folder, its name, its ImageDescription and its label's description."""
    content = cmu.read_bytes()
    assert content.count(b"Filename = CMU-1") == 2
    content = content.replace(b"Filename = CMU-1", b"File = " + DESCRIPTION[:9])
    assert content.count(b"label 387x463") == 1
    content = content.replace(b"label 387x463", b"label " + LABEL[:7])
    path = tmp_path / FOLDER / f"{STEM}.svs"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def written(out: Path) -> dict[str, bytes]:
    """Every file, and every name, under the output folder."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return files | {"names": "\n".join(files).encode()}


def holders(out: Path, canary: str | bytes) -> set[str]:
    """The names of the files that contain a canary."""
    needle = canary.encode() if isinstance(canary, str) else canary
    return {
        "runs" if name.startswith("runs/") else name.rsplit("/", 1)[-1]
        for name, content in written(out).items()
        if needle in content
    }


def test_canaries_appear_only_where_they_may(mminfer, slide, tmp_path):
    out = tmp_path / "out"
    ended = mminfer("score", slide, "--out", out, "--age", AGE, "--sex", SEX, "--site", SITE, "--tile-um", "256")
    assert ended.code == 0
    assert holders(out, FOLDER) == holders(out, DESCRIPTION[:9]) == holders(out, LABEL[:7]) == set()
    assert FOLDER not in ended.out + ended.err
    assert holders(out, STEM) == {"result.json", "report.html", "summary.csv", "runs", "names"}
    result = json.loads(next(out.glob("*/result.json")).read_text())
    assert result["id"] == STEM
    assert result["patient"]["values"]["sex"] == SEX
    # Patient values are in result.json and the report only; the age itself is nowhere, only its band.
    assert holders(out, SEX) == holders(out, SITE) == {"result.json", "report.html"}
    assert result["patient"]["values"]["age"] == "40_to_54"
    assert holders(out, AGE) == holders(out, AGE[:6]) == set()


def test_only_the_band_of_an_age_is_written_or_printed(mminfer, slide, tmp_path):
    """Two ages of one band give the same files and the same words, apart from the run's, so neither reveals the age."""
    ends = [mminfer("score", slide, "--out", tmp_path / age, "--age", age) for age in (AGE, "48")]
    outs = (tmp_path / age for age in (AGE, "48"))
    said = [RUN8.sub("", ended.out.replace(str(out), "")) for ended, out in zip(ends, outs, strict=True)]
    assert said[0] == said[1]
    assert ends[0].err == ends[1].err
    files = [kept(tmp_path / age) for age in (AGE, "48")]
    assert files[0] == files[1]
    assert any(b'"40_to_54"' in content for content in files[0][next(iter(files[0]))].values())
    pages = [
        CLOCK.sub(b"", path.read_bytes()) for age in (AGE, "48") for path in (tmp_path / age).glob("*/report.html")
    ]
    assert pages[0] == pages[1]


RUN8 = re.compile(r"(?<=-[0-9a-f]{8}-)[0-9a-f]{8}")
"""The end of a result folder's name, which a secret of its output folder gives."""
CLOCK = re.compile(rb'<p id="timings">.*?</p>|<br>Scored [^<]*UTC|(?<=-[0-9a-f]{8}-)[0-9a-f]{8}', re.DOTALL)
"""What the report says of its run."""


def test_the_command_line_is_stored_without_the_user_s_values(mminfer, slide, tmp_path):
    out = tmp_path / "out"
    mminfer("score", slide, "--out", out, f"--age={AGE}", "--sex", SEX, "--tile-um", "256", "--engine", "openvino")
    argv = run_records(out)[0]["argv"]
    assert argv == [
        "score", "<redacted>", "--out", "<redacted>", "--age=<redacted>", "--sex", "<redacted>", "--tile-um", "256",
        "--engine", "openvino",
    ]  # fmt: skip


def test_no_label_or_macro_image_is_ever_opened(mminfer, slide, tmp_path, monkeypatch):
    def opened(self: object) -> None:
        pytest.fail("an associated image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(opened))
    assert mminfer("score", slide, "--out", tmp_path / "out").code == 0
    assert mminfer("score", slide, "--out", tmp_path / "grid", "--dry-run").code == 0


@pytest.mark.wheel
def test_a_slide_that_fails_is_named_without_its_folder(mminfer, tmp_path):
    path = tmp_path / FOLDER / f"{STEM}.svs"
    path.parent.mkdir()
    path.write_text("Dear colleague")
    ended = mminfer("score", path, "--out", tmp_path / "out")
    assert STEM in ended.err
    assert FOLDER not in ended.out + ended.err
    assert holders(tmp_path / "out", FOLDER) == set()


def test_a_bug_is_reported_without_the_path(mminfer, slide, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"at {slide}")

    monkeypatch.setattr("melanoma_infer.tiles.plan.find_tissue", broken)
    ended = mminfer("score", slide, "--out", tmp_path / "out")
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.err
    assert "Traceback" not in ended.err
    assert FOLDER not in ended.err
    assert holders(tmp_path / "out", FOLDER) == set()


def test_a_manifest_leaves_only_ids_and_result_values_in_files_and_what_is_not_used_on_the_terminal(
    mminfer, slide, tmp_path
):
    manifest = tmp_path / "CANARYmanifest.csv"
    manifest.write_text(f"id,slide,sex,site,CANARYcolumn\n7,{slide},{SEX},CANARYsite,CANARYcell\n")
    out = tmp_path / "out"
    ended = mminfer("score", "--patients", manifest, "--out", out)
    assert ended.code == 0
    assert holders(out, "CANARY") == set()
    told = [line for line in (ended.out + ended.err).splitlines() if "CANARY" in line]
    assert [re.findall(r"CANARY\w+", line) for line in told] == [["CANARYcolumn"], ["CANARYsite"]]
    assert holders(out, SEX) == {"result.json", "report.html"}


def test_patient_values_are_left_out_everywhere_when_asked(mminfer, slide, tmp_path):
    out = tmp_path / "out"
    ended = mminfer("score", slide, "--out", out, "--sex", SEX, "--site", SITE, "--no-patient-in-output")
    assert ended.code == 0
    assert holders(out, SEX) == holders(out, SITE) == set()
