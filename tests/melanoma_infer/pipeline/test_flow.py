"""The flow as a whole, from Python: what a caller gets, and what one slide's trouble may cost."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from threading import enumerate as threads
from time import sleep

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card, expected_probability, make_bundle
from kept_for_tests import result_folders, run_records
from PIL import Image
from slides_for_tests import smooth, with_tile_left_out, write_svs

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import MminferError, PatientValueError, SlideUnreadableError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline.flow import score_slide, score_slides
from melanoma_infer.pipeline.request import RunStep, SlideRequest
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.reports import result_json, tiles_csv
from melanoma_infer.result import RunOut
from melanoma_infer.settings import Settings
from melanoma_infer.store.output import OutputFolder, ResultFolder

SETTINGS = Settings(mpp_um=(0.5, 0.5))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """1024 × 768 px at 0.5 µm/px: background, pale tissue, and a dark square as the second tile of the first row."""
    pixels = np.full((768, 1024, 3), 250, np.uint8)
    pixels[:, 256:1024] = (225, 155, 195)
    pixels[0:512, 512:1024] = (120, 40, 90)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def scorer(colour_bundle: Path) -> Scorer:
    return Scorer(open_bundle(colour_bundle))


@pytest.mark.wheel
def test_every_number_of_a_result_can_be_foretold(photo, scorer):
    result = score_slide(photo, scorer, settings=SETTINGS)
    tiles = result.tiles
    assert list(zip(tiles.miny.tolist(), tiles.minx.tolist(), strict=True)) == [(0, 0), (0, 512), (512, 0), (512, 512)]
    whole = np.asarray(Image.open(photo))
    padded = np.full((1024, 1024, 3), 255, np.uint8)
    padded[:768] = whole
    crops = [padded[y : y + 512, x : x + 512] for y in (0, 512) for x in (0, 512)]
    small = np.stack([np.asarray(Image.fromarray(c).resize((64, 64), Image.Resampling.BILINEAR)) for c in crops])
    assert tiles.probabilities[:, 1] == pytest.approx(expected_probability(small), abs=2e-6)
    assert tiles.padded_fraction.tolist() == [0, 0, 0.5, 0.5]
    # top-area-mean: the card's area is one tile's, so the score is the highest-scoring tile's.
    assert result.malignant_score == pytest.approx(tiles.probabilities[1, 1], abs=1e-12)
    assert result.verdict == "suspected"


def test_the_mean_and_the_maximum_are_the_paper_s(photo, scorer):
    mean = score_slide(photo, scorer, settings=Settings(mpp_um=(0.5, 0.5), aggregate="mean"))
    highest = score_slide(photo, scorer, settings=Settings(mpp_um=(0.5, 0.5), aggregate="max"))
    assert mean.malignant_score == pytest.approx(mean.tiles.probabilities[:, 1].mean(), abs=1e-12)
    assert highest.malignant_score == pytest.approx(mean.tiles.probabilities[:, 1].max(), abs=1e-12)


def test_doubling_the_scale_doubles_millimetres(photo, scorer):
    once = score_slide(photo, scorer, settings=Settings(mpp_um=(0.25, 0.25), tile_um=128))
    twice = score_slide(photo, scorer, settings=Settings(mpp_um=(0.5, 0.5), tile_um=256))
    assert twice.tissue_mm2 == pytest.approx(4 * once.tissue_mm2, rel=0.02)
    assert np.array_equal(once.tiles.minx, twice.tiles.minx)
    assert np.array_equal(once.tiles.probabilities, twice.tiles.probabilities)


def test_class_normalisation_of_the_card_is_applied(photo, tmp_path):
    even = {"trained": {"normal": 0.5, "tumour": 0.5}, "stated": {"normal": 0.99, "tumour": 0.01}}
    rarer = Scorer(open_bundle(make_bundle(tmp_path / "rare.mminfer", colour_rule_card(class_priors=even))))
    plain = Scorer(open_bundle(make_bundle(tmp_path / "plain.mminfer")))
    normal, p = score_slide(photo, plain, settings=SETTINGS).tiles.probabilities.T
    q = score_slide(photo, rarer, settings=SETTINGS).tiles.probabilities[:, 1]
    assert q == pytest.approx(p * 0.01 / (p * 0.01 + normal * 0.99), rel=1e-9)


def test_progress_counts_every_tile(photo, scorer):
    seen: list[tuple[int, int]] = []
    score_slide(photo, scorer, settings=SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_timings_are_told_by_stage(photo, scorer):
    timings = score_slide(photo, scorer, settings=SETTINGS).run.timings_ms
    assert {"open", "tissue", "wait", "infer", "score"} <= set(timings)
    assert all(ms >= 0 for ms in timings.values())


@pytest.mark.parametrize("patient", [{"age": 200}, {"sex": "x"}, {"shoe_size": 42}])
def test_patient_values_are_checked_from_python_too(photo, patient):
    with pytest.raises(PatientValueError):
        score_slide(photo, Scorer(open_bundle("demo")), settings=SETTINGS, patient=patient)


def test_a_slide_that_goes_away_while_it_is_read_is_unreadable(photo, scorer, monkeypatch):
    from melanoma_infer.slides.base import RegionUnreadableError
    from melanoma_infer.slides.image_reader import ImageReader

    read, calls = ImageReader.read_region, []

    def failing(self: ImageReader, level: int, rect_level: object) -> np.ndarray:
        calls.append(rect_level)
        if len(calls) > 1:  # the plane of this image is one block
            raise RegionUnreadableError
        return read(self, level, rect_level)

    monkeypatch.setattr(ImageReader, "read_region", failing)
    with pytest.raises(SlideUnreadableError, match="None of the slide's 4 tiles can be read"):
        score_slide(photo, scorer, settings=SETTINGS)


def _requests(*paths: Path) -> list[SlideRequest]:
    return [SlideRequest(path, SlideCase(path.stem), SETTINGS) for path in paths]


@pytest.mark.parametrize(
    ("raised", "code"), [(MemoryError(), 175), (ZeroDivisionError("oops"), 1), (SlideUnreadableError("gone"), 10)]
)
def test_whatever_happens_in_one_slide_stays_there(photo, scorer, tmp_path, monkeypatch, raised, code):
    import melanoma_infer.tiles.plan as plan

    other = photo.with_name("other.png")
    other.write_bytes(photo.read_bytes())
    find = plan.find_tissue

    def sometimes(*arguments: object) -> object:
        if not hit:
            hit.append(1)
            raise raised
        return find(*arguments)

    hit: list[int] = []
    monkeypatch.setattr(plan, "find_tissue", sometimes)
    outcomes = list(score_slides(_requests(photo, other), scorer, OutputFolder(tmp_path / "out")))
    assert [outcome.exit_code for outcome in outcomes] == [code, 0]
    assert outcomes[0].stage == "tissue"
    assert outcomes[1].result is not None
    assert outcomes[1].result.verdict == "suspected"


def _copies(photo: Path, count: int) -> list[Path]:
    copies = [photo.with_name(f"copy-{number}.png") for number in range(count)]
    for copy in copies:
        copy.write_bytes(photo.read_bytes())
    return copies


def test_the_next_slide_is_prepared_while_one_is_in_the_engine(photo, scorer, tmp_path, monkeypatch):
    import melanoma_infer.tiles.plan as plan

    find, found = plan.find_tissue, []
    second_found = Event()

    def noted(*arguments):
        found.append(1)
        if len(found) == 2:
            second_found.set()
        return find(*arguments)

    monkeypatch.setattr(plan, "find_tissue", noted)
    waited: list[bool] = []

    def progress(step: RunStep) -> None:
        if not waited and step.tiles_done == 1:  # the first slide's first tile
            waited.append(second_found.wait(20))

    out = OutputFolder(tmp_path / "out")
    outcomes = list(score_slides(_requests(*_copies(photo, 3)), scorer, out, progress=progress))
    assert waited == [True]
    assert [outcome.id for outcome in outcomes] == ["copy-0", "copy-1", "copy-2"]


def test_a_slide_is_written_while_the_next_is_in_the_engine_and_told_before_that_one_ends(
    photo, scorer, tmp_path, monkeypatch
):
    write, in_engine, written = ResultFolder.write, Event(), Event()
    together: list[bool] = []
    tiles = 0

    def slow(self, result):
        together.append(in_engine.wait(20))
        write(self, result)
        written.set()

    def progress(step: RunStep) -> None:
        nonlocal tiles
        tiles += step.doing == "tiles"
        if tiles > 4:  # those of the second slide
            in_engine.set()
            assert written.wait(20)
            sleep(0.05)

    monkeypatch.setattr(ResultFolder, "write", slow)
    out = OutputFolder(tmp_path / "out")
    outcomes = score_slides(_requests(*_copies(photo, 2)), scorer, out, progress=progress)
    first = next(outcomes)
    assert (first.id, together) == ("copy-0", [True])
    assert 4 < tiles < 8
    assert [outcome.id for outcome in outcomes] == ["copy-1"]


def test_a_run_tells_the_number_of_each_slide_its_tiles_and_when_they_are_done(photo, scorer, tmp_path):
    seen: list[RunStep] = []
    requests, out = _requests(*_copies(photo, 2)), OutputFolder(tmp_path / "out")
    for _ in range(2):  # the second time both are finished before
        list(score_slides(requests, scorer, out, progress=seen.append))
    steps = [[RunStep(slide, "tiles", done, 4) for done in (1, 2, 3, 4)] for slide in (1, 2)]
    first, second = RunStep(1, "write"), RunStep(2, "write")
    assert seen == [*steps[0], first, *steps[1], second, first, second]


def test_who_stops_early_leaves_no_thread_and_no_half_of_a_slide(photo, scorer, tmp_path):
    outcomes = score_slides(_requests(*_copies(photo, 4)), scorer, OutputFolder(tmp_path / "out"))
    first = next(outcomes)
    outcomes.close()
    assert [thread.name for thread in threads() if thread.name.startswith("mminfer-")] == []
    assert first.folder in result_folders(tmp_path / "out")
    left = [path for path in (tmp_path / "out").iterdir() if path.name not in {".key", ".lock", ".locks"}]
    assert sorted(left) == result_folders(tmp_path / "out")
    assert list((tmp_path / "out" / ".locks").iterdir()) == []


def test_an_interruption_ends_the_reading_of_every_slide(photo, scorer, tmp_path):
    def interrupted(_step: RunStep) -> None:
        raise KeyboardInterrupt

    many = Settings(mpp_um=(0.5, 0.5), stride_um=64)
    requests = [replace(each, settings=many) for each in _requests(*_copies(photo, 3))]
    out = OutputFolder(tmp_path / "out")
    with (
        pytest.raises(KeyboardInterrupt) as kept,
        closing(score_slides(requests, scorer, out, progress=interrupted)) as outcomes,
    ):
        next(outcomes)
    assert kept.value.__traceback__ is not None  # its frames hold the slides, so nothing is closed by being forgotten
    reading = [thread for thread in threads() if thread.name.startswith("mminfer-")]
    for thread in reading:
        thread.join(5)
    assert not any(thread.is_alive() for thread in reading)


def test_an_interruption_is_not_a_slide_s_failure(photo, scorer, tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("melanoma_infer.tiles.plan.find_tissue", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(score_slides(_requests(photo), scorer, OutputFolder(tmp_path / "out")))


def test_a_slide_whose_files_are_being_written_at_an_interruption_is_still_told(photo, scorer, tmp_path, monkeypatch):
    write, writing = ResultFolder.write, Event()

    def slow(self, result):
        writing.set()
        sleep(0.2)
        write(self, result)

    def progress(step: RunStep) -> None:
        if step.slide == 2:
            assert writing.wait(20)
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultFolder, "write", slow)
    out, told = OutputFolder(tmp_path / "out"), []
    outcomes = score_slides(_requests(*_copies(photo, 3)), scorer, out, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        told.extend(outcomes)  # keeps what came before the interruption
    assert [outcome.folder for outcome in told] == result_folders(out.path) != []


def test_a_run_is_written_down_for_programs(photo, scorer, tmp_path):
    from melanoma_infer.store.run_record import RunRecord

    out = OutputFolder(tmp_path / "out")
    with RunRecord(out, scorer.bundle, scorer.numerics, command=["score"]) as record:
        for outcome in score_slides(_requests(photo, tmp_path / "gone.png"), scorer, out):
            record.add(outcome)
        assert [run["state"] for run in run_records(out.path)] == ["running"]
    (run,) = run_records(out.path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json", record.path.name)
    assert (run["state"], run["started"] <= run["finished"]) == ("finished", True)
    assert run["bundle"]["digest"] == scorer.bundle.digest
    assert run["versions"]["openvino"]
    assert [(row["id"], row["exit_code"]) for row in run["slides"]] == [("photo", 0), ("gone", 10)]


def test_the_error_tree_has_one_base_and_a_code_for_each_leaf():
    import melanoma_infer.errors as errors

    leaves = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MminferError)]
    leaves.remove(MminferError)
    drawn = errors.__doc__ or ""
    assert len({leaf.exit_code for leaf in leaves}) == len(leaves)
    for leaf in leaves:
        assert any(leaf.__name__ in line and f" {leaf.exit_code} " in line for line in drawn.splitlines()), leaf


@pytest.mark.parametrize("stride_um", [256, 64])
def test_the_gallery_shows_the_pixels_that_were_scored(photo, scorer, stride_um):
    """Four tiles are kept, a hundred are read again: either way the picture gives the score that stands beside it."""
    result = score_slide(photo, scorer, settings=Settings(mpp_um=(0.5, 0.5), stride_um=stride_um))
    assert len(result.gallery) == min(10, len(result.tiles))
    for shown in result.gallery:
        said = result.tiles.probabilities[shown.row, 1]
        assert said == pytest.approx(expected_probability(shown.pixels[None])[0], abs=2e-6)


@pytest.fixture(scope="module")
def in_order(cmu):
    """By engine: what a slide's tiles give in their order, through OpenSlide, on two threads."""
    return {engine: _tables(cmu, engine, "openslide", 2) for engine in ("openvino", "onnxruntime")}


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("reader", ["openslide", "tiff"])
@pytest.mark.parametrize("threads", [1, 4])
def test_reader_threads_and_the_tiles_order_change_no_byte_of_the_result(
    cmu, in_order, monkeypatch, engine, reader, threads
):
    import melanoma_infer.pipeline.flow as flow

    read_tiles = flow.read_tiles

    def shuffled(slide, plan, feed, **options):
        order = np.random.default_rng(threads).permutation(len(plan.tiles))
        assert not np.array_equal(order, np.sort(order))
        return read_tiles(slide, plan, feed, tiles=[plan.tiles[row] for row in order], **options)

    monkeypatch.setattr(flow, "read_tiles", shuffled)
    assert _tables(cmu, engine, reader, threads) == in_order[engine]


