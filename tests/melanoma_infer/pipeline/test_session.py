"""A scan in progress against the same slide from a file: the same rows, whatever the order of its pixels."""

from __future__ import annotations

import csv
import gc
import io
import os
from threading import Event, Thread
from threading import enumerate as threads

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scans_for_tests import SCALE_UM, frames, section, strips
from slides_for_tests import write_tiff

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import MemoryExhaustedError, MminferError, ScanBusyError, SlideUnreadableError, UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scan_options import ScanOptions
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.reports import tiles_csv
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.settings import Settings

WIDTH, HEIGHT = 2101, 1700
GEOMETRIES = {
    "raw pixels": ({"resize": "pillow-bilinear"}, {}),
    "block means": ({"resize": "reduce-bilinear"}, {}),
    "small tiles": ({"resize": "reduce-bilinear"}, {"tile_um": 61.0}),
    "overlapping tiles": ({"resize": "reduce-bilinear"}, {"stride_um": 100.0}),
    "all tiles": ({"resize": "reduce-bilinear"}, {"tissue": "all"}),
    "equalised": ({"resize": "reduce-bilinear", "histogram_equalisation": True}, {}),
}


@pytest.fixture(scope="module")
def pixels():
    return section(WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def slide(pixels, tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("slides") / "slide.tiff", pixels, mpp=SCALE_UM)


@pytest.fixture(scope="module")
def scorer_of(tmp_path_factory):
    """Scorers by what differs in the card, made once."""
    made = {}

    def scorer(**changes):
        key = str(changes)
        if key not in made:
            card = colour_rule_card(**({"read_from": "level0"} | changes))
            bundle = make_bundle(tmp_path_factory.mktemp("bundles") / f"{len(made)}.mminfer", card)
            made[key] = Scorer(open_bundle(bundle), "onnxruntime", threads=1)
        return made[key]

    return scorer


@pytest.fixture(scope="module")
def scorer(scorer_of):
    return scorer_of(resize="reduce-bilinear")


def rows(result):
    return list(csv.DictReader(io.StringIO(tiles_csv.render(result).decode())))


def assert_same_tiles(streamed, file):
    """Equal tables, but for 1e-6 in the probabilities."""
    assert len(rows(streamed)) == len(rows(file)) > 0
    for ours, theirs in zip(rows(streamed), rows(file), strict=True):
        for column, value in theirs.items():
            if column.startswith("prob_"):
                assert float(ours[column]) == pytest.approx(float(value), abs=1e-6)
            else:
                assert ours[column] == value, column


def scanned(scorer, pixels, rects, *, size=(WIDTH, HEIGHT), settings=None, **options):
    with scorer.session(SCALE_UM, size, settings=settings, options=ScanOptions(**options)) as scan:
        for frame in frames(pixels, rects):
            scan.push(*frame)
    return scan.close()


def whole(scan, pixels):
    scan.push(pixels, 0, 0)
    return scan.close()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_shuffled_overlapping_strips_give_the_rows_of_the_file(name, slide, pixels, scorer_of):
    card, changes = GEOMETRIES[name]
    scorer, chosen = scorer_of(**card), Settings(**changes)
    file = score_slide(slide, scorer, settings=chosen)
    for size in ((WIDTH, HEIGHT), None):
        streamed = scanned(scorer, pixels, strips(WIDTH, HEIGHT, seed=1), size=size, settings=chosen)
        assert_same_tiles(streamed, file)
        assert streamed.tissue_mm2 == file.tissue_mm2
        assert streamed.malignant_score == pytest.approx(file.malignant_score, abs=1e-6)
        assert [region.outline for region in streamed.regions] == [region.outline for region in file.regions]
        assert [tile.row for tile in streamed.gallery] == [tile.row for tile in file.gallery]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), across=st.integers(1, 6), down=st.integers(1, 9), overlap=st.integers(0, 400))
def test_no_cut_of_the_slide_changes_a_row(slide, pixels, scorer, seed, across, down, overlap):
    rects = strips(WIDTH, HEIGHT, seed, across=across, down=down, overlap=overlap)
    assert_same_tiles(scanned(scorer, pixels, rects), score_slide(slide, scorer))


