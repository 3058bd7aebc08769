"""A model that tells a dark lesion from the skin around it."""

from pathlib import Path

import pytest
from bundles_for_tests import colour_rule_graph, make_bundle


@pytest.fixture(scope="session")
def dark_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour rule with a threshold between the darkness of dermis (0.36 to 0.42) and of a dark melanoma (0.6)."""
    graph = colour_rule_graph(64, threshold=0.46)
    return make_bundle(tmp_path_factory.mktemp("dark") / "dark.mminfer", graph=graph, tiles_grey=(255, 150, 120, 60))