def _tables(path: Path, engine: str, reader: str, threads: int) -> tuple[object, ...]:
    scorer = Scorer(open_bundle("demo"), engine, threads=threads)
    result = score_slide(path, scorer, settings=Settings(tile_um=256), reader=reader)
    assert result.slide.reader.split()[0] == reader
    said = json.loads(result_json.render(result.model_copy(update={"run": RunOut()})))
    said["slide"].pop("reader")
    said.pop("created", None)
    arrays = vars(result.tiles) | vars(result.view.evidence)
    return said, tiles_csv.render(result), {name: np.asarray(values).tobytes() for name, values in arrays.items()}


def test_a_tile_that_the_file_leaves_out_counts_as_never_scanned(tmp_path, scorer):
    whole = write_svs(tmp_path / "whole.svs", smooth(1024, 512), compression="jpeg")
    path = with_tile_left_out(whole, tmp_path / "out.svs", tile=2)  # columns 512 to 767, rows 0 to 255
    for reader in ("auto", "tiff"):
        result = score_slide(path, scorer, settings=Settings(tissue="all"), reader=reader)
        assert result.tiles.padded_fraction.tolist() == [0, 0.25]


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_a_slide_is_opened_once_for_its_facts_and_once_for_each_reading_thread(cmu, tmp_path, monkeypatch, reader):
    from melanoma_infer.slides.openslide_reader import OpenSlideReader
    from melanoma_infer.slides.tiff_reader import TiffReader

    opened: list[str] = []
    for kind in (OpenSlideReader, TiffReader):

        def counted(self, *arguments, original=kind.__init__, name=kind.__name__):
            opened.append(name)
            original(self, *arguments)

        monkeypatch.setattr(kind, "__init__", counted)
    request = SlideRequest(cmu, SlideCase("cmu"), Settings(tile_um=256), reader)
    (outcome,) = score_slides([request], Scorer(open_bundle("demo"), threads=2), OutputFolder(tmp_path / "out"))
    assert outcome.exit_code == 0
    facts = opened.count("OpenSlideReader") if reader == "tiff" else opened.count("OpenSlideReader") - 2
    threads_of_tiff = opened.count("TiffReader")
    assert (facts, threads_of_tiff) == (1, 2 if reader == "tiff" else 0)