def test_a_tile_inside_a_hole_waits_for_the_tissue_around_it(scorer, tmp_path):
    """It is complete and without a stained pixel long before the ring arrives that makes it a filled hole."""
    y, x = np.mgrid[:1600, :1600]
    radius = np.hypot(y - 800, x - 800)
    drawn = np.full((1600, 1600, 3), (240, 239, 240), np.uint8)
    drawn[(radius > 180) & (radius < 500)] = (205, 130, 180)
    settings = Settings(tile_um=61.0)
    file = score_slide(write_tiff(tmp_path / "ring.tiff", drawn, mpp=SCALE_UM), scorer, settings=settings)
    assert [732, 726] in np.column_stack([file.tiles.minx, file.tiles.miny]).tolist()
    rects = [RectPx(680, 680, 240, 240), RectPx(0, 0, 1600, 1600)]
    assert_same_tiles(scanned(scorer, drawn, rects, size=(1600, 1600), settings=settings), file)


def test_transparent_pixels_are_background_that_was_never_scanned(pixels, scorer, tmp_path):
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, 900:1400] = 0
    alpha[600:900, :500] = 130
    rgba = np.concatenate([pixels, alpha], axis=2)
    Image.fromarray(rgba).save(tmp_path / "slide.png")
    file = score_slide(tmp_path / "slide.png", scorer, settings=Settings(mpp_um=SCALE_UM))
    streamed = scanned(scorer, rgba, strips(WIDTH, HEIGHT, seed=2), channels="RGBA")
    assert_same_tiles(streamed, file)
    assert streamed.tiles.padded_fraction.max() > 0.4


@pytest.mark.parametrize("channels", ["BGR", "BGRA"])
def test_blue_first_frames_are_the_same_slide(channels, pixels, scorer):
    turned = pixels[..., ::-1]
    if len(channels) == 4:
        turned = np.concatenate([turned, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)
    rects = strips(WIDTH, HEIGHT, seed=3)
    streamed = scanned(scorer, turned, rects, channels=channels)
    assert tiles_csv.render(streamed) == tiles_csv.render(scanned(scorer, pixels, rects))


def test_a_running_result_has_final_probabilities_and_calls_the_rest_incomplete(pixels, scorer):
    """Asked at 25, 50 and 75 % of a scan from top to bottom."""
    asked = {}
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT), settings=Settings(tile_um=100.0, aggregate="max"))
    for top in range(0, HEIGHT, 85):
        scan.push(pixels[top : top + 85], 0, top)
        if (share := scan.progress.scanned_fraction) in (0.25, 0.5, 0.75):
            scorer._queue.wait(scan._lane)
            asked[share] = scan.running()
    final = scan.close()
    assert sorted(asked) == [0.25, 0.5, 0.75]
    last = {(x, y): row for row, (x, y) in enumerate(zip(final.tiles.minx, final.tiles.miny, strict=True))}
    for share, result in asked.items():
        table = result.tiles
        complete = table.miny + table.height <= share * HEIGHT
        assert complete.any()
        assert table.status.tolist() == np.where(complete, "ok", "incomplete").tolist()
        assert set(table.cause[~complete]) == {"not-scanned"}
        unseen = table.miny >= share * HEIGHT  # nothing is known of them, so none is taken for background
        assert set(table.minx[unseen]) == set(range(0, WIDTH, 200))
        for row in np.flatnonzero(complete):
            if (at := last.get((table.minx[row], table.miny[row]))) is not None:
                assert table.probabilities[row] == pytest.approx(final.tiles.probabilities[at], abs=1e-6)
        assert result.tiles_counted.not_evaluated == (~complete).sum()
        assert result.warnings[0].startswith(f"Provisional: {share:.0%} of the scan")
        assert "scan-incomplete" in [reason.code for reason in result.reasons]
        assert result.verdict == "indeterminate"
        assert result.malignant_score == pytest.approx(table.probabilities[complete, 1].max(), abs=1e-12)
    assert not final.warnings
    assert asked[0.25].evaluable_fraction < asked[0.5].evaluable_fraction < asked[0.75].evaluable_fraction < 1


def test_a_running_result_is_slide_result_s_on_its_rows(pixels, scorer, monkeypatch):
    import melanoma_infer.pipeline.session as session

    given = []

    def noted(*arguments, **named):
        given.append(arguments)
        return slide_result(*arguments, **named)

    monkeypatch.setattr(session, "slide_result", noted)
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT))
    scan.push(pixels[:1000], 0, 0)
    running = scan.running()
    plan, table, case, bundle, numerics = given[-1]
    assert [(tile.rect_l0.x, tile.rect_l0.y) for tile in plan.tiles] == list(zip(table.minx, table.miny, strict=True))
    assert slide_result(plan, table, case, bundle, numerics).malignant_score == running.malignant_score
    scan.cancel()


