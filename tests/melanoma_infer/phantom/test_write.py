"""Phantom slides as files, opened by the readers of any slide."""

import gc
import json
import math
import time
import tracemalloc

import numpy as np
import openslide
import pytest

from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.phantom.draw import background_of, draw
from melanoma_infer.phantom.mark import CAUTION
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.truth import truth_of
from melanoma_infer.phantom.write import is_written, require_drawable, tiles, truth_file, write_phantom
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.completeness import require_complete
from melanoma_infer.tiles.tissue import find_tissue

SIZE_UM = (5000.0, 3600.0)
SCENE = make_scene(5, "melanoma", SIZE_UM)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom") / "p.svs"
    write_phantom(path, SCENE, 0.98, threads=1)
    return path


def test_openslide_opens_it_as_aperio_s_with_its_scale_size_and_levels(slide):
    assert openslide.OpenSlide.detect_format(slide) == "aperio"
    with open_slide(slide) as reader:
        facts = reader.facts
    assert (facts.vendor, facts.scale, facts.is_phantom) == ("aperio", Scale(0.98, 0.98), True)
    assert facts.objective_power == pytest.approx(10, rel=0.03)
    assert facts.level_sizes == (SizePx(5102, 3673), SizePx(1275, 918), SizePx(318, 229))
    assert facts.level_downsamples == pytest.approx((1, 4, 16), rel=0.005)
    assert facts.quickhash is not None
    require_complete(slide)


