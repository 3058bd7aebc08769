"""Batches: what is in them depends on seed, epoch and tile, and on nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_for_tests import training_card, write_small_dataset

from melanoma_infer.datasets.table import read_dataset
from melanoma_infer.errors import DatasetError
from melanoma_infer.training.batches import Batches, depth_order, plain_order, training_order
from melanoma_infer.training.settings import TrainingSettings
from melanoma_infer.training.tile_files import TileFiles

SETTINGS = TrainingSettings(batch=4, free_share=1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> TileFiles:
    return small_files(write_small_dataset(tmp_path_factory.mktemp("data"), cases=6, splits=False))


def small_files(folder: Path) -> TileFiles:
    return TileFiles.of(read_dataset(folder, training_card()), training_card())


def varied_tile(files: TileFiles, row: int, epoch: int, order: list[list[int]], **changes: int):
    """The pixels, depth and patient of one row in an epoch that has this order."""
    settings = SETTINGS.model_copy(update=changes)
    for rows, batch in zip(order, Batches(files, [np.array(rows) for rows in order], settings, epoch), strict=True):
        if row in rows:
            place = rows.index(row)
            return batch.tiles[place].numpy(), float(batch.depth_mm[place]), batch.patients[place].tolist()
    raise AssertionError


def test_a_tile_is_the_same_in_the_same_epoch_whatever_is_beside_it(files):
    pixels, depth, patient = varied_tile(files, 2, 3, [[0, 1, 2, 3]])
    again = varied_tile(files, 2, 3, [[5, 4], [7, 2]])
    assert np.array_equal(pixels, again[0])
    assert (np.isnan(depth) and np.isnan(again[1])) or depth == again[1]
    assert patient == again[2]


def test_another_epoch_and_another_seed_vary_it_otherwise(files):
    pixels = [
        varied_tile(files, 2, 3, [[2]])[0],
        varied_tile(files, 2, 4, [[2]])[0],
        varied_tile(files, 2, 3, [[2]], seed=1)[0],
        varied_tile(files, 3, 3, [[3]])[0],
    ]
    assert len({each.tobytes() for each in pixels}) == 4


def test_the_rows_of_a_table_may_change_their_order(files):
    turned = dataclasses.replace(files, names=files.names[::-1], labels=files.labels.of(np.arange(12)[::-1]))
    assert np.array_equal(varied_tile(files, 2, 3, [[2]])[0], varied_tile(turned, 9, 3, [[9]])[0])


def test_without_an_epoch_tiles_and_patients_are_as_they_are(files):
    (batch,) = Batches(files, [np.array([3, 1])], SETTINGS)
    assert np.array_equal(batch.tiles[0].numpy(), np.asarray(files.picture(3)))
    assert batch.depth_mm[0].item() == files.labels.depth_mm[3]
    assert np.isnan(batch.depth_mm[1].item())
    assert batch.patients.tolist() == files.labels.patients[[3, 1]].tolist()


def test_without_augmentation_pixels_stay_and_patients_are_dropped_still(files):
    settings = SETTINGS.model_copy(update={"augment": False, "patient_dropout": 1.0})
    (batch,) = Batches(files, [np.array([3, 1])], settings, 0)
    assert np.array_equal(batch.tiles[0].numpy(), np.asarray(files.picture(3)))
    assert batch.patients.tolist() == [[0, 0, 1, 0, 0, 1]] * 2


def test_an_epoch_s_order_holds_every_tile_once_but_for_a_last_batch_that_is_not_full():
    rows = np.arange(100, 110)
    order = training_order(rows, SETTINGS, 0)
    assert [len(batch) for batch in order] == [4, 4]
    assert len(set(np.concatenate(order).tolist())) == 8
    seen = set(np.concatenate([np.concatenate(training_order(rows, SETTINGS, epoch)) for epoch in range(9)]).tolist())
    assert seen == set(rows.tolist())
    assert [batch.tolist() for batch in order] == [batch.tolist() for batch in training_order(rows, SETTINGS, 0)]
    assert [batch.tolist() for batch in order] != [batch.tolist() for batch in training_order(rows, SETTINGS, 1)]


def test_fewer_tiles_than_a_batch_are_one_batch():
    assert [len(batch) for batch in training_order(np.arange(3), SETTINGS, 0)] == [3]


def test_several_gpus_share_an_epoch_and_no_tile_is_used_twice():
    parts = [training_order(np.arange(19), SETTINGS, 2, rank=rank, ranks=2) for rank in range(2)]
    assert [[len(batch) for batch in part] for part in parts] == [[4, 4], [4, 4]]
    assert len(set(np.concatenate([*parts[0], *parts[1]]).tolist())) == 16


def test_the_mask_moves_with_the_tile(files, tmp_path):
    """A tile that is black where its mask is white, varied but not recoloured."""
    plain = dict.fromkeys(("colour", "saturation", "contrast", "brightness"), 0.0)
    settings = SETTINGS.model_copy(update={**plain, "map_weight": 1.0})
    inside = np.zeros((128, 128), bool)
    inside[20:70, 30:110] = True
    Image.fromarray(np.where(inside[..., None], 0, 255).astype(np.uint8).repeat(3, 2)).save(tmp_path / "a.png")
    Image.fromarray(inside).save(tmp_path / "m.png")
    own = dataclasses.replace(
        files, folder=tmp_path, names=("a.png",) * 2, masks=("m.png", None), labels=files.labels.of(np.array([2, 2]))
    )
    seen = set()
    for epoch in range(8):
        (batch,) = Batches(own, [np.array([0, 1])], settings, epoch)
        black = 1 - batch.tiles[0, ..., 0].float().unflatten(0, (4, 32)).unflatten(2, (4, 32)).mean((1, 3)) / 255
        assert (batch.shares[0] - black).abs().max() < 0.05
        assert batch.shares[1].isnan().all()
        seen.add(tuple(batch.shares[0].flatten().tolist()))
    assert len(seen) == 8
    (none,) = Batches(own, [np.array([0])], SETTINGS, 0)
    assert tuple(none.shares.shape) == (1, 0, 0)


def test_a_tile_without_a_lesion_has_an_empty_mask(files):
    (batch,) = Batches(files, [np.array([0, 2])], SETTINGS.model_copy(update={"map_weight": 1.0}), 0)
    assert batch.shares[0].abs().sum() == 0
    assert batch.shares[1].isnan().all()


def test_tiles_for_the_depth_module_alone_are_averaged_over_blocks(files):
    settings = SETTINGS.model_copy(update={"augment": False})
    plain = Batches(files, [np.array([0])], settings, 0, [np.array([3, 2])])
    (batch,) = plain
    whole = np.asarray(files.picture(3)).astype(float)
    blocks = whole.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(batch.averages[0].numpy() - blocks).max() <= 0.5 + 1e-9
    assert batch.averages_mm.tolist() == files.labels.depth_mm[[3, 2]].tolist()
    (none,) = Batches(files, [np.array([0])], settings, 0)
    assert (tuple(none.averages.shape), tuple(none.averages_mm.shape)) == ((0, 32, 32, 3), (0,))


def test_a_tile_that_comes_twice_in_an_epoch_is_varied_in_two_ways(files):
    first, second = Batches(files, [np.array([0]), np.array([1])], SETTINGS, 0, [np.array([2]), np.array([2])])
    assert not np.array_equal(first.averages.numpy(), second.averages.numpy())


def test_every_tile_of_known_depth_comes_before_any_comes_again():
    settings = SETTINGS.model_copy(update={"depth_tiles": 3})
    order = depth_order(np.array([4, 7, 9, 11]), settings, 5, 4)
    assert [len(batch) for batch in order] == [3, 3, 3, 3]
    stream = np.concatenate(order)
    assert all(sorted(stream[start : start + 4]) == [4, 7, 9, 11] for start in (0, 4, 8))
    parts = [depth_order(np.arange(50), settings, 5, 4, rank=rank, ranks=2) for rank in range(2)]
    assert len(set(np.concatenate([*parts[0], *parts[1]]).tolist())) == 24


def test_a_damaged_picture_is_named(files, tmp_path):
    folder = write_small_dataset(tmp_path, cases=2, splits=False)
    small = small_files(folder)
    path = folder / small.names[1]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DatasetError, match=r"tiles\.csv, the row with tiles/case00-1\.png: the picture is damaged"):
        list(Batches(small, plain_order(np.arange(4), 2), SETTINGS))
