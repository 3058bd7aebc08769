"""The quarters that a submission's proofs are run in."""

from pathlib import Path

import pytest
from quarters_for_tests import LONGEST, QUARTERS, in_quarter


@pytest.fixture
def ids(request):
    """The ids of all tests that this session collected, and enough of others."""
    return {item.nodeid for item in request.session.items} | {f"tests/test_{n}.py::test_it[{n}]" for n in range(2000)}


def test_four_quarters_are_everything_and_each_test_is_in_one(ids):
    parts = [in_quarter(ids, quarter) for quarter in QUARTERS]
    assert set().union(*parts) == ids
    assert sum(map(len, parts)) == len(ids)


def test_no_quarter_is_much_larger_than_another(ids):
    assert all(0.2 < len(in_quarter(ids, quarter)) / len(ids) < 0.3 for quarter in QUARTERS)


def test_a_test_s_quarter_is_its_id_s_crc_32_in_any_company():
    assert in_quarter(["tests/test_docs.py::test_links"], 0) == {"tests/test_docs.py::test_links"}
    assert in_quarter(["tests/test_docs.py::test_links", "another"], 0) >= {"tests/test_docs.py::test_links"}


def test_the_longest_proofs_exist_and_are_one_a_quarter():
    sources = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert all(f"def {name}(" in sources for name in LONGEST)
    for quarter in QUARTERS:
        assert len(in_quarter({f"tests/any.py::{name}" for name in LONGEST}, quarter)) == 1
