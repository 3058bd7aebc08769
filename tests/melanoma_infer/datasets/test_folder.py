"""The folder of a data set is there whole or not at all, and replaces nothing that is not one."""

import errno

import pytest

from melanoma_infer.datasets.folder import new_folder
from melanoma_infer.errors import OutputError, Stopped, UsageError


def filled(out, text="new", *, overwrite=False):
    with new_folder(out, overwrite=overwrite) as folder:
        (folder / "dataset.json").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_renamed_into_place_and_replaces_one_only_if_asked(tmp_path):
    out = tmp_path / "deep" / "data"
    filled(out)
    with pytest.raises(UsageError, match=r"data is a data set already. Give --overwrite to replace it"):
        filled(out, "newer")
    (out / "tiles").mkdir()
    (out / "tiles" / "old.png").write_text("")
    filled(out, "newer", overwrite=True)
    assert (names(out), (out / "dataset.json").read_text()) == (["dataset.json"], "newer")
    assert names(out.parent) == ["data"]


def test_what_is_not_the_data_sets_is_not_removed_with_it(tmp_path):
    out = tmp_path / "data"
    filled(out)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"--overwrite would remove thesis.txt from data"):
        filled(out, "newer", overwrite=True)
    assert ((out / "thesis.txt").read_text(), (out / "dataset.json").read_text()) == ("mine", "new")


def test_an_empty_folder_is_taken_and_any_other_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "empty")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    for out in (tmp_path / "home", tmp_path / "home" / "thesis.txt"):
        with pytest.raises(UsageError, match="exists and is no data set"):
            filled(out, overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, Stopped(143)])
def test_what_fails_or_is_stopped_leaves_nothing_new(tmp_path, stop):
    out = tmp_path / "data"
    filled(out, "old")
    with pytest.raises(BaseException), new_folder(out, overwrite=True) as folder:  # noqa: B017, PT011, PT012
        (folder / "tiles.csv").write_text("half")
        raise stop
    assert names(tmp_path) == ["data"]
    assert (out / "dataset.json").read_text() == "old"


def test_what_a_killed_run_left_is_cleared_and_the_old_one_comes_back(tmp_path):
    """Killed while writing; and killed between the two renames that put the new folder into the old one's place."""
    out = tmp_path / "data"
    (tmp_path / ".data.part").mkdir()
    (tmp_path / ".data.part" / "half.png").write_text("")
    filled(out, "old")
    assert names(out) == ["dataset.json"]
    out.rename(tmp_path / ".data.old")
    with pytest.raises(UsageError, match="is a data set already"):
        filled(out, "new")
    assert (out / "dataset.json").read_text() == "old"
    assert names(tmp_path) == ["data"]


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(OutputError, match=r"The data set cannot be written: there is no space left"),
        new_folder(tmp_path / "data", overwrite=False),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a file is where a folder has to be"):
        filled(tmp_path / "file" / "data")
