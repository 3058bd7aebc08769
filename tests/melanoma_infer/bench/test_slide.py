"""One slide timed: where the time goes, and the sentence about its bottleneck."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from slides_for_tests import smooth, write_svs

from melanoma_infer.bench.chart import Bar, chart
from melanoma_infer.bench.sentences import Target, bound_sentence
from melanoma_infer.bench.slide import BESIDE, IN_TURN, SlideTiming, time_slide
from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import UsageError
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.settings import Settings
from melanoma_infer.slides.openslide_reader import OpenSlideReader

STAGES = {**dict.fromkeys(IN_TURN, 0.1), "infer": 2.0, **dict.fromkeys(BESIDE, 0.5)}
TIMING = SlideTiming(
    reader="openslide 4.0.1",
    engine="openvino",
    precision="int8",
    threads=2,
    rounds=3,
    tiles=100,
    seconds=2.6,
    tiles_per_s=38.5,
    p20=38.0,
    p80=39.0,
    engine_only_tiles_per_s=42.0,
    share_of_engine=0.917,
    stages=STAGES,
    peak_rss_bytes=1 << 29,
    p999_dp=1e-3,
    within_tolerance=True,
)


def throttled(monkeypatch, seconds):
    original = OpenSlideReader.read_region

    def slow(self, level, rect):
        time.sleep(seconds)
        return original(self, level, rect)

    monkeypatch.setattr(OpenSlideReader, "read_region", slow)


def timed(slide, bundle):
    scorer, settings = Scorer(open_bundle(bundle)), Settings(tile_um=32, tissue="all")
    return time_slide(slide, scorer, settings, reader="openslide", rounds=1, engine_seconds=0.2)


def test_a_slow_reader_becomes_the_bottleneck(tmp_path, colour_bundle, monkeypatch):
    slide = write_svs(tmp_path / "s.svs", smooth(512, 256), compression="jpeg")
    before = timed(slide, colour_bundle)
    throttled(monkeypatch, 0.05)
    after = timed(slide, colour_bundle)
    assert before.tiles == after.tiles == 32
    assert after.bound == "wait"
    assert after.share_of_engine < before.share_of_engine
    assert after.stages["read"] >= 32 * 0.05
    assert bound_sentence(after).startswith("Reading (the engine waits for pixels")
    assert bound_sentence(after) != bound_sentence(before)
    assert after.reading_tiles_per_s <= 2 / 0.05 * 1.01


def test_the_stages_in_turn_are_disjoint_parts_of_the_slides_seconds(tmp_path, colour_bundle):
    found = timed(write_svs(tmp_path / "s.svs", smooth(512, 256), compression="jpeg"), colour_bundle)
    assert sum(found.stages[stage] for stage in IN_TURN) <= found.seconds
    assert found.tiles_per_s == pytest.approx(found.tiles / found.seconds)
    assert all(found.stages[stage] > 0 for stage in ("open", "tissue", "infer", "write", "read", "resize"))
    assert found.within_tolerance
    assert found.engine_only_tiles_per_s > 0


@pytest.mark.parametrize("stage", IN_TURN)
def test_the_stage_that_takes_the_most_time_is_named(stage):
    sentence = bound_sentence(replace(TIMING, stages={**STAGES, stage: 50.0}, seconds=52.0))
    assert "is the bottleneck with 96% of the time" in sentence
    words = {
        "infer": "The engine (openvino int8)", "wait": "Reading (", "open": "Opening", "tissue": "Finding the tissue",
        "score": "Aggregating", "gallery": "Reading the gallery's tiles", "write": "Writing",
    }  # fmt: skip
    assert sentence.startswith(words[stage])


@pytest.mark.parametrize(
    ("target", "words"),
    [("4000/day", "within reach: 33231"), ("1384/hour", "within reach: 1385"), ("40000/day", "NOT within reach")],
)
def test_a_target_is_compared_with_what_is_possible(target, words):
    assert words in Target.parse(target).sentence(TIMING)


@pytest.mark.parametrize("target", ["4000", "0/day", "many/day", "4000/week"])
def test_a_target_in_another_form_is_refused(target):
    with pytest.raises(UsageError, match="4000/day"):
        Target.parse(target)


def test_the_length_of_a_bar_is_proportional_to_its_value():
    picture = Image.open(io.BytesIO(chart("Title", [Bar("a", 2.0, "2"), Bar("b", 1.0, "1", told=False)])))
    lengths = [
        sum(picture.getpixel((x, y)) in ((52, 101, 164), (170, 190, 214)) for x in range(960)) for y in (72, 106)
    ]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=3)


def test_the_overhead_of_a_slide_is_all_but_waiting_for_tiles_and_inferring_them():
    assert TIMING.overhead_s == pytest.approx(0.5)  # open, tissue, score, gallery and write


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's parent")
def test_the_peak_memory_is_this_process_s_and_not_its_parent_s():
    held = np.ones(500_000_000, np.uint8)
    code = "from melanoma_infer.bench.slide import peak_rss_bytes; print(peak_rss_bytes())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(ended.stdout) < held.nbytes
    assert int(ended.stdout) > 20_000_000
