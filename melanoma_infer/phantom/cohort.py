"""Patients, their melanomas and what becomes of them, after published cohorts.

Thickness, age, sex and site follow two cohorts of sentinel node biopsy (Europe, n = 4,071, and MIA, n = 4,822), and the
outcome is drawn from their Cox model of recurrence within five years (EORTC/MIA, Lancet Oncol 2024) without its node
terms. So the best possible AUC is known: that of `probability`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import DEPTH_MM

_PATIENT = 2000
THICKNESS_MEDIAN_MM, THICKNESS_SIGMA = 2.0, 0.73
"""Of a lognormal distribution: medians 2.0 and 2.0 mm, σ 0.79 and 0.67 in the two cohorts."""
AGE_MEAN, AGE_SD, AGES = 56.5, 16.5, (18, 95)
MALE = 0.54
SITES = {"upper_limb": 0.17, "lower_limb": 0.26, "trunk": 0.42, "head_neck": 0.12, "acral": 0.03}
SITE_TERM = {"upper_limb": 0.0, "lower_limb": 0.128, "trunk": 0.253, "head_neck": 0.636, "acral": 0.128}
"""The model's terms; acral skin counts as its limb, mostly the leg."""
ULCER_AT_1_MM, ULCER_SLOPE = -2.0, 1.25
"""Log-odds of ulceration at 1 mm and per log-mm: 12 % at 1 mm, 24 % at 2, 43 % at 4, about 28 % of the cohort."""
MISSING = 0.05
"""How often a patient value is not recorded."""
GRID = tuple((i + 0.5) / 24 for i in range(24))


@dataclass(frozen=True)
class Person:
    """A patient and, if it is one, the melanoma; values as a manifest has them."""

    age: int
    sex: str
    site: str
    breslow_mm: float
    ulcerated: bool
    recorded: frozenset[str]
    """The names of the values that are recorded."""
    chance: float
    """The outcome is yes if this uniform number is below `probability`."""

    @property
    def probability(self) -> float:
        """The probability of recurrence within five years given everything."""
        return recurrence(self.age, self.ulcerated, self.site, self.breslow_mm)

    @property
    def outcome(self) -> bool:
        """Whether it recurs."""
        return self.chance < self.probability

    @property
    def visible(self) -> float:
        """The probability given what image and recorded values show: the ceiling for a model of both."""
        ages = (self.age,) if "age" in self.recorded else tuple(_age(u) for u in GRID)
        sites = {self.site: 1.0} if "site" in self.recorded else SITES
        return _mean(ages, sites, self.ulcerated, self.breslow_mm)

    @property
    def in_image(self) -> float:
        """The probability given what the image shows alone: thickness and ulceration."""
        return _mean(tuple(_age(u) for u in GRID), SITES, self.ulcerated, self.breslow_mm)

    def values(self) -> dict[str, str]:
        """The recorded values, by the field names of the demo card."""
        ulceration = "yes" if self.ulcerated else "no"
        known = {"age": str(self.age), "sex": self.sex, "site": self.site, "ulceration": ulceration}
        return {name: value if name in self.recorded else "" for name, value in known.items()}


def person(seed: int) -> Person:
    """The patient of this seed."""
    *values, chance = draws(21, stream(seed, _PATIENT))
    normal, values = sum(values[:12]) - 6, values[12:]
    thickness = THICKNESS_MEDIAN_MM * exp(THICKNESS_SIGMA * normal)
    breslow = round(min(max(thickness, DEPTH_MM[0] + 0.05), DEPTH_MM[1]), 2)
    odds = exp(ULCER_AT_1_MM + ULCER_SLOPE * log(breslow))
    known = frozenset(
        name for name, u in zip(("age", "sex", "site", "ulceration"), values[4:8], strict=True) if u >= MISSING
    )
    return Person(
        age=_age(values[0]),
        sex="male" if values[1] < MALE else "female",
        site=_site(values[2]),
        breslow_mm=breslow,
        ulcerated=values[3] < odds / (1 + odds),
        recorded=known,
        chance=chance,
    )


def recurrence(age: float, ulcerated: bool, site: str, breslow_mm: float) -> float:
    """Probability of recurrence within five years: the published model without its node terms."""
    predictor = -1.283 + 0.014 * age + 0.479 * ulcerated + SITE_TERM[site] + 0.830 * (log(breslow_mm) - 0.718)
    return 1 - exp(-0.228 * exp(predictor))


def _mean(ages: tuple[int, ...], sites: dict[str, float], ulcerated: bool, breslow_mm: float) -> float:
    total = sum(share * recurrence(age, ulcerated, site, breslow_mm) for site, share in sites.items() for age in ages)
    return total / (len(ages) * sum(sites.values()))


def _age(u: float) -> int:
    """The age at this quantile, by Tukey's lambda for the normal distribution."""
    u = min(max(u, 1e-4), 1 - 1e-4)
    normal = 4.91 * (float(u**0.14) - float((1 - u) ** 0.14))
    return round(min(max(AGE_MEAN + AGE_SD * normal, AGES[0]), AGES[1]))


def _site(u: float) -> str:
    for site, share in SITES.items():
        if u < share:
            return site
        u -= share
    return "trunk"
