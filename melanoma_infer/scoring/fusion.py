"""Image and patient → class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.scoring.aggregation import normalise_classes

Array = NDArray[np.float64]


def fused(bundle: Bundle, graph: NDArray[Any], features: NDArray[Any] | None, patient: Array) -> Array:
    """Class probabilities (N, K) of tiles for one patient; NaN where a tile is unreadable.

    If the model gives features, its head adds the patient on the host, each tile alone and in float64; otherwise the
    graph's own probabilities are used. Class normalisation for the card's priors comes last.

    Args:
        bundle: the model.
        graph: the graph's probabilities (N, K), NaN where unreadable.
        features: (N, F), NaN where unreadable; None if the model gives none.
        patient: one-hot (P,).
    """
    card, head = bundle.card, bundle.head
    probabilities: Array = graph.astype(np.float64)
    if head is not None and features is not None:
        probabilities = head.probabilities(features, patient)
    if card.class_priors is not None:
        probabilities = normalise_classes(probabilities, card.classes, card.class_priors)
    return probabilities
