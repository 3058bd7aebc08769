"""Patient values: an error where a person types one that is not understood, unknown where a manifest says one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.card import UNKNOWN, PatientField
from melanoma_infer.errors import PatientValueError
from melanoma_infer.patients.patient import (
    Patient,
    lenient_patient,
    one_hot,
    stated_specimen,
    stated_stain,
    strict_patient,
)

QUICK = settings(deadline=None, max_examples=60, derandomize=True)
AGE = PatientField(name="age", values=("under_40", "40_to_54", "55_to_69", "70_and_over"), edges=(40, 55, 70))
SEX = PatientField(name="sex", values=("female", "male"))
SITE = PatientField(name="site", values=("head_neck", "trunk", "upper_limb", "lower_limb", "acral", "mucosal"))
ULCERATION = PatientField(name="ulceration", values=("no", "yes"))
GENE = PatientField(name="braf", values=("V600E", "wild type", "none"))
FIELDS = (AGE, SEX, SITE, ULCERATION)


def used(name, value, fields=FIELDS):
    return strict_patient({name: value}, fields).values[name]


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0, "under_40"),
        (39.99, "under_40"),
        (40, "40_to_54"),
        ("54", "40_to_54"),
        (55, "55_to_69"),
        ("69.5", "55_to_69"),
        (70, "70_and_over"),
        (120, "70_and_over"),
        ("55_to_69", "55_to_69"),
        ("unknown", UNKNOWN),
        ("", UNKNOWN),
        ("NA", UNKNOWN),
        ("#N/A", UNKNOWN),
        (None, UNKNOWN),
        ("72.0", "70_and_over"),
        ("39,99", "under_40"),
        ("70 and over", "70_and_over"),
    ],
)
def test_an_age_falls_in_the_band_that_begins_at_or_below_it(age, band):
    assert used("age", age) == band


@pytest.mark.parametrize(
    ("interval", "band"),
    [
        ("[34:36[", "under_40"),
        ("[38:40[", "under_40"),
        ("[40:42[", "40_to_54"),
        ("]40;42]", "40_to_54"),
        ("[ 70 , 72 [", "70_and_over"),
    ],
)
def test_an_interval_counts_where_it_lies_in_one_band(interval, band):
    assert used("age", interval) == band


@pytest.mark.parametrize("interval", ["[39:41[", "[30:60]", "[38-40]", "[60:41["])
def test_an_interval_that_lies_in_no_single_band_is_named(interval):
    with pytest.raises(PatientValueError, match=r"is in more than one of under_40, 40_to_54, .*\. Give one\.$"):
        used("age", interval)


@pytest.mark.parametrize(
    ("age", "says"),
    [
        ("1.031", "'1.031' may mean 1.031 or 1031. Write 1.0310 or 1031."),
        ("52,567", "'52,567' may mean 52.567 or 52567. Write 52.5670 or 52567."),
    ],
)
def test_an_age_that_may_mean_two_numbers_is_refused_with_both(age, says):
    with pytest.raises(PatientValueError) as caught:
        used("age", age)
    assert str(caught.value) == f"age: {says}"


@pytest.mark.parametrize(
    "age", [-1, 121, 1e9, "-0.5", "nan?", "inf", "sixty", "[34:400[", "34:36", "0x20", "5_5", "٥٥"]
)
def test_an_impossible_age_is_refused_with_what_is_possible(age):
    with pytest.raises(
        PatientValueError, match=r"^age: '.*' is not allowed. Give a number from 0 to 120, under_40, .* or unknown"
    ):
        used("age", age)


def test_a_number_that_is_no_age_has_no_upper_limit():
    field = PatientField(name="mitoses", values=("few", "many"), edges=(5,))
    assert used("mitoses", 4000, (field,)) == "many"
    with pytest.raises(PatientValueError, match=r"mitoses: '-3' is not allowed. Give a number, few, many or unknown"):
        used("mitoses", -3, (field,))


@pytest.mark.parametrize("date", ["1953-04-01", "1.4.1953", "04/01/1953", "19530401", "1953-04-01T00:00:00"])
def test_no_age_is_made_of_a_date_of_birth_not_even_in_a_manifest(date):
    for read in (strict_patient, lenient_patient):
        with pytest.raises(PatientValueError, match=f"age: '{date}' is a date. Give the age in years"):
            read({"age": date}, FIELDS)
    assert lenient_patient({"age": date}, (SEX,)) == (Patient({"sex": UNKNOWN}), {})


@pytest.mark.parametrize(
    ("typed", "word"),
    [("Female", "female"), (" MALE ", "male"), ("n/a", UNKNOWN), ("F", "female"), ("m", "male"), ("f", "female")],
)
def test_case_spaces_and_short_words_do_not_matter(typed, word):
    assert used("sex", typed) == word
    assert lenient_patient({"sex": typed}, FIELDS)[0].values["sex"] == word


@pytest.mark.parametrize(
    ("typed", "word"),
    [("Upper limb", "upper_limb"), ("head/neck", "head_neck"), ("Head & Neck", "head_neck"), ("TRUNK", "trunk")],
)
def test_words_of_a_name_may_be_separated_otherwise(typed, word):
    assert used("site", typed) == word


def test_a_word_that_could_be_two_of_the_cards_is_none_of_them():
    field = PatientField(name="gene", values=("a-1", "a 1", "braf-", "braf+"))
    assert used("gene", "a-1", (field,)) == "a-1"
    for text in ("A_1", "braf"):
        with pytest.raises(PatientValueError, match="Give a-1, a 1, braf-, braf\\+ or unknown"):
            used("gene", text, (field,))


@pytest.mark.parametrize(
    ("typed", "word"), [("V600E", "V600E"), ("v600e", "V600E"), ("Wild Type", "wild type"), ("none", "none")]
)
def test_a_cards_own_word_wins_in_its_own_spelling(typed, word):
    """The word none may be a finding: only where the card does not have the word does it mean that nothing is known."""
    assert used("braf", typed, (GENE,)) == word
    assert lenient_patient({"braf": typed}, (GENE,))[0].values == {"braf": word}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("sex", "femal", "female, male or unknown"),
        ("site", "left arm", "head_neck, trunk, upper_limb, lower_limb, acral, mucosal or unknown"),
        ("site", "m", "head_neck, trunk, upper_limb, lower_limb, acral, mucosal or unknown"),
    ],
)
def test_a_value_outside_the_vocabulary_is_refused_with_all_words(name, value, words):
    with pytest.raises(PatientValueError, match=f"^{name}: '{value}' is not allowed. Give {words}.$") as caught:
        used(name, value)
    assert caught.value.exit_code == 13


def test_a_message_shows_the_beginning_of_a_long_value():
    with pytest.raises(PatientValueError) as caught:
        used("sex", "x" * 10_000)
    assert len(str(caught.value)) < 200


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(PatientValueError, match="Did you mean site"):
        strict_patient({"sites": "trunk"}, FIELDS)
    with pytest.raises(PatientValueError, match=r"It has age, sex, site, ulceration\.$"):
        strict_patient({"zzz": "trunk"}, FIELDS)
    with pytest.raises(PatientValueError, match="uses no patient data"):
        strict_patient({"age": 50}, ())


def test_a_patient_of_whom_nothing_is_said_is_unknown_everywhere():
    patient = strict_patient({}, FIELDS)
    assert patient.values == dict.fromkeys(("age", "sex", "site", "ulceration"), UNKNOWN)
    assert set(patient.values.values()) <= {"unknown"}
    assert strict_patient({"sex": "male"}, FIELDS).values["sex"] == "male"


@pytest.mark.parametrize("value", ["yes", "no", "unknown", "YES ", "Y", "n", "present", "FALSE"])
def test_ulceration_is_kept_whether_or_not_the_model_uses_it(value):
    word = {"y": "yes", "present": "yes", "n": "no", "false": "no"}.get(value.lower(), value.strip().lower())
    assert strict_patient({"ulceration": value}, (SEX,)) == Patient({"sex": UNKNOWN}, word)
    assert strict_patient({"ulceration": value}, FIELDS).ulceration == word
    assert strict_patient({"ulceration": value}, FIELDS).values["ulceration"] == word


def test_ulceration_is_yes_no_or_unknown():
    with pytest.raises(PatientValueError, match=r"ulceration: 'maybe' is not allowed. Give yes, no or unknown"):
        strict_patient({"ulceration": "maybe"}, (SEX,))


def test_a_manifests_values_are_read_leniently_and_what_is_not_understood_is_named():
    row = {"age": "200", "sex": "Female", "site": "tunk", "ulceration": "perhaps", "id": "x"}
    patient, misread = lenient_patient(row, FIELDS)
    assert patient.values == {"age": UNKNOWN, "sex": "female", "site": UNKNOWN, "ulceration": UNKNOWN}
    assert patient.ulceration == UNKNOWN
    assert list(misread) == ["age", "site", "ulceration"]
    assert misread["ulceration"] == "'perhaps' is not allowed. Give no, yes or unknown."


def test_a_card_may_have_its_own_words_for_ulceration():
    field = PatientField(name="ulceration", values=("ulcerated", "intact"))
    assert lenient_patient({"ulceration": "Intact"}, (field,)) == (Patient({"ulceration": "intact"}, UNKNOWN), {})


@pytest.mark.parametrize("text", ["", "NA", "n/a", "NaN", "None", "unknown", "[Not Available]", "Not reported"])
def test_missing_values_of_a_manifest_are_unknown_and_no_mistake(text):
    patient, misread = lenient_patient({"age": text, "sex": text, "ulceration": text}, FIELDS)
    assert set(patient.values.values()) == {UNKNOWN}
    assert misread == {}


def test_ulceration_that_the_model_does_not_use_is_still_checked():
    assert lenient_patient({"ulceration": "perhaps"}, (SEX,))[1] == {
        "ulceration": "'perhaps' is not allowed. Give yes, no or unknown."
    }
    assert lenient_patient({"ulceration": "yes"}, (SEX,))[0].ulceration == "yes"


def test_one_hot_is_each_fields_values_then_its_unknown():
    patient = strict_patient({"age": 56, "site": "trunk"}, FIELDS)
    assert one_hot(patient, FIELDS).tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert one_hot(Patient(), FIELDS).tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert one_hot(Patient(), ()).shape == (0,)


@QUICK
@given(st.data())
def test_every_patient_has_one_one_for_each_field(data):
    given_values = {field.name: data.draw(st.sampled_from((*field.values, UNKNOWN))) for field in FIELDS}
    vector = one_hot(strict_patient(given_values, FIELDS), FIELDS)
    start = 0
    for field in FIELDS:
        block = vector[start : start + field.columns]
        assert np.flatnonzero(block).tolist() == [[*field.values, UNKNOWN].index(given_values[field.name])]
        assert block.sum() == 1
        start += field.columns
    assert start == len(vector)


@pytest.mark.parametrize(
    ("text", "word"), [("H&E", "H&E"), ("he", "H&E"), (" h&amp;e ", "H&E"), ("ihc", "IHC"), ("unknown", None)]
)
def test_stains_have_one_spelling(text, word):
    assert stated_stain(text) == word


@pytest.mark.parametrize(("text", "word"), [("Primary", "primary"), ("RE-excision", "re-excision"), ("", None)])
def test_specimens_have_one_spelling(text, word):
    assert stated_specimen(text) == word


@pytest.mark.parametrize(("parse", "words"), [(stated_stain, "H&E, IHC"), (stated_specimen, "primary, re-excision")])
def test_an_unknown_stain_or_specimen_is_refused_with_the_words(parse, words):
    with pytest.raises(PatientValueError, match=words):
        parse("purple")
