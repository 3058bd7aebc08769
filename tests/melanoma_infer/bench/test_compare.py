"""Two saved runs: ranges that do not overlap are faster or slower, overlapping ones are noise."""

import json

import pytest

from melanoma_infer.bench.compare import Change, changes, earlier_run
from melanoma_infer.errors import UsageError


def run(*rows, **more):
    named = [
        {"engine": name, "precision": "fp32", "tiles_per_s": rate, "p20": rate - 1, "p80": rate + 1}
        for name, rate in rows
    ]
    return {"kind": "engines", "tile_px": 512, "threads": 2, "rows": named, **more}


def test_only_ranges_that_do_not_overlap_are_a_change():
    before = run(("a", 10.0), ("b", 10.0), ("c", 10.0), ("gone", 1.0))
    now = run(("a", 15.0), ("b", 5.0), ("c", 11.5), ("new", 1.0))
    assert list(changes(now, before)) == [
        Change("a fp32", 1.5, "faster"),
        Change("b fp32", 0.5, "slower"),
        Change("c fp32", 1.15, "noise"),
    ]


@pytest.mark.parametrize(("name", "value"), [("tile_px", 224), ("threads", 1)])
def test_runs_with_another_tile_size_or_number_of_threads_are_not_compared(name, value):
    with pytest.raises(UsageError, match=name):
        list(changes(run(("a", 1.0)), run(("a", 1.0), **{name: value})))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": []}'])
def test_a_file_that_save_did_not_write_is_refused(tmp_path, text):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(UsageError, match="--save"):
        earlier_run(tmp_path / "old.json", "engines")


def test_a_saved_run_is_read(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps(run(("a", 1.0))))
    assert earlier_run(tmp_path / "old.json", "engines") == run(("a", 1.0))
