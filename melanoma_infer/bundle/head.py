"""The classifier's head on the host: image features and patient data → class probabilities (paper Eq. 4).

``features`` = W1v·v + W1d·depth, the image's half of the first layer, linear and without bias. What follows is small
(about 10 kFLOP a tile), so it runs here in float64, the same for every engine:

    h1 = ReLU(features + W1p·patient + b1)      (128)
    h2 = ReLU(W2·h1 + b2)                       (64)
    p  = softmax(W3·h2 + b3)                    (K)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import BundleError

Array = NDArray[np.float64]

TENSORS = ("w1_patient", "w1_depth", "b1", "w2", "b2", "w3", "b3")


@dataclass(frozen=True)
class Head:
    """Weights of the head: w1_patient (F, P), w1_depth (F,), b1 (F,), w2 (M, F), b2 (M,), w3 (K, M), b3 (K,)."""

    w1_patient: Array
    w1_depth: Array
    b1: Array
    w2: Array
    b2: Array
    w3: Array
    b3: Array

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[np.floating]]) -> Self:
        """The head made of the tensors of ``head.safetensors``.

        Raises:
            BundleError: a tensor is missing, unknown, or does not fit the others.
        """
        if set(tensors) != set(TENSORS):
            raise BundleError(f"head.safetensors must hold exactly {', '.join(TENSORS)}. Export the bundle again.")
        head = cls(**{name: tensors[name].astype(np.float64) for name in TENSORS})
        features, middle, classes = len(head.b1), len(head.b2), len(head.b3)
        expected = {
            "w1_patient": (features, head.w1_patient.shape[-1]),
            "w1_depth": (features,),
            "w2": (middle, features),
            "w3": (classes, middle),
        }
        for name, shape in expected.items():
            if getattr(head, name).shape != shape:
                raise BundleError(f"head.safetensors: {name} does not fit the other tensors. Export the bundle again.")
        return head

    def logits(self, features: NDArray[np.floating], patient: Array) -> Array:
        """Logits (N, K) of tiles with features (N, F) for one patient vector (P,).

        No bit of a tile's logits depends on the other tiles.
        """
        offset = self.w1_patient @ patient + self.b1
        first = np.maximum(features.astype(np.float64) + offset, 0.0)
        second = np.maximum(_products(self.w2, first) + self.b2, 0.0)
        return _products(self.w3, second) + self.b3

    def probabilities(self, features: NDArray[np.floating], patient: Array) -> Array:
        """Class probabilities (N, K) of tiles with features (N, F) for one patient vector (P,)."""
        return softmax(self.logits(features, patient))

    def with_depth(self, features: NDArray[np.floating], depth_mm: NDArray[np.floating], measured_mm: float) -> Array:
        """Features (N, F) as if the estimated depth (N,) had been the measured one."""
        shift = measured_mm - depth_mm.astype(np.float64)
        return features.astype(np.float64) + shift[:, None] * self.w1_depth


def _products(weights: Array, rows: Array) -> Array:
    """Weights · row for each row: (M, F) and (N, F) → (N, M).

    N products of a matrix and a vector: in one product of two matrices, the last bit of a row would depend on how many
    others there are.
    """
    products: Array = np.matmul(weights, rows[:, :, None])[:, :, 0]
    return products


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True)) if logits.size else logits
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result
