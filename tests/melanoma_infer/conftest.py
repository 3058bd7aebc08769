"""Bundles for tests, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles_for_tests import colour_rule_card, make_bundle, minimal_card


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model of tissue, set by hand: dark tiles are tumour."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "colour.mminfer")


@pytest.fixture(scope="session")
def strict_colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour rule with a threshold that nothing on the slide reaches."""
    threshold = {"value": 0.9999999999, "low": 0.9999999999, "high": 0.9999999999, "how": "set by hand"}
    card = colour_rule_card(threshold=threshold, aggregator={"kind": "mean"})
    return make_bundle(tmp_path_factory.mktemp("bundles") / "strict.mminfer", card)


@pytest.fixture(scope="session")
def minimal_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight lines of card and a graph: tiles → probabilities."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "minimal.mminfer", minimal_card())
