"""Tile results → slide result: their order changes no bit, and every count and share is what it is by hand."""

from dataclasses import replace

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from slides_for_tests import facts_of

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.card import ClassPriors
from melanoma_infer.engines.base import Numerics
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import Patient, one_hot, strict_patient
from melanoma_infer.records import Identity, TileResult, Tissue
from melanoma_infer.result import comparable
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.settings import Settings
from melanoma_infer.slides.scale import KnownScale
from melanoma_infer.tiles.grid import place_tiles, tile_geometry
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.read_plan import read_plan

QUICK = settings(deadline=None, max_examples=25, derandomize=True)
OPENVINO = Numerics("openvino", "1", "fp32", "CPU")
TORCH = Numerics("torch", "1", "fp32", "CPU")
SIZE = SizePx(18_000, 12_500)
"""At 0.5 µm/px: 3 × 2.08 tiles of 3 mm, so three rows of three, the last of them mostly beyond the edge."""


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bundle without features: two classes, tiles of 3 mm."""
    card = colour_rule_card(tile_um=3000.0, aggregator={"kind": "mean"})
    return open_bundle(make_bundle(tmp_path_factory.mktemp("bundles") / "plain.mminfer", card))


def plan_of(bundle, settings=Settings(), *, mask=None, size=SIZE, px_l0=100.0):  # noqa: B008 - frozen
    shape = (int(size.height // px_l0), int(size.width // px_l0))
    mask = np.ones(shape, bool) if mask is None else mask
    tissue = Tissue(mask, np.zeros_like(mask), np.zeros_like(mask), px_l0, 20, 240.0, True, "found")
    facts, scale = facts_of([(size.width, size.height)], is_phantom=True), Scale(0.5, 0.5)
    geometry = tile_geometry(bundle.card, settings)
    return SlidePlan(
        facts,
        Identity("ab" * 32, 1, 2, 1),
        settings,
        KnownScale(scale, "slide"),
        tissue,
        geometry,
        read_plan(facts, scale, geometry, bundle.card),
        tuple(place_tiles(size, scale, tissue, geometry)),
    )


def demo_result(demo, tile, *, golden=None, status="ok"):
    if status != "ok":
        return TileResult(tile, None, tile.outside_fraction, status)
    row = tile.index % 4 if golden is None else golden
    return TileResult(tile, {name: v[row] for name, v in demo.golden.outputs.items()}, tile.outside_fraction)


def plain_result(tile, p):
    return TileResult(tile, {"probabilities": np.array([1 - p, p], np.float32)}, tile.outside_fraction)


class Collected:
    """Tile results of one slide, and the slide's result from those seen so far."""

    def __init__(self, bundle, plan, case, numerics):
        self.bundle, self.plan, self.case, self.numerics, self.results = bundle, plan, case, numerics, []

    def add(self, result):
        self.results.append(result)

    def result(self):
        return slide_result(self.plan, tile_table(self.results, self.bundle), self.case, self.bundle, self.numerics)


def collected(bundle, plan, *, case=SlideCase("case"), numerics=OPENVINO, **settings):  # noqa: B008 - frozen
    return Collected(bundle, replace(plan, settings=Settings(**settings)), case, numerics)


def assert_same_tables(one, two):
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            other = getattr(two, name)
            assert value.dtype == other.dtype
            assert value.tobytes() == other.tobytes(), name
        else:
            assert value == getattr(two, name)


def hot_patient(demo):
    return strict_patient({"age": 71, "sex": "male", "ulceration": "yes"}, demo.card.patient_fields)


@QUICK
@given(order=st.permutations(range(9)), unreadable=st.sets(st.integers(0, 8), max_size=3), known=st.booleans())
def test_the_order_of_tile_results_changes_no_bit_and_asking_in_between_changes_nothing(demo, order, unreadable, known):
    plan = plan_of(demo)
    case = SlideCase("case", patient=hot_patient(demo) if known else None)
    results = [
        demo_result(demo, tile, status="read-failed" if tile.index in unreadable else "ok") for tile in plan.tiles
    ]
    sorted_in, mixed = collected(demo, plan, case=case), collected(demo, plan, case=case)
    for result in results:
        sorted_in.add(result)
    for index in order:
        mixed.add(results[index])
        mixed.result()
    expected, found = sorted_in.result(), mixed.result()
    assert comparable(found) == comparable(expected)
    assert_same_tables(found.tiles, expected.tiles)
    assert found.tiles.minx.tolist() == [0, 6000, 12000] * 3
    assert found.tiles.miny.tolist() == [0] * 3 + [6000] * 3 + [12000] * 3


