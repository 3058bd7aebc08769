"""Which tiles the report shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_for_tests import hand_made_card, hand_made_tiles

from melanoma_infer.records import TileTable
from melanoma_infer.scoring.gallery import Choice, choose, padded_above


def tiles_of(scores: list[float], status: list[str] | None = None, padded: list[float] | None = None) -> TileTable:
    """Tiles with these malignant scores, unpadded unless told."""
    n = len(scores)
    table = hand_made_tiles(hand_made_card())
    columns = {name: np.resize(getattr(table, name), n) for name in ("minx", "miny", "width", "height")}
    score = np.array(scores, np.float64).reshape(n)
    return replace(
        table,
        **columns,
        probabilities=np.stack([1 - score, 0 * score, score / 2, score / 2], axis=1).reshape(n, 4),
        status=np.array(status or ["ok"] * n, np.str_),
        padded_fraction=np.zeros(n) if padded is None else np.array(padded, np.float64),
    )


def rows(choices: list[Choice], role: str) -> list[int]:
    return [choice.row for choice in choices if choice.role == role]


def test_six_highest_scoring_two_below_the_threshold_two_nearest_it():
    scores = [0.05, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.70, 0.60, 0.50, 0.40, 0.30]
    chosen = choose(tiles_of(scores), hand_made_card())  # threshold 0.62
    assert rows(chosen, "highest-scoring") == [1, 2, 3, 4, 5, 6]
    assert rows(chosen, "hard-negative") == [9, 10]
    assert rows(chosen, "near-threshold") == [8, 11]  # 0.08 and 0.22 away; 0.30 and 0.93 are farther


def test_without_a_threshold_one_half_is_used():
    scores = [0.9] * 6 + [0.61, 0.52, 0.48, 0.1]
    chosen = choose(tiles_of(scores), hand_made_card(threshold=None))
    assert rows(chosen, "hard-negative") == [8, 9]
    assert rows(chosen, "near-threshold") == [7, 6]


def test_a_score_at_the_threshold_is_not_below_it():
    chosen = choose(tiles_of([0.9] * 6 + [0.62, 0.61]), hand_made_card())
    assert rows(chosen, "hard-negative") == [7]
    assert rows(chosen, "near-threshold") == [6]


def test_equal_scores_keep_the_table_s_order():
    assert [choice.row for choice in choose(tiles_of([0.3] * 12), hand_made_card())] == list(range(10))


def test_unreadable_tiles_are_not_shown():
    scores = [np.nan, 0.9, 0.8]
    assert [c.row for c in choose(tiles_of(scores, ["unreadable", "ok", "ok"]), hand_made_card())] == [1, 2]


@pytest.mark.parametrize("n", [0, 1, 5, 7, 9])
def test_fewer_tiles_give_fewer_choices(n):
    assert len(choose(tiles_of(list(np.linspace(0, 0.5, n))), hand_made_card())) == n


@given(st.lists(st.floats(0, 1), max_size=40))
def test_no_tile_twice_and_the_highest_scoring_ones_are_the_highest(scores):
    chosen = choose(tiles_of(scores), hand_made_card())
    assert len({choice.row for choice in chosen}) == len(chosen) <= 10
    top = sorted(scores, reverse=True)[:6]
    assert [scores[row] for row in rows(chosen, "highest-scoring")] == pytest.approx(top)


def test_padded_tiles_are_not_among_the_highest_scoring():
    tiles = tiles_of([0.99, 0.9, 0.8, 0.7, 0.61], padded=[0.3, 0, 0.01, 0, 0])
    chosen = choose(tiles, hand_made_card())
    assert rows(chosen, "highest-scoring") == [1, 3, 4]
    assert rows(chosen, "near-threshold") == [2, 0]
    assert padded_above(tiles, hand_made_card(), [1, 3, 4]) == 2
    assert padded_above(tiles, hand_made_card(), [1]) == 1


def test_padded_tiles_come_after_all_others_in_every_role():
    scores = [0.99] * 6 + [0.61, 0.60, 0.50, 0.63, 0.90, 0.80]
    chosen = choose(tiles_of(scores, padded=[0] * 6 + [0.5, 0, 0, 0.5, 0, 0]), hand_made_card())
    assert rows(chosen, "hard-negative") == [7, 8]
    assert rows(chosen, "near-threshold") == [11, 10]


def test_where_all_tiles_are_padded_they_are_shown():
    tiles = tiles_of([0.2, 0.9], padded=[0.5, 0.5])
    assert rows(choose(tiles, hand_made_card()), "highest-scoring") == [1, 0]
    assert padded_above(tiles, hand_made_card(), [1, 0]) == padded_above(tiles, hand_made_card(), []) == 0
