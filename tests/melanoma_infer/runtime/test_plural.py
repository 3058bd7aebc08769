"""A count with its noun."""

import pytest

from melanoma_infer.runtime.plural import plural


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 golden tiles"), (1, "1 golden tile"), (2, "2 golden tiles"), (21, "21 golden tiles")]
)
def test_only_one_is_singular(count, said):
    assert plural(count, "golden tile") == said
