"""The first slide is opened and planned while the engine is being loaded; what comes of it does not depend on that."""

import threading
from dataclasses import replace

import pytest
from bundles_for_tests import make_bundle

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline import request
from melanoma_infer.pipeline.batch import score_batch
from melanoma_infer.pipeline.flow import score_slides
from melanoma_infer.pipeline.head_start import HeadStart
from melanoma_infer.pipeline.request import RunOptions, SlideRequest
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.settings import Settings
from melanoma_infer.slides.slide import Slide
from melanoma_infer.store.output import OutputFolder


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return Scorer(open_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "rule.mminfer")), "onnxruntime")


@pytest.fixture
def asked(cmu):
    return SlideRequest(cmu, SlideCase("cmu"), Settings(tile_um=512))


@pytest.fixture
def opened(monkeypatch):
    """The names of the threads that opened a slide."""
    whole, threads = request.open_slide, []
    monkeypatch.setattr(
        request, "open_slide", lambda path: (threads.append(threading.current_thread().name), whole(path))[1]
    )
    return threads


def started(scorer, asked):
    return HeadStart(asked, scorer.card, full_digest=False)


def outcome_of(asked, scorer, folder, start=None):
    (outcome,) = score_slides([asked], scorer, OutputFolder(folder), head_start=start)
    return outcome


def test_a_slide_with_a_head_start_is_opened_once_and_has_the_same_result(asked, scorer, opened, tmp_path):
    ahead = outcome_of(asked, scorer, tmp_path / "ahead", started(scorer, asked))
    assert [name.rpartition("_")[0] for name in opened] == ["mminfer-head-start"]
    alone = outcome_of(asked, scorer, tmp_path / "alone")
    assert ahead.result.model_dump_json(exclude={"run"}) == alone.result.model_dump_json(exclude={"run"})
    assert ahead.result.run.timings_ms.keys() == alone.result.run.timings_ms.keys()


def test_the_time_of_a_head_start_is_the_slide_s(asked, scorer):
    start = started(scorer, asked)
    opening = start.opening(asked)
    stages = opening.watch.spent_ms
    assert opening.seconds * 1000 >= stages["open"] + stages["tissue"] > 0
    opening.held.close()


def test_a_head_start_of_another_slide_is_dropped_and_closed(asked, scorer, monkeypatch):
    closed, whole = [], Slide.close
    monkeypatch.setattr(Slide, "close", lambda slide: (closed.append(slide.path), whole(slide))[1])
    start = started(scorer, replace(asked, case=SlideCase("another")))
    assert start.opening(asked) is None
    assert start.opening(asked) is None
    assert closed == [asked.path]


def test_what_fails_in_a_head_start_is_told_in_the_slide_s_turn(asked, scorer, tmp_path):
    (tmp_path / "letter.svs").write_text("no slide")
    letter = replace(asked, path=tmp_path / "letter.svs")
    outcome = outcome_of(letter, scorer, tmp_path / "out", started(scorer, letter))
    assert (outcome.exit_code, outcome.stage) == (outcome_of(letter, scorer, tmp_path / "out").exit_code, "open")
    assert outcome.exit_code


def test_without_a_worker_there_is_no_head_start(asked, scorer, opened, tmp_path):
    batch = score_batch(lambda **_: scorer, tmp_path / "out", RunOptions(), first=(asked, scorer.card))
    batch.load()  # torch or onnxruntime is loaded in this process: it is not forked
    (outcome,) = batch.outcomes([asked])
    assert outcome.result is not None
    assert [name.rpartition("_")[0] for name in opened] == ["mminfer-prepare"]
