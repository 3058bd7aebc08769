"""Splits: whole patients, every class in the stated shares, and nothing else decides."""

import random
from collections import Counter

import pytest
from datasets_for_tests import lesion_card

from melanoma_infer.datasets.labels import LabelledSlide
from melanoma_infer.datasets.splits import split_of_cases, split_shares
from melanoma_infer.errors import UsageError

CARD = lesion_card()
SHARES = (0.64, 0.16, 0.2)


def cohort(**sizes):
    return [
        LabelledSlide(f"{name}-{i}", "", f"{name}-{i}", name, None) for name, size in sizes.items() for i in range(size)
    ]


def test_every_class_and_the_whole_have_the_shares_to_within_a_case():
    rows = cohort(normal=50, naevus=25, melanoma=25)
    split = split_of_cases(rows, SHARES, CARD, seed=1)
    assert Counter(split.values()) == {"train": 64, "validation": 16, "test": 20}
    for name, size in (("normal", 50), ("naevus", 25), ("melanoma", 25)):
        found = Counter(part for case, part in split.items() if case.startswith(name))
        assert [abs(found[part] - share * size) <= 1 for part, share in zip(("train", "validation", "test"), SHARES,
                                                                            strict=True)] == [True] * 3  # fmt: skip


def test_a_case_counts_once_by_its_highest_class_and_order_changes_nothing():
    rows = cohort(normal=20, melanoma=10)
    more = [LabelledSlide(f"x{i}", "", f"melanoma-{i % 10}", "normal", None) for i in range(200)]
    first = split_of_cases(rows, SHARES, CARD, seed=1)
    shuffled = [*more, *rows]
    random.Random(3).shuffle(shuffled)
    assert split_of_cases(shuffled, SHARES, CARD, seed=1) == first
    assert split_of_cases(rows, SHARES, CARD, seed=2) != first


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
