"""The rates of a GPU: the bare network's by batch size, a row for what loads, and a failure for what is wrong."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fed_pipeline
import gpu_rates

from melanoma_infer.errors import ParityError


@pytest.fixture
def rates(monkeypatch, skin):
    """Runs the script on a CPU's engine in a GPU's place, and gives what it returns and its rows."""
    monkeypatch.setattr(gpu_rates, "SECONDS", 0.01)
    monkeypatch.setattr(gpu_rates, "ROUNDS", 1)
    monkeypatch.setattr(gpu_rates, "ON_GPU", ("openvino", "triton"))
    monkeypatch.setattr(gpu_rates, "bare_rates", lambda engine: {1: 50.0, 8: 90.0})

    def run(saved: Path, precisions=("fp32",)):
        monkeypatch.setattr(gpu_rates, "PRECISIONS", precisions)
        monkeypatch.setattr(sys, "argv", ["gpu_rates.py", str(skin), "--save", str(saved)])
        code = gpu_rates.main()
        return code, list(csv.DictReader(saved.read_text().splitlines())) if saved.is_file() else []

    return run


def test_what_loads_is_a_row_and_what_does_not_is_named(rates, tmp_path, capsys):
    code, (row,) = rates(tmp_path / "rows.csv")
    assert code == 0
    assert (row["engine"], row["precision"], row["bare_1"], row["bare_8"]) == ("openvino", "fp32", "50.0", "90.0")
    assert float(row["slide_tiles_per_s"]) > 0
    assert int(row["slide_tiles"]) > 0
    assert "triton fp32: " in capsys.readouterr().err


def test_wrong_numbers_are_a_row_and_a_failure(rates, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ParityError("far off")

    monkeypatch.setattr(gpu_rates, "Scorer", refuse)
    code, found = rates(tmp_path / "rows.csv")
    assert code == 1
    assert {row["remarks"] for row in found} == {"far off"}


def test_nothing_that_runs_is_a_failure(rates, tmp_path):
    assert rates(tmp_path / "rows.csv", precisions=()) == (1, [])


def test_the_bare_rate_is_the_device_s(monkeypatch):
    now = [100.0]
    for module in (fed_pipeline, gpu_rates):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    monkeypatch.setattr(fed_pipeline, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    golden = fed_pipeline.open_bundle("demo").golden
    engine = fed_pipeline.SleepingEngine(1000, golden.outputs, golden.tiles.shape[1])
    assert gpu_rates.bare_rates(engine) == pytest.approx(dict.fromkeys(engine.buckets, 1000.0))