def test_a_second_result_for_a_tile_replaces_the_first(plain):
    plan = plan_of(plain)
    tiles = collected(plain, plan)
    tiles.add(TileResult(plan.tiles[0], None, 0.0, "read-failed"))
    tiles.add(plain_result(plan.tiles[0], 0.9))
    result = tiles.result()
    assert (result.tiles_counted.ok, result.tiles_counted.unreadable) == (1, 0)
    assert result.malignant_score == pytest.approx(0.9, rel=1e-6)


def test_a_running_result_counts_what_is_not_evaluated_yet(plain):
    plan = plan_of(plain)
    tiles = collected(plain, plan)
    counts, scores = [], []
    for tile, p in zip(plan.tiles, (0.5, 0.25, 0.0, 1.0, 0.75, 0.5, 0.5, 0.5, 0.5), strict=True):
        tiles.add(plain_result(tile, p))
        result = tiles.result()
        counts.append((result.tiles_counted.ok, result.tiles_counted.not_evaluated))
        scores.append(result.malignant_score)
    assert counts == [(done, 9 - done) for done in range(1, 10)]
    assert scores[:4] == [0.5, 0.375, 0.25, 0.4375]


def test_before_the_first_tile_there_is_no_score_and_nothing_is_claimed(plain):
    result = collected(plain, plan_of(plain)).result()
    assert result.malignant_score is None
    assert result.verdict == "indeterminate"
    assert [reason.code for reason in result.reasons] == ["low-evaluable-tissue", "scan-incomplete"]
    assert (result.evaluable_fraction, result.tiles_counted.not_evaluated, len(result.tiles)) == (0.0, 9, 0)


def test_the_evaluable_fraction_is_the_tissue_in_readable_tiles_by_hand(plain):
    """Mask pixels are 50 µm; tiles 60 of them. 60 × 30 in tile 0, 10 × 30 in tile 1: 0.75 without the second."""
    mask = np.zeros((125, 180), bool)
    mask[:30, :60] = True
    mask[:30, 60:80] = True
    plan = plan_of(plain, mask=mask)
    assert [tile.tissue_fraction for tile in plan.tiles] == pytest.approx([0.5, 30 * 20 / 3600])
    tiles = collected(plain, plan)
    tiles.add(plain_result(plan.tiles[0], 0.1))
    tiles.add(TileResult(plan.tiles[1], None, 0.0, "read-failed"))
    result = tiles.result()
    assert result.evaluable_fraction == 0.75
    assert result.tissue_mm2 == pytest.approx(30 * 80 * 0.05**2)
    assert [reason.code for reason in result.reasons] == ["low-evaluable-tissue", "hot-tiles-unreadable"]


def test_tissue_below_the_limit_of_every_tile_is_not_evaluable(plain):
    mask = np.zeros((125, 180), bool)
    mask[:30, :60] = True
    mask[100, 100:110] = True  # 0.025 mm² of a 9 mm² tile
    plan = plan_of(plain, mask=mask)
    assert len(plan.tiles) == 1
    tiles = collected(plain, plan)
    tiles.add(plain_result(plan.tiles[0], 0.1))
    assert tiles.result().evaluable_fraction == pytest.approx(1800 / 1810)


def test_tiles_that_overlap_count_their_tissue_once(plain):
    plan = plan_of(plain, Settings(stride_um=1000.0))
    tiles = collected(plain, plan, stride_um=1000.0)
    for tile in plan.tiles:
        tiles.add(plain_result(tile, 0.1))
    assert tiles.result().evaluable_fraction == 1.0
    assert tiles.result().geometry.matches_card