def test_a_gap_is_incomplete_and_costs_evaluable_tissue(pixels, scorer):
    whole = scanned(scorer, pixels, strips(WIDTH, HEIGHT, seed=5))
    gap = RectPx(700, 700, 300, 200)
    rects = [
        RectPx(0, 0, WIDTH, gap.y), RectPx(0, gap.bottom, WIDTH, HEIGHT - gap.bottom),
        RectPx(0, gap.y, gap.x, gap.height), RectPx(gap.right, gap.y, WIDTH - gap.right, gap.height),
    ]  # fmt: skip
    result = scanned(scorer, pixels, rects)
    table = result.tiles
    touched = [
        RectPx(int(x), int(y), int(w), int(h)).overlap(gap).area > 0
        for x, y, w, h in zip(table.minx, table.miny, table.width, table.height, strict=True)
    ]
    assert (table.status == "incomplete").tolist() == touched
    assert result.tiles_counted.not_evaluated == sum(touched) > 0
    assert result.evaluable_fraction < whole.evaluable_fraction
    assert [reason.code for reason in result.reasons][-1] == "scan-incomplete"


def test_two_sessions_at_once_give_each_the_bytes_that_it_gives_alone(pixels, scorer):
    other = section(WIDTH, HEIGHT, seed=8)
    rects = strips(WIDTH, HEIGHT, seed=6), strips(WIDTH, HEIGHT, seed=7)
    alone = [tiles_csv.render(scanned(scorer, *pair)) for pair in zip((pixels, other), rects, strict=True)]
    together = [scorer.session(SCALE_UM, (WIDTH, HEIGHT)) for _ in range(2)]

    def send(scan, slide, parts):
        for frame in frames(slide, parts):
            scan.push(*frame)

    senders = [
        Thread(target=send, args=(scan, slide, parts))
        for scan, slide, parts in zip(together, (pixels, other), rects, strict=True)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [tiles_csv.render(scan.close()) for scan in together] == alone


def test_sessions_take_turns_in_the_engine(pixels, scorer):
    """The second session's first tile is not behind all of the first one's."""
    order, hold = [], Event()
    infer = scorer._queue._infer

    def held(reads):
        hold.wait(20)
        return infer(reads)

    scorer._queue._infer = held
    try:
        scans = []
        for name in "ab":
            options = ScanOptions(waiting_tiles=100, on_tile=lambda _result, name=name: order.append(name))
            scans.append(scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=options))
            scans[-1].push(pixels, 0, 0)
        hold.set()
        for scan in scans:
            scan.close()
    finally:
        scorer._queue._infer = infer
    assert order[:8] == list("abababab")


def handles():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
def test_a_thousand_sessions_that_nobody_closes_leave_nothing_behind(pixels, scorer):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def opened(count):
        for _ in range(count):
            scorer.session(SCALE_UM, (WIDTH, HEIGHT)).push(pixels[300:1100, 200:1400], 200, 300)
        while any(thread.name.startswith("mminfer-") for thread in threads()):
            [thread.join(5) for thread in threads() if thread.name.startswith("mminfer-")]
        gc.collect()
        return handles(), resident()

    files, before = opened(50)
    files_after, after = opened(1000)
    assert files_after == files
    assert after - before < 40 << 20  # one session's pixels are 3 MB


def test_threads_are_named_and_end_with_the_last_tile(pixels, scorer):
    seen = set()
    options = ScanOptions(on_tile=lambda _result: seen.update(thread.name for thread in threads()))
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=options)
    scan.push(pixels, 0, 0)
    scan.close()
    ours = {name for name in seen if name.startswith("mminfer-")}
    assert {name.rstrip("0123456789_") for name in ours} <= {"mminfer-engine", "mminfer-resize", "mminfer-infer"}
    assert len(ours) <= 1 + 4 + 8
    for thread in threads():
        if thread.name == "mminfer-engine":
            thread.join(5)
    assert not [thread.name for thread in threads() if thread.name.startswith("mminfer-")]


