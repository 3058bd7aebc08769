"""What the packages offer is what they say they offer."""

from __future__ import annotations

import pytest

import melanoma_infer


@pytest.mark.wheel
def test_every_public_name_is_there_and_nothing_else_is_named():
    assert sorted(melanoma_infer.__all__) == melanoma_infer.__all__ == dir(melanoma_infer)
    for name in melanoma_infer.__all__:
        assert getattr(melanoma_infer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'score_slides_fast'"):
        _ = melanoma_infer.score_slides_fast
