"""Patients and outcomes, compared with the published cohorts' numbers."""

import numpy as np
import pytest

from melanoma_infer.phantom.cohort import person, recurrence

PEOPLE = [person(seed) for seed in range(6000)]


@pytest.mark.parametrize(
    ("age", "ulcerated", "site", "mm", "published"),
    [(55, False, "trunk", 1.0, 0.092), (55, True, "trunk", 4.5, 0.42)],
)
def test_the_outcome_model_gives_the_published_probabilities(age, ulcerated, site, mm, published):
    assert recurrence(age, ulcerated, site, mm) == pytest.approx(published, abs=0.005)


def test_thickness_and_age_have_the_cohorts_quartiles():
    """Europe: 2.0 (1.2–3.5) mm, 55 (43–66) years; MIA: 2.0 (1.3–3.2) mm, 58 (46–68) years."""
    thickness = np.percentile([somebody.breslow_mm for somebody in PEOPLE], (25, 50, 75))
    assert (np.array([1.15, 1.9, 3.1]) <= thickness).all()
    assert (thickness <= np.array([1.35, 2.1, 3.55])).all()
    ages = np.percentile([somebody.age for somebody in PEOPLE], (25, 50, 75))
    assert (np.array([43, 55, 66]) <= ages + 2).all()
    assert (ages <= np.array([46, 58, 68]) + 1).all()


def test_sex_site_and_ulceration_have_the_cohorts_shares():
    def share(which) -> float:
        return sum(map(which, PEOPLE)) / len(PEOPLE)

    assert share(lambda one: one.sex == "male") == pytest.approx(0.54, abs=0.03)
    assert share(lambda one: one.site == "trunk") == pytest.approx(0.42, abs=0.03)
    assert share(lambda one: one.site == "head_neck") == pytest.approx(0.12, abs=0.02)
    assert share(lambda one: one.ulcerated) == pytest.approx(0.28, abs=0.03)
    assert share(lambda one: "age" not in one.recorded) == pytest.approx(0.05, abs=0.01)


def test_ulceration_is_more_frequent_in_thicker_lesions():
    shares = [
        np.mean([one.ulcerated for one in PEOPLE if low < one.breslow_mm <= high])
        for low, high in ((0, 1), (1, 2), (2, 4), (4, 9))
    ]
    assert (np.diff(shares) > 0.08).all()
    assert shares[0] < 0.15


def test_outcomes_follow_their_probabilities_and_what_is_seen_is_a_little_less():
    probability = np.array([one.probability for one in PEOPLE])
    outcome = np.array([one.outcome for one in PEOPLE])
    assert outcome.mean() == pytest.approx(probability.mean(), abs=0.02)
    high = probability > np.median(probability)
    assert outcome[high].mean() == pytest.approx(probability[high].mean(), abs=0.03)
    some = PEOPLE[:400]
    full = [one.probability for one in some]
    visible, in_image = ([getattr(one, name) for one in some] for name in ("visible", "in_image"))
    assert np.corrcoef(full, visible)[0, 1] > np.corrcoef(full, in_image)[0, 1] > 0.8
    complete = [one for one in some if len(one.recorded) == 4]
    assert all(one.visible == pytest.approx(one.probability) for one in complete)


def test_values_are_those_of_a_manifest_and_blank_where_nothing_is_recorded():
    one = next(one for one in PEOPLE if one.recorded == frozenset({"sex", "site", "ulceration"}))
    values = one.values()
    assert values["age"] == ""
    assert values["sex"] in ("female", "male")
    assert values["ulceration"] in ("yes", "no")
