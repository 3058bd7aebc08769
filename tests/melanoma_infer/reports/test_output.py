"""Files are written whole or not at all, and result.json shows that the others are complete."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import OutputError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import Patient
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import Identity
from melanoma_infer.reports import output
from melanoma_infer.reports.output import REPORTS, OutputFolder, write_atomically
from melanoma_infer.result import PatientOut, SlideResult
from melanoma_infer.runtime import files
from melanoma_infer.settings import Settings


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SlideResult:
    path = tmp_path_factory.mktemp("slide") / "photo.png"
    Image.fromarray(np.full((300, 400, 3), (150, 70, 130), np.uint8)).save(path)
    settings = Settings(mpp_um=(0.5, 0.5), tile_um=128, tissue="all")
    return score_slide(path, Scorer(open_bundle("demo")), settings=settings)


def test_result_json_is_written_last():
    assert list(REPORTS)[-1] == "result.json"


@pytest.mark.parametrize("broken", list(REPORTS))
def test_a_failure_at_any_file_leaves_no_commit_record(result, tmp_path, monkeypatch, broken):
    with OutputFolder(tmp_path / "out") as out:
        folder = out.folder_of(Path("a.svs"), SlideCase("a"), result.slide.digest)
        out.write(folder, result)
        before = (folder / "tiles.csv").read_bytes()
        write = output.write_atomically

        def fail(path: Path, content: bytes) -> None:
            if path.name == broken:
                raise OutputError("full")
            write(path, content)

        monkeypatch.setattr(output, "write_atomically", fail)
        with pytest.raises(OutputError):
            out.write(folder, result)
        assert not (folder / "result.json").exists()
        assert (folder / "tiles.csv").read_bytes() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_an_error_and_leaves_no_partial_file(tmp_path, monkeypatch, code):
    def full(descriptor: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="--out"):
        write_atomically(tmp_path / "a.csv", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path):
    write_atomically(tmp_path / "a.csv", b"old")
    write_atomically(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_slide_is_finished_only_if_slide_bundle_settings_and_files_match(result, tmp_path):
    same = Identity(result.slide.digest, result.slide.size_bytes, result.slide.mtime_ns, 1)
    known = result.model_copy(update={"settings_digest": "d"}).carrying(result.tiles)
    with OutputFolder(tmp_path / "out") as out:
        folder = out.folder_of(Path("a.svs"), SlideCase("a"), same.digest)
        assert out.finished(folder, same, "d") is None
        out.write(folder, known)
        assert out.finished(folder, same, "d") is not None
        assert out.finished(folder, same, "e") is None
        assert out.finished(folder, same, None) is None
        assert out.finished(folder, Identity("0", 1, same.mtime_ns, 1), "d") is None
        assert out.finished(folder, Identity(same.digest, 1, same.mtime_ns + 1, 1), "d") is None
        (folder / "tiles.geojson").unlink()
        assert out.finished(folder, same, "d") is None


def test_the_same_bytes_of_two_patients_have_two_folders_in_one_run_and_in_the_next(result, tmp_path):
    digest, known = result.slide.digest, Patient({"age": "old"}, "unknown")
    first, second = SlideCase("a", "C1", known), SlideCase("a", "C2", known)
    with OutputFolder(tmp_path / "out") as out:
        one, two = (out.folder_of(Path(f"{n}.svs"), case, digest) for n, case in enumerate((first, second)))
        assert (one.name, two.name) == (f"a-{digest[:8]}", f"a-{digest[:8]}-2")
        assert out.folder_of(Path("0.svs"), first, digest) == one
        written = PatientOut(values={"age": "old"}, ulceration="unknown", malignant_score_without=None)
        for folder, case in ((one, first), (two, second)):
            out.write(folder, _of(result, id="a", case_id=case.case_id, patient=written))
    with OutputFolder(tmp_path / "out") as out:
        assert out.folder_of(Path("1.svs"), second, digest) == two
        assert out.folder_of(Path("0.svs"), first, digest) == one
        assert out.folder_of(Path("2.svs"), SlideCase("a", "C1", Patient()), digest).name == f"a-{digest[:8]}-3"


def test_patient_values_that_are_not_written_do_not_choose_the_folder(result, tmp_path):
    case = SlideCase("a", "C1", Patient({"age": "old"}, "unknown"), patient_in_output=False)
    with OutputFolder(tmp_path / "out") as out:
        folder = out.folder_of(Path("a.svs"), case, result.slide.digest)
        out.write(folder, _of(result, id="a", case_id="C1", patient=None))
        assert out.folder_of(Path("a.svs"), case, result.slide.digest) == folder


def _of(result: SlideResult, **of: object) -> SlideResult:
    return result.model_copy(update=of).carrying(result.tiles)


def test_the_lock_is_free_again_after_the_run(tmp_path):
    with OutputFolder(tmp_path), pytest.raises(OutputError, match="Another run"):
        OutputFolder(tmp_path)
    with OutputFolder(tmp_path):
        pass