@pytest.mark.parametrize("mpp", [0.7, 0.2527, 1 / 3])
def test_the_scale_is_written_to_the_last_digit(tmp_path, mpp):
    write_phantom(tmp_path / "s.svs", make_scene(1, "none", (1000.0, 1000.0)), mpp)
    with open_slide(tmp_path / "s.svs") as reader:
        assert reader.facts.scale == Scale(mpp, mpp)
        assert reader.facts.size_l0 == SizePx(round(1000 / mpp), round(1000 / mpp))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_level_shows_the_scene_at_its_scale(slide, level):
    """JPEG at quality 90 changes grey values by a few of 255; a shift by one pixel would change many by dozens."""
    factor = 4**level
    block = RectPx(*(side // factor for side in (1500, 500, 2000, 1500)))
    with open_slide(slide) as reader:
        read = reader.read_region(level, block)[..., :3].astype(int)
    difference = np.abs(read - draw(SCENE, block, 0.98 * factor))
    assert difference.mean() < 3
    assert np.percentile(difference, 99) < 20


def test_the_right_and_lower_edges_are_background(slide):
    with open_slide(slide) as reader:
        corner = reader.read_region(0, RectPx(5102 - 40, 3673 - 30, 40, 30))
    assert np.abs(corner[..., :3].astype(int) - background_of(SCENE)).max() <= 4


def test_the_truth_is_beside_it(slide):
    told = json.loads(truth_file(slide).read_text())
    truth = truth_of(SCENE, 0.98)
    assert set(told) == set(vars(truth))
    assert (told["generator"], told["seed"], told["lesion"], told["caution"]) == ("v1", 5, "melanoma", CAUTION)
    assert (told["size_um"], told["size_l0"], told["um_per_px"]) == ([5000, 3600], [5102, 3673], 0.98)
    assert (told["area_mm2"], told["breslow_mm"], told["clark"]) == (truth.area_mm2, truth.breslow_mm, truth.clark)
    np.testing.assert_array_equal(told["sections"][0]["outlines_l0"][0], truth.sections[0].outlines_l0[0])


def test_the_same_seed_gives_the_same_bytes_for_any_threads(slide, tmp_path):
    write_phantom(tmp_path / "s.svs", make_scene(5, "melanoma", SIZE_UM), 0.98, threads=3)
    assert (tmp_path / "s.svs").read_bytes() == slide.read_bytes()
    assert truth_file(tmp_path / "s.svs").read_bytes() == truth_file(slide).read_bytes()


def test_another_seed_gives_other_bytes(tmp_path):
    for seed in (5, 6):
        write_phantom(tmp_path / f"{seed}.svs", make_scene(seed, "melanoma", (1000.0, 1000.0)), 0.98)
    assert (tmp_path / "5.svs").read_bytes() != (tmp_path / "6.svs").read_bytes()


def test_a_slide_is_written_already_only_if_scene_and_scale_are_the_same(slide, tmp_path):
    assert is_written(slide, make_scene(5, "melanoma", SIZE_UM), 0.98)
    assert not is_written(slide, make_scene(6, "melanoma", SIZE_UM), 0.98)
    assert not is_written(slide, make_scene(5, "none", SIZE_UM), 0.98)
    assert not is_written(slide, SCENE, 1.0)
    assert not is_written(tmp_path / "none.svs", SCENE, 0.98)


@pytest.mark.parametrize("kind", ["melanoma", "none"])
def test_its_tissue_is_found(tmp_path, kind):
    scene = make_scene(5, kind, SIZE_UM)
    write_phantom(tmp_path / "s.svs", scene, 1.0)
    with open_slide(tmp_path / "s.svs") as reader:
        tissue = find_tissue(reader, Scale(1.0, 1.0))
    found_mm2 = tissue.mask.sum() * (tissue.px_l0 * 1.0) ** 2 / 1e6
    assert tissue.is_brightfield
    assert not tissue.ink.any()
    assert found_mm2 == pytest.approx(truth_of(scene, 1.0).tissue_mm2, rel=0.1)


def test_memory_does_not_grow_with_the_slide():
    peaks = []
    for side in (1, 2):
        scene, size = make_scene(2, "melanoma", (2400.0 * side, 1800.0 * side)), SizePx(2400 * side, 1800 * side)
        next(tiles(scene, size, 1.0))
        gc.collect()
        tracemalloc.start()
        written = sum(len(tile) for tile in tiles(scene, size, 1.0, threads=1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert written > 100_000 * side**2
    assert peaks[1] < 1.3 * peaks[0]
    # The smaller slide alone has 13 MB of pixels.
    assert peaks[0] < 8e6


def test_at_most_two_blocks_per_thread_are_prefetched(monkeypatch):
    drawn = []
    monkeypatch.setattr("melanoma_infer.phantom.write.draw", lambda *asked: drawn.append(asked[1]) or draw(*asked))
    written = tiles(SCENE, SizePx(5000, 3600), 1.0, threads=2)
    next(written)
    time.sleep(0.5)
    assert 1 <= len(drawn) <= 4
    written.close()
    assert len(drawn) <= 4


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch):
    def until_the_disk_is_full(scene, block, um_per_px):
        if block.y >= 1024:
            raise OSError(28, "No space left on device")
        assert [path.name for path in tmp_path.iterdir()] == [".s.svs.part"]
        return draw(scene, block, um_per_px)

    monkeypatch.setattr("melanoma_infer.phantom.write.draw", until_the_disk_is_full)
    with pytest.raises(OutputError, match="no space left"):
        write_phantom(tmp_path / "s.svs", SCENE, 0.98)
    assert list(tmp_path.iterdir()) == []


def test_a_slide_that_is_drawn_again_has_no_truth_until_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "s.svs"
    write_phantom(path, make_scene(1, "none", (1000.0, 1000.0)), 1.0)
    before = path.read_bytes()
    monkeypatch.setattr("melanoma_infer.phantom.write._write_svs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_phantom(path, make_scene(2, "none", (1000.0, 1000.0)), 1.0)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.svs"]


def test_a_folder_that_does_not_exist_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="no such folder"):
        write_phantom(tmp_path / "nowhere" / "s.svs", make_scene(1, "none", (1000.0, 1000.0)), 1.0)


@pytest.mark.parametrize(
    ("size_um", "um_per_px", "why"),
    [
        ((9000.0, 6000.0), 0.09, "µm/px"),
        ((9000.0, 6000.0), 1.2, "µm/px"),
        ((9000.0, 6000.0), math.nan, "µm/px"),
        ((900.0, 6000.0), 1.0, "1000 to 75000 µm"),
        ((9000.0, 75_001.0), 1.0, "1000 to 75000 µm"),
        ((math.nan, 6000.0), 1.0, "1000 to 75000 µm"),
        ((75_000.0, 25_000.0), 0.25, "30.0 gigapixels"),
    ],
)
def test_a_size_or_scale_that_no_scanner_has_is_refused(size_um, um_per_px, why):
    with pytest.raises(UsageError, match=why):
        require_drawable(size_um, um_per_px)


@pytest.mark.slow
def test_a_large_slide_is_written_in_bounded_memory(tmp_path):
    """40 000 × 36 000 px: 4.3 GB of pixels, so a BigTIFF."""
    gc.collect()
    tracemalloc.start()
    write_phantom(tmp_path / "s.svs", make_scene(1, "melanoma", (20_000.0, 18_000.0)), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert (tmp_path / "s.svs").read_bytes()[:4] == b"II+\0"
    with open_slide(tmp_path / "s.svs") as reader:
        assert reader.facts.level_sizes == (SizePx(40_000, 36_000), SizePx(10_000, 9_000), SizePx(2500, 2250))
        middle = reader.read_region(0, RectPx(20_000, 18_000, 300, 200))[..., :3]
    assert middle.mean() < 235