def test_a_result_is_written_as_that_of_a_file(pixels, slide, scorer, tmp_path):
    result = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(id="S-17", case_id="C-3"))
    result.push(pixels, 0, 0)
    written = result.close(out=tmp_path / "out")
    folder = tmp_path / "out" / written.run.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "heatmap.png", "overlay.png", "pictures.npz", "regions.geojson", "report.html", "result.json", "tiles.csv",
        "tiles.geojson", "tiles.npz",
    ]  # fmt: skip
    assert (folder / "tiles.csv").read_bytes() == tiles_csv.render(score_slide(slide, scorer))
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out" / "summary.csv").read_text()))
    assert (row["id"], row["case_id"], row["folder"]) == ("S-17", "C-3", folder.name)
    assert result.close(out=tmp_path / "out") is written
    again = result.close(out=str(tmp_path / "more"))
    assert (tmp_path / "more" / again.run.folder / "tiles.csv").read_bytes() == (folder / "tiles.csv").read_bytes()
    with pytest.raises(UsageError, match="path of an output folder"):
        result.close(out=5)


def test_the_same_pixels_have_the_same_digest_in_any_order(pixels, scorer):
    first, second = (scanned(scorer, pixels, strips(WIDTH, HEIGHT, seed)).slide.digest for seed in (1, 2))
    changed = pixels.copy()
    changed[900, 900, 1] ^= 1
    assert first == second != scanned(scorer, changed, strips(WIDTH, HEIGHT, seed=1)).slide.digest


def test_pixels_that_contradict_each_other_end_the_session(pixels, scorer):
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT))
    scan.push(pixels[:300], 0, 0)
    scan.push(pixels[100:400], 0, 100)
    changed = pixels[:300].copy()
    changed[150, 40, 2] ^= 1
    with pytest.raises(SlideUnreadableError, match="arrived twice and differ"):
        scan.push(changed, 0, 0)
    with pytest.raises(SlideUnreadableError, match="arrived twice"):
        scan.close()


def test_of_contradicting_pixels_the_first_count_if_asked(pixels, scorer):
    black = np.zeros_like(pixels)
    with scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(overlap="first")) as scan:
        scan.push(pixels, 0, 0)
        scan.push(black, 0, 0)
    assert tiles_csv.render(scan.close()) == tiles_csv.render(scanned(scorer, pixels, [RectPx(0, 0, WIDTH, HEIGHT)]))


@pytest.fixture
def held(scorer):
    """An engine that waits until it is released."""
    release, infer = Event(), scorer._queue._infer

    def waiting(reads):
        for result in infer(reads):
            release.wait(20)
            yield result

    scorer._queue._infer = waiting
    yield release
    release.set()
    scorer._queue._infer = infer


def test_a_full_session_raises_and_takes_nothing(pixels, scorer, held):
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(when_full="raise", waiting_tiles=2))
    scan.push(pixels[:1200], 0, 0)
    before = scan.progress.scanned_px
    with pytest.raises(ScanBusyError, match="tiles wait for the engine, and 2 may"):
        scan.push(pixels[1200:], 0, 1200)
    assert scan.progress.scanned_px == before
    held.set()
    scorer._queue.wait(scan._lane)
    scan.push(pixels[1200:], 0, 1200)
    assert scan.close().tiles_counted.not_evaluated == 0


def test_a_push_that_waits_is_released_by_cancel(pixels, scorer, held):
    scan, raised = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(waiting_tiles=1)), []

    def push():
        with pytest.raises(UsageError, match="cancelled") as error:
            scan.push(pixels, 0, 0)
        raised.append(error)

    pusher = Thread(target=push)
    pusher.start()
    while not scan.progress.tiles_waiting:
        pass
    scan.cancel()
    pusher.join(20)
    assert raised
    with pytest.raises(UsageError, match="cancelled"):
        scan.close()
    assert scan.progress.memory_bytes < 1 << 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": "last"},
        {"when_full": "drop"},
        {"waiting_tiles": 0},
        {"waiting_tiles": -2},
        {"memory_mib": 0},
        {"memory_mib": True},
        {"id": None},
        {"id": " "},
        {"case_id": 3},
        {"channels": ["RGB"]},
        {"on_tile": 3},
        {"is_phantom": "no"},
    ],
)
def test_an_option_that_means_nothing_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ScanOptions(**wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("mpp_um", wrong) for wrong in ("0.5", None, (0.5,), (0.5, "0.5"), True)),
        *(("size_l0", wrong) for wrong in (1000, (1000,), (0, 10), (10, -5), (1000.5, 10), ("a", 1))),
        ("patient", [("age", 63)]), ("settings", {"tile_um": 256.0}), ("options", {"id": "x"}),
    ],
)  # fmt: skip
def test_an_argument_of_another_kind_is_refused_by_name(name, wrong, scorer):
    right = {"mpp_um": SCALE_UM, "size_l0": (WIDTH, HEIGHT)}
    with pytest.raises(UsageError, match=rf"session\({name}="):
        scorer.session(**(right | {name: wrong}))


