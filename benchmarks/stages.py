"""Times every stage of a slide on its own: ``python -m pytest benchmarks/stages.py``, with pytest-benchmark's options.

``--benchmark-autosave`` and ``--benchmark-compare`` show what a change costs. Only times from the same run can be
compared, because machines are shared. The slide is the first one in the folder MMINFER_TEST_SLIDES.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.reports.writing import REPORTS
from melanoma_infer.result import SlideResult
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.pixels import read_tile
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles
from melanoma_infer.tiles.tissue import find_tissue

SETTINGS = Settings(tile_um=256)
READERS = ("openslide", "tiff")


@pytest.fixture(scope="module")
def slide() -> Path:
    """A real slide."""
    found = sorted(Path(os.environ.get("MMINFER_TEST_SLIDES", "nowhere")).glob("*.svs"))
    if not found:
        pytest.skip("MMINFER_TEST_SLIDES is not a folder with an .svs slide")
    return found[0]


@pytest.fixture(scope="module")
def bundle():
    """The bundle that comes with the package."""
    return open_bundle("demo")


@pytest.fixture(scope="module")
def result(slide, bundle):
    """The slide's result, for the stages after the engine."""
    return score_slide(slide, Scorer(bundle), settings=SETTINGS)


def test_open(benchmark, slide):
    benchmark(lambda: open_slide(slide).close())


def test_tissue(benchmark, slide, bundle):
    with open_slide(slide) as opened:
        scale = plan_slide(opened, bundle.card, SETTINGS).scale.scale
        benchmark(find_tissue, opened, scale, SETTINGS.tissue)


@pytest.mark.parametrize("reader", READERS)
def test_plan(benchmark, slide, bundle, reader):
    def plan() -> int:
        with open_slide(slide) as opened:
            return len(plan_slide(opened, bundle.card, SETTINGS, reader=reader).tiles)

    assert benchmark(plan)


@pytest.mark.parametrize("reader", READERS)
def test_read_one_tile(benchmark, slide, bundle, reader):
    with open_slide(slide) as opened:
        plan = plan_slide(opened, bundle.card, SETTINGS, reader=reader)
        with plan.source.open(slide) as handle:
            assert benchmark(read_tile, handle, plan.tiles[len(plan.tiles) // 2], plan.reading).pixels is not None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reader", READERS)
def test_read_all_tiles(benchmark, slide, bundle, reader, threads):
    with open_slide(slide) as opened:
        plan = plan_slide(opened, bundle.card, SETTINGS, reader=reader)

        def read() -> int:
            with read_tiles(opened, plan, Feed(threads)) as pixels:
                return len(list(pixels))

        assert benchmark(read) == len(plan.tiles)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_infer_the_golden_tiles(benchmark, bundle, engine, precision):
    try:
        loaded = load_engine(bundle, engine, precision=precision).engine
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    assert len(benchmark(loaded.infer, bundle.golden.tiles)["probabilities"]) == len(bundle.golden.tiles)


def test_make_the_result(benchmark, slide, bundle):
    scorer = Scorer(bundle)
    with open_slide(slide) as opened:
        plan = plan_slide(opened, bundle.card, SETTINGS)
        with read_tiles(opened, plan, scorer.feed) as pixels:
            results = list(scorer.infer(pixels))

    def make() -> SlideResult:
        return slide_result(plan, tile_table(results, bundle), SlideCase("slide"), bundle, scorer.numerics)

    assert benchmark(make).tiles_counted.ok


@pytest.mark.parametrize("report", REPORTS)
def test_draw_a_report(benchmark, result, report):
    assert benchmark(REPORTS[report], result)