def test_unreadable_rows_are_nan_and_counted(demo):
    plan = plan_of(demo)
    tiles = collected(demo, plan)
    for tile in plan.tiles:
        tiles.add(demo_result(demo, tile, status={2: "read-failed", 5: "non-finite-output"}.get(tile.index, "ok")))
    result, table = tiles.result(), tiles.result().tiles
    assert (result.tiles_counted.ok, result.tiles_counted.unreadable) == (7, 2)
    assert np.flatnonzero(table.status == "unreadable").tolist() == [2, 5]
    for name in ("probabilities", "depth_mm", "features", "attention", "cam"):
        rows = getattr(table, name).reshape(9, -1)
        assert np.isnan(rows).all(axis=1).tolist() == [i in (2, 5) for i in range(9)], name
        assert np.isfinite(rows[[0, 1, 3, 4, 6, 7, 8]]).all(), name
    values = {reason.code: reason.value for reason in result.reasons}
    assert (values["hot-tiles-unreadable"], values["non-finite-output"]) == (1, 1)


def test_a_slide_without_a_readable_tile_has_empty_columns_and_no_score(demo):
    plan = plan_of(demo)
    tiles = collected(demo, plan)
    for tile in plan.tiles:
        tiles.add(demo_result(demo, tile, status="read-failed"))
    result = tiles.result()
    assert result.malignant_score is None
    assert np.isnan(result.tiles.probabilities).all()
    assert len(result.tiles.features) == 9


def test_padded_tiles_are_counted_and_their_shares_averaged(plain):
    """The third row begins at 12 000 of 12 500 px: 5500/6000 of it lie beyond, a mean of 0.31 over three rows."""
    plan = plan_of(plain)
    tiles = collected(plain, plan)
    for tile in plan.tiles:
        tiles.add(plain_result(tile, 0.1))
    result = tiles.result()
    assert result.tiles_counted.padded == 3
    np.testing.assert_allclose(result.tiles.padded_fraction, [0.0] * 6 + [5500 / 6000] * 3, atol=1e-12)
    strict = replace(plain, card=plain.card.model_copy(update={"padding_limit": 0.3}))
    again = collected(strict, plan)
    for tile in plan.tiles:
        again.add(plain_result(tile, 0.1))
    (reason,) = again.result().reasons
    assert (reason.code, reason.value) == ("mostly-padding", round(5500 / 6000 / 3, 4))


@pytest.mark.parametrize(("p", "verdict"), [(0.1, "not-detected"), (0.5, "indeterminate"), (0.9, "suspected")])
def test_the_score_decides_the_verdict(plain, p, verdict):
    plan = plan_of(plain)
    tiles = collected(plain, plan)
    for tile in plan.tiles:
        tiles.add(plain_result(tile, p))
    result = tiles.result()
    assert result.verdict == verdict
    assert result.malignant_score == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", 0.25), ("max", 0.75), ("top-area-mean", 0.75)])
def test_settings_choose_the_aggregator_and_another_than_the_cards_has_no_threshold(plain, aggregate, expected):
    plan = plan_of(plain)
    tiles = collected(plain, plan, aggregate=aggregate)
    for tile in plan.tiles:
        tiles.add(plain_result(tile, 0.75 if tile.index % 3 == 1 else 0.0))
    result = tiles.result()
    assert result.malignant_score == pytest.approx(expected)
    assert result.geometry.aggregator == aggregate
    assert (result.verdict == "not-configured") == (aggregate != "mean")


def test_probabilities_are_the_hosts_head_for_the_patient(demo):
    plan, patient = plan_of(demo), hot_patient(demo)
    tiles = collected(demo, plan, case=SlideCase("case", patient=patient))
    for tile in plan.tiles[:4]:
        tiles.add(demo_result(demo, tile))
    table = tiles.result().tiles
    expected = demo.head.probabilities(demo.golden.outputs["features"], one_hot(patient, demo.card.patient_fields))
    np.testing.assert_array_equal(table.probabilities, expected)


def test_golden_patients_give_the_sealed_probabilities(demo):
    """Patient 3 of the golden file is known in part: its row was computed when the bundle was made."""
    plan = plan_of(demo)
    fields, at = demo.card.patient_fields, 0
    values = {}
    for field in fields:
        block = demo.golden.patients[3][at : at + field.columns]
        values[field.name] = [*field.values, "unknown"][int(block.argmax())]
        at += field.columns
    tiles = collected(demo, plan, case=SlideCase("case", patient=Patient(values)))
    tiles.add(demo_result(demo, plan.tiles[0], golden=3))
    np.testing.assert_allclose(tiles.result().tiles.probabilities[0], demo.golden.host_probabilities[3], atol=1e-6)


