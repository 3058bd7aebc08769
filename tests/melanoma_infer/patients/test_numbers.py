"""Numbers and scales as people and spreadsheets write them."""

import math

import pytest

from melanoma_infer.errors import UsageError
from melanoma_infer.patients.numbers import is_date, number, parse_scale, two_readings


@pytest.mark.parametrize(
    ("text", "value"),
    [("72", 72), ("72.0", 72), (" 7.5 ", 7.5), ("7,5", 7.5), ("0,125", 0.125), ("7.2e1", 72), ("-3", -3), (".5", 0.5)],
)
def test_a_number_may_have_a_point_or_a_comma(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", "1,000", "1.031", "1,2,3", "1_0", "٧٢", "0x20", "inf", "nan", "72 years", "1 000"]
)
def test_what_is_no_number_or_could_be_two_is_none(text):
    assert math.isnan(number(text))


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("1.031", ("1.031", "1031")),
        (" 52,567 ", ("52.567", "52567")),
        ("-3.500", ("-3.500", "-3500")),
        ("0.125", None),
        ("52.5", None),
        ("1.0310", None),
        ("1234.567", None),
        ("1.031,5", None),
    ],
)
def test_three_digits_after_the_only_separator_may_be_decimals_or_a_thousand(text, readings):
    assert two_readings(text) == readings


@pytest.mark.parametrize(("text", "found"), [("1953-04-01", True), ("1/4/53", True), ("72", False), ("72.5", False)])
def test_dates_are_told_from_numbers(text, found):
    assert is_date(text) is found


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("0.25", (0.25, 0.25)),
        ("0.25,0.5", (0.25, 0.5)),
        ("0.25x0.5", (0.25, 0.5)),
        ("0,25 x 0,5", (0.25, 0.5)),
        ("1", (1.0, 1.0)),
        ("1.031", (1.031, 1.031)),
        ("1,2", (1.0, 2.0)),
    ],
)
def test_a_scale_is_one_number_or_two(text, scale):
    assert parse_scale(text) == scale


@pytest.mark.parametrize("text", ["", ",", "0.25,", "a", "0", "0.25;0.25", "1,2,3", "0,25"])
def test_anything_else_is_no_scale(text):
    with pytest.raises(UsageError, match=r"0\.25"):
        parse_scale(text)


@pytest.mark.parametrize(("text", "scale"), [("0,25", 0.25), ("1,0", 1.0), ("0.25", 0.25)])
def test_a_scale_with_a_decimal_comma_is_one_number_where_two_make_no_sense(text, scale):
    assert parse_scale(text, decimal_comma=True) == (scale, scale)


def test_a_scale_that_could_be_one_number_or_two_is_refused():
    with pytest.raises(
        UsageError, match=r"'1,25' may mean 1\.25 or two scales. Write the one that is meant: 1\.25 or 1x25"
    ):
        parse_scale("1,25", decimal_comma=True)
