"""From the tiles' probabilities for one patient to score, verdict and outcome.

Only these change when a finished slide is scored again with other patient data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.records import SumScores
from melanoma_infer.result import OutcomeState, Reason, Verdict
from melanoma_infer.scoring.aggregation import aggregate, exact_sums, malignant_probabilities, outcome_score
from melanoma_infer.scoring.verdict import Circumstances, judge, outcome_state


@dataclass(frozen=True)
class Conclusion:
    """Scores, and what may be said about them."""

    malignant_score: float | None
    verdict: Verdict
    reasons: list[Reason]
    outcome: OutcomeState
    outcome_score: float | None


def slide_score(
    probabilities: NDArray[np.float64],
    card: ModelCard,
    circumstances: Circumstances,
    tile_mm2: float,
    sum_scores: SumScores = exact_sums,
) -> float | None:
    """The slide's malignant score from its readable tiles' probabilities (N, K); None if there are none."""
    return aggregate(
        malignant_probabilities(probabilities, card),
        circumstances.aggregator,
        tile_mm2=tile_mm2,
        area_mm2=card.top_area_mm2,
        sum_scores=sum_scores,
    )


def conclude(
    probabilities: NDArray[np.float64],
    card: ModelCard,
    circumstances: Circumstances,
    tile_mm2: float,
    sum_scores: SumScores = exact_sums,
) -> Conclusion:
    """The conclusion from readable tiles' probabilities (N, K).

    Args:
        probabilities: for the patient in question.
        card: roles, thresholds and limits.
        circumstances: what else the verdict depends on; its score is replaced.
        tile_mm2: the area that one tile represents.
        sum_scores: adds up the tiles' scores.
    """
    score = slide_score(probabilities, card, circumstances, tile_mm2, sum_scores)
    judgement = judge(replace(circumstances, score=score), card)
    outcome = outcome_score(probabilities, card)
    return Conclusion(
        malignant_score=score,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        outcome=outcome_state(judgement.verdict, outcome, card),
        outcome_score=outcome,
    )