def test_a_scale_may_be_a_list_and_a_size_an_array(scorer):
    scan = scorer.session([0.5, 0.5], np.array([WIDTH, HEIGHT]))
    for place in (("a", 0), (0.5, 0), (0, None)):
        with pytest.raises(UsageError, match="whole level-0 pixels"):
            scan.push(np.zeros((4, 4, 3), np.uint8), *place)
    scan.cancel()


def test_a_deadline_is_a_number_of_seconds_however_long(pixels, scorer):
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT))
    scan.push(pixels, 0, 0)
    for wrong in (-1.0, float("nan"), "5"):
        with pytest.raises(UsageError, match="deadline_s"):
            scan.close(deadline_s=wrong)
    assert scan.close(deadline_s=float("inf")).tiles_counted.not_evaluated == 0


def test_tiles_after_the_deadline_are_incomplete(pixels, scorer, held):
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(waiting_tiles=100))
    scan.push(pixels, 0, 0)
    result = scan.close(deadline_s=0.05)
    assert set(result.tiles.cause[result.tiles.status == "incomplete"]) == {"not-scored"}
    assert result.tiles_counted.not_evaluated > 0
    held.set()


def test_a_callback_that_raises_ends_its_session_alone(pixels, scorer):
    def broken(_result):
        raise ZeroDivisionError("oops")

    with scorer.session(SCALE_UM, (WIDTH, HEIGHT)) as good:
        bad = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(on_tile=broken))
        good.push(pixels, 0, 0)
        with pytest.raises(MminferError, match="ZeroDivisionError: oops"):
            whole(bad, pixels)
    assert good.close().tiles_counted.not_evaluated == 0


def test_an_engine_that_fails_ends_every_session(pixels, scorer):
    infer = scorer._queue._infer

    def lost(reads):
        next(iter(reads))
        raise MemoryExhaustedError("The GPU is full.")

    scorer._queue._infer = lost
    try:
        scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT))
        with pytest.raises(MemoryExhaustedError, match="The GPU is full"):
            whole(scan, pixels)
    finally:
        scorer._queue._infer = infer


def test_a_card_of_raw_pixels_is_refused_where_a_row_of_tiles_does_not_fit(scorer_of):
    """3 mm tiles at 0.25 µm/px: 34 columns (padded) of 12,000 × 12,000 px × 3."""
    raw = scorer_of(resize="pillow-bilinear", tile_um=3000.0)
    with pytest.raises(MemoryExhaustedError, match=r"One row of tiles across.*may use 1,024 MiB"):
        raw.session(0.25, (100_000, 80_000))
    means = scorer_of(resize="reduce-bilinear", tile_um=3000.0)
    means.session(0.25, (100_000, 80_000)).cancel()


def test_incomplete_tiles_beyond_the_memory_end_the_session(pixels, scorer_of):
    raw = scorer_of(resize="pillow-bilinear")
    scan = raw.session(SCALE_UM, None, options=ScanOptions(memory_mib=10))
    for top in (0, 600):  # no tile is complete: each lacks its middle
        scan.push(pixels[top : top + 100], 0, top)
    with pytest.raises(MemoryExhaustedError, match="Push strips in order"):
        scan.push(pixels[1200:1300], 0, 1200)


@pytest.mark.parametrize(
    ("frame", "place", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), (0, 0), r"float32 \(4, 4, 3\). Push uint8 \(height, width, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), (0, 0), "order RGB"),
        (np.zeros((4, 4, 3), np.uint8), (WIDTH - 3, 0), "reaches beyond the scan, which is 2101 × 1700 px"),
        (np.zeros((4, 4, 3), np.uint8), (0, -1), "reaches beyond the scan"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_changes_nothing(frame, place, message, pixels, scorer):
    with scorer.session(SCALE_UM, (WIDTH, HEIGHT)) as scan:
        with pytest.raises(UsageError, match=message):
            scan.push(frame, *place)
        scan.push(pixels, 0, 0)
    assert scan.close().tiles_counted.not_evaluated == 0


def test_files_and_scans_do_not_share_a_scorer_at_the_same_time(pixels, slide, scorer, held):
    scan = scorer.session(SCALE_UM, (WIDTH, HEIGHT), options=ScanOptions(waiting_tiles=100))
    scan.push(pixels, 0, 0)
    with pytest.raises(UsageError, match="Make another Scorer for files"):
        score_slide(slide, scorer)
    held.set()
    scan.close()
