"""Splits: whole patients, every class in the stated shares, and nothing else decides."""

import random
from collections import Counter

import pytest
from datasets_for_tests import lesion_card

from melanoma_infer.datasets.labels import SPLITS, LabelledSlide, LabelledTile
from melanoma_infer.datasets.splits import split_of_cases, split_shares
from melanoma_infer.errors import UsageError

CARD = lesion_card()
SHARES = (0.64, 0.16, 0.2)


def cohort(**sizes):
    return [
        LabelledSlide(f"{name}-{i}", "", f"{name}-{i}", name, None) for name, size in sizes.items() for i in range(size)
    ]


@pytest.mark.parametrize("shares", [SHARES, (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)])
def test_the_whole_has_the_shares_to_within_one_case_and_every_class_to_within_two(shares):
    sizes = {"normal": 53, "naevus": 8, "melanoma": 25, "melanoma_in_situ": 1}
    split = split_of_cases(cohort(**sizes), shares, CARD, seed=1)
    found = Counter(split.values())
    assert [abs(found[part] - share * 87) < 1 for part, share in zip(SPLITS, shares, strict=True)] == [True] * 3
    for name, size in sizes.items():
        found = Counter(part for case, part in split.items() if case.rpartition("-")[0] == name)
        assert [abs(found[part] - share * size) < 2 for part, share in zip(SPLITS, shares, strict=True)] == [True] * 3


def test_a_hundred_cases_are_divided_exactly():
    split = split_of_cases(cohort(normal=50, naevus=25, melanoma=25), SHARES, CARD, seed=1)
    assert Counter(split.values()) == {"train": 64, "validation": 16, "test": 20}


def test_a_case_counts_once_by_its_highest_class_and_order_changes_nothing():
    rows = cohort(normal=20, melanoma=10)
    more = [LabelledSlide(f"x{i}", "", f"melanoma-{i % 10}", "normal", None) for i in range(200)]
    first = split_of_cases(rows, SHARES, CARD, seed=1)
    shuffled = [*more, *rows]
    random.Random(3).shuffle(shuffled)
    assert split_of_cases(shuffled, SHARES, CARD, seed=1) == first
    assert split_of_cases(rows, SHARES, CARD, seed=2) != first


def test_outcomes_are_divided_like_classes():
    """Of 50 cases of one class, 20 spread; their order by number says nothing of it."""
    blank = dict.fromkeys(("x_l0", "y_l0", "breslow_mm", "surface_in_tile", "split"))
    rows = [
        LabelledTile(f"{i}.png", "", f"P{i}", um_per_px=80.0, label="malignant", values={}, outcome=i % 5 < 2, **blank)
        for i in range(50)
    ]
    split = split_of_cases(rows, SHARES, CARD, seed=1)
    spread = Counter(split[row.case_id] for row in rows if row.outcome)
    assert spread["train"] in (12, 13, 14)
    assert spread["validation"] in (3, 4)
    assert spread["test"] in (3, 4, 5)


def test_a_small_set_fills_the_training_first():
    assert Counter(split_of_cases(cohort(melanoma=1), SHARES, CARD, seed=1).values()) == {"train": 1}
    five = split_of_cases(cohort(melanoma=5), SHARES, CARD, seed=1)
    assert Counter(five.values()) == {"train": 3, "validation": 1, "test": 1}
    assert set(split_of_cases(cohort(normal=30), (1, 0, 0), CARD, seed=1).values()) == {"train"}


def test_shares_are_percentages_that_make_100():
    assert split_shares("64,16,20") == pytest.approx(SHARES)
    for text in ("80,20", "64,16,21", "0,50,50", "-10,60,50", "a,b,c", "nan,50,50", ""):
        with pytest.raises(UsageError, match=r"--split .*: give three percentages that make 100"):
            split_shares(text)
