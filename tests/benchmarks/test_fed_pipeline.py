"""The benchmark of the fed pipeline: the device keeps its rate, wrong answers are noticed, the arithmetic is right."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import fed_pipeline

from melanoma_infer.engines.device import Stream


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while something sleeps."""
    now = [100.0]
    monkeypatch.setattr(fed_pipeline, "perf_counter", lambda: now[0])
    monkeypatch.setattr(fed_pipeline, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_the_device_computes_one_batch_after_the_other_at_its_rate(clock):
    golden = {"score": np.array([3, 5], np.float32)}
    device = fed_pipeline.SleepingDevice(1000, golden)
    tiles, outputs = device.buffer((8, 2, 2, 3), np.uint8), {"score": device.buffer((8,), np.float32)}
    program, given = device.program(tiles, outputs, 8), np.zeros((3, 2, 2, 3), np.uint8)
    given[:, 0, 0, 0] = (1, 0, 1)
    device.upload(given, tiles, 2)
    device.launch(program)
    device.launch(program)
    device.wait(Stream.DOWNLOAD, device.record(Stream.COMPUTE))
    device.synchronize(device.record(Stream.DOWNLOAD))
    assert clock[0] == pytest.approx(100.016)
    assert device.busy_s == pytest.approx(0.016)
    assert outputs["score"].tolist() == [3, 3, 5, 3, 5, 3, 3, 3]


def test_a_run_scores_every_tile_and_takes_as_long_as_the_device(clock):
    (run,) = fed_pipeline.timed_runs(1000, 0.6, 1)
    assert run.tiles == 640  # whole batches
    assert run.wall_s == pytest.approx(0.64)
    assert run.limiting == "device"


def test_outputs_of_another_tile_are_noticed(monkeypatch):
    monkeypatch.setattr(fed_pipeline.SleepingDevice, "upload", lambda *_: None)
    with pytest.raises(SystemExit, match="another tile's outputs"):
        fed_pipeline.timed_runs(100_000, 0.01, 1)


@pytest.mark.parametrize(
    ("host_us", "most", "h100", "l4"),
    [(40.0, "25,000", "100% to 100%", "100% to 100%"), (200.0, "5,000", "67% to 83%", "100% to 100%")],
)
def test_the_share_of_a_gpu_follows_from_the_host_s_time(host_us, most, h100, l4):
    first, *gpus = fed_pipeline.arithmetic(host_us)
    assert f"at most {most} tiles/s" in first
    assert [gpu.split(":")[1].split(" of ")[0].strip() for gpu in gpus] == [h100, l4]
    assert all("Arithmetic" in line for line in (first, *gpus))


def test_the_limiting_step_is_named():
    def run(**times):
        return fed_pipeline.Run(**{"tiles": 1, "readers": 1, "wall_s": 1.0, "host_s": 0, "engine_thread_s": 0,
                                   "table_s": 0, "wait_s": 0, "busy_s": 0} | times).limiting  # fmt: skip

    assert run(busy_s=0.96, wait_s=0.7) == "device"
    assert run(busy_s=0.5, wait_s=0.7) == "readers' queue"
    assert run(busy_s=0.5, wait_s=0.3) == "engine's thread"