def test_a_patient_changes_probabilities_and_score_and_nothing_that_was_seen(demo):
    plan = plan_of(demo)
    results = []
    for patient in (None, hot_patient(demo)):
        tiles = collected(demo, plan, case=SlideCase("case", patient=patient))
        for tile in plan.tiles:
            tiles.add(demo_result(demo, tile))
        results.append(tiles.result())
    without, with_patient = results
    assert np.abs(without.tiles.probabilities - with_patient.tiles.probabilities).max() > 0.05
    assert without.malignant_score != with_patient.malignant_score
    for name in ("features", "depth_mm", "attention", "cam", "minx", "miny", "status"):
        np.testing.assert_array_equal(getattr(without.tiles, name), getattr(with_patient.tiles, name))
    np.testing.assert_array_equal(with_patient.tiles.features[:4], demo.golden.outputs["features"])
    assert without.patient is None
    assert with_patient.patient.malignant_score_without == without.malignant_score
    assert with_patient.patient.values["age"] == "70_and_over"
    assert with_patient.patient.ulceration == "yes"


def test_a_patient_of_whom_nothing_is_known_has_one_score(demo):
    plan = plan_of(demo)
    tiles = collected(demo, plan, case=SlideCase("case", patient=strict_patient({}, demo.card.patient_fields)))
    for tile in plan.tiles:
        tiles.add(demo_result(demo, tile))
    result = tiles.result()
    assert result.patient.malignant_score_without == result.malignant_score


def test_patient_values_are_used_and_not_written_where_they_must_not_be(demo):
    plan = plan_of(demo)
    written = {}
    for shown in (True, False):
        case = SlideCase("case", patient=hot_patient(demo), patient_in_output=shown)
        tiles = collected(demo, plan, case=case)
        tiles.add(demo_result(demo, plan.tiles[0]))
        written[shown] = tiles.result()
    assert written[False].patient is None
    assert "70_and_over" not in written[False].model_dump_json()
    assert written[False].malignant_score == written[True].malignant_score


def test_the_engines_band_is_none_for_the_reference_twice_what_was_sealed_else_the_tolerance(plain):
    plan = plan_of(plain)
    threshold = {"value": 0.5, "low": 0.5, "high": 0.5, "how": "by hand"}
    sharp = replace(plain, card=type(plain.card).model_validate(plain.card.model_dump() | {"threshold": threshold}))
    codes = {}
    for numerics, p in [(TORCH, 0.5), (OPENVINO, 0.50005), (OPENVINO, 0.5002)]:
        tiles = collected(sharp, plan, numerics=numerics)
        for tile in plan.tiles:
            tiles.add(plain_result(tile, p))
        codes[numerics.engine, p] = [reason.code for reason in tiles.result().reasons]
    assert codes == {("torch", 0.5): [], ("openvino", 0.50005): ["engine-band"], ("openvino", 0.5002): []}


def test_class_normalisation_reaches_the_table_and_the_score(plain):
    priors = ClassPriors(trained={"normal": 0.5, "tumour": 0.5}, stated={"normal": 0.9, "tumour": 0.1})
    bundle = replace(plain, card=plain.card.model_copy(update={"class_priors": priors}))
    plan = plan_of(bundle)
    tiles = collected(bundle, plan)
    tiles.add(plain_result(plan.tiles[0], 0.75))
    result = tiles.result()
    np.testing.assert_allclose(result.tiles.probabilities, [[0.75, 0.25]], rtol=1e-6)
    assert result.malignant_score == pytest.approx(0.25, rel=1e-6)


def test_a_model_without_maps_depth_or_features_states_that_they_are_missing(plain):
    plan = plan_of(plain)
    tiles = collected(plain, plan)
    tiles.add(plain_result(plan.tiles[0], 0.1))
    result = tiles.result()
    table = result.tiles
    assert (table.depth_mm, table.features, table.attention, table.cam) == (None, None, None, None)
    assert (result.thickness.state, result.thickness.mm) == ("not-assessable", None)
    assert "does not estimate depth" in result.thickness.reason
    assert (result.outcome, result.outcome_name, result.outcome_score) == ("not-assessed", None, None)
