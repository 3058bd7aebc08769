"""Nothing replaces a result: not another slide, patient, model or setting, not another run at the same time."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
from pathlib import Path
from threading import Event, Thread

import pytest
from kept_for_tests import same_bytes
from results_for_tests import hand_made_result

from melanoma_infer.errors import OutputError
from melanoma_infer.records import Identity
from melanoma_infer.reports import writing
from melanoma_infer.reports.writing import REPORTS
from melanoma_infer.result import SlideResult
from melanoma_infer.store.output import OutputFolder, ResultFolder

DIGEST = "5" * 64
MTIME_NS = 7
SAME = Identity(DIGEST, 1000, MTIME_NS, 1)


def of(key: str, score: float = 0.8349, mtime_ns: int = MTIME_NS) -> SlideResult:
    """A result of the run with this key."""
    result = hand_made_result(malignant_score=score)
    run = result.run.model_copy(update={"key": key, "slide_mtime_ns": mtime_ns})
    return result.model_copy(update={"run": run})


def claim(out: OutputFolder, key: str, slide: str = "a.svs", name: str = "slide-7") -> ResultFolder:
    return out.claim(name, DIGEST, key, Path(slide), Event())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_folder_is_named_by_id_slide_and_run(tmp_path):
    out = OutputFolder(tmp_path / "out")
    key = out.run_key({"age": "old"})
    with claim(out, key) as mine, claim(out, key, name=DIGEST[:8]) as hidden:
        assert mine.path == tmp_path / "out" / f"slide-7-55555555-{key[:8]}"
        assert hidden.path.name == f"55555555-{key[:8]}"


def test_the_run_key_is_an_hmac_under_a_secret_that_others_may_not_read(tmp_path):
    out = OutputFolder(tmp_path)
    secret = (tmp_path / ".key").read_bytes()
    assert len(secret) == 32
    assert stat.S_IMODE((tmp_path / ".key").stat().st_mode) == 0o600
    text = json.dumps({"a": 1, "b": [2]}).encode()
    assert out.run_key({"b": [2], "a": 1}) == hmac.new(secret, text, hashlib.sha256).hexdigest()
    assert OutputFolder(tmp_path).run_key({"a": 1}) == out.run_key({"a": 1})  # the secret is kept
    assert OutputFolder(tmp_path / "other").run_key({"a": 1}) != out.run_key({"a": 1})


def test_a_slide_is_finished_only_if_it_is_unchanged_and_all_files_are_there(tmp_path):
    out = OutputFolder(tmp_path)
    with claim(out, "k" * 64) as mine:
        assert mine.finished(SAME) is None
        mine.write(of("k" * 64))
        assert mine.finished(SAME) is not None
        assert mine.finished(Identity(DIGEST, 1000, MTIME_NS + 1, 1)) is None
        archive = (mine.path / "tiles.npz").read_bytes()
        (mine.path / "tiles.npz").write_bytes(archive[:-1])
        assert mine.finished(SAME) is None
        (mine.path / "tiles.npz").write_bytes(archive)
        assert mine.finished(SAME) is not None
        (mine.path / "tiles.geojson").write_bytes(b"")
        assert mine.finished(SAME) is None
        (mine.path / "tiles.geojson").unlink()
        assert mine.finished(SAME) is None


def test_another_result_whose_name_begins_alike_is_not_replaced(tmp_path):
    out = OutputFolder(tmp_path)
    with claim(out, "a" * 64) as first:
        first.write(of("a" * 64))
    with claim(out, "a" * 8 + "b" * 56) as second:
        assert second.path.name == f"{first.path.name}-2"


def test_two_slides_of_one_name_with_the_same_bytes_have_two_folders(tmp_path):
    out = OutputFolder(tmp_path)
    with claim(out, "k", "a/1.svs") as first, claim(out, "k", "b/1.svs") as second:
        assert second.path.name == f"{first.path.name}-2"
    with claim(out, "k", "b/1.svs") as again:
        assert again.path == second.path


def test_what_is_written_over_is_moved_with_its_time_and_stays_as_it_was(tmp_path):
    out = OutputFolder(tmp_path)
    with claim(out, "k") as mine:
        kept = []
        for score in (0.1, 0.2, 0.3):
            mine.write(of("k", score))
            kept.append(same_bytes(mine.path))
    assert names(tmp_path / "replaced") == [
        f"{mine.path.name}-20261129T062311Z",
        f"{mine.path.name}-20261129T062311Z-2",
    ]
    assert [same_bytes(tmp_path / "replaced" / name) for name in names(tmp_path / "replaced")] == kept[:2]
    assert same_bytes(mine.path) == kept[2]


@pytest.mark.parametrize("broken", list(REPORTS))
def test_a_failure_at_any_file_leaves_the_old_result_whole_and_nothing_of_the_new(tmp_path, monkeypatch, broken):
    out = OutputFolder(tmp_path)
    with claim(out, "k") as mine:
        mine.write(of("k", 0.1))
        before, write = same_bytes(mine.path), writing.write_output

        def fail(path: Path, content: bytes) -> None:
            if path.name == broken:
                raise OutputError("full")
            write(path, content)

        monkeypatch.setattr(writing, "write_output", fail)
        with pytest.raises(OutputError):
            mine.write(of("k", 0.2))
        assert same_bytes(mine.path) == before
    assert list(tmp_path.glob("*.part")) == list(tmp_path.glob(".*.part")) == []
    assert not (tmp_path / "replaced").exists()


def test_what_a_killed_run_left_is_not_in_the_way(tmp_path):
    out = OutputFolder(tmp_path)
    with claim(out, "k") as mine:
        aside = tmp_path / f".{mine.path.name}.part"
        aside.mkdir()
        (aside / "old.txt").write_text("")
        mine.write(of("k"))
    assert set(names(mine.path)) == set(REPORTS)
    assert not aside.exists()


def test_a_second_run_waits_for_the_result_and_then_finds_it(tmp_path):
    first, found = claim(OutputFolder(tmp_path), "k"), []

    def second() -> None:
        with claim(OutputFolder(tmp_path), "k") as folder:
            found.append(folder.finished(SAME))

    other = Thread(target=second)
    other.start()
    other.join(0.5)
    assert other.is_alive()
    first.write(of("k"))
    first.close()
    other.join(30)
    assert [result is not None for result in found] == [True]
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_run_that_is_stopped_waits_no_longer(tmp_path):
    stopping = Event()
    stopping.set()
    with claim(OutputFolder(tmp_path), "k"), pytest.raises(OutputError, match="another run"):
        OutputFolder(tmp_path).claim("slide-7", DIGEST, "k", Path("a.svs"), stopping)


def test_other_results_may_be_made_at_the_same_time(tmp_path):
    with claim(OutputFolder(tmp_path), "k"), claim(OutputFolder(tmp_path), "l") as other:
        other.write(of("l"))
    assert names(tmp_path) == [other.path.name]
