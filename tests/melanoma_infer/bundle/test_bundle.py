"""A bundle is trusted whole or not at all, and no parser sees a byte that was not hashed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles_for_tests import colour_rule_card, colour_rule_graph, make_bundle, tampered, with_card
from onnx import TensorProto, helper, numpy_helper

import melanoma_infer.bundle.bundle as bundle_module
from melanoma_infer.bundle.bundle import Bundle, open_bundle, parsed_bundle
from melanoma_infer.bundle.contents import CHECKSUMS, PACKAGED, bundle_contents, packaged_bundles
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError
from melanoma_infer.pipeline.scorer import Scorer

DEMO = PACKAGED / "demo.mminfer"


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parser of bundle files fails the test when it is called."""

    def parsed(*_: object, **__: object) -> None:
        pytest.fail("a parser saw bytes of a bundle that was not verified")

    for name in ("parse_card", "check_graph", "finite_tensors", "_golden"):
        monkeypatch.setattr(bundle_module, name, parsed)
    monkeypatch.setattr(json, "loads", parsed)
    monkeypatch.setattr(np, "load", parsed)


@pytest.mark.wheel
def test_the_packaged_demo_is_whole():
    demo = open_bundle("demo")
    assert "demo" in packaged_bundles()
    assert demo.card.trained is True
    assert demo.card.domain == "phantom"
    assert len(demo.card.classes) == 4
    assert demo.head is not None
    assert demo.head.w1_patient.shape == (128, demo.card.patient_columns)


@pytest.mark.wheel
@pytest.mark.parametrize("name", sorted(path.name for path in DEMO.iterdir()))
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999999])
@pytest.mark.usefixtures("no_parser")
def test_one_flipped_bit_in_any_file_is_refused_before_any_parser(tmp_path, name, place):
    copy = tmp_path / "copy.mminfer"
    shutil.copytree(DEMO, copy)
    content = bytearray((copy / name).read_bytes())
    content[int(place * len(content))] ^= 0x20  # swaps upper and lower case: a checksum file must not forgive that
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(copy)


@pytest.mark.usefixtures("no_parser")
def test_every_byte_of_the_checksums_counts(tmp_path):
    whole = (DEMO / CHECKSUMS).read_bytes()
    copy = tmp_path / "copy.mminfer"
    shutil.copytree(DEMO, copy)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 0x01
        (copy / CHECKSUMS).write_bytes(content)
        with pytest.raises(BundleError):
            open_bundle(copy)


@pytest.mark.parametrize("content", [b"", None])
@pytest.mark.usefixtures("no_parser")
def test_a_bundle_without_checksums_is_refused(tmp_path, content):
    with pytest.raises(BundleError):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", CHECKSUMS, content, resealed=False))


@pytest.mark.parametrize("ending", [b"\r\n", b"\n\n"])
@pytest.mark.usefixtures("no_parser")
def test_checksums_with_other_line_ends_are_refused(tmp_path, ending):
    content = (DEMO / CHECKSUMS).read_bytes().replace(b"\n", ending)
    with pytest.raises(BundleError):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", CHECKSUMS, content, resealed=False))


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.usefixtures("no_parser")
def test_an_extra_file_is_refused_even_when_it_is_listed(tmp_path, resealed):
    with pytest.raises(BundleError, match="does not belong"):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", "setup.py", b"import os", resealed=resealed))


@pytest.mark.usefixtures("no_parser")
def test_links_and_folders_are_refused(tmp_path):
    linked, nested = tmp_path / "linked.mminfer", tmp_path / "nested.mminfer"
    shutil.copytree(DEMO, linked)
    (linked / "card.json").unlink()
    (linked / "card.json").symlink_to(DEMO / "card.json")
    shutil.copytree(DEMO, nested)
    (nested / "more").mkdir()
    for copy in (linked, nested):
        with pytest.raises(BundleError, match="plain files"):
            open_bundle(copy)


@pytest.mark.parametrize("name", ["card.json", "golden.npz", "parity.json", "model.fp32.onnx", "head.safetensors"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(BundleError):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", name, None))


def test_weights_are_optional(tmp_path):
    assert open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", "weights.safetensors", None)).weights is None


@pytest.mark.parametrize("name", ["head.safetensors", "weights.safetensors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, name, value):
    from safetensors.numpy import load, save

    tensors = load((DEMO / name).read_bytes())
    key = sorted(tensors)[-1]
    tensors[key].flat[0] = value
    with pytest.raises(BundleError, match="NaN"):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", name, save(tensors)))


@pytest.mark.parametrize("name", ["card.json", "golden.npz", "parity.json", "model.fp32.onnx", "head.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95garbage", b"{" * 999, b'{"rows": 3}', b"PK\x05\x06"])
def test_rubbish_with_right_checksums_is_refused_without_another_error(tmp_path, name, content):
    with pytest.raises(BundleError):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", name, content))


def test_a_pickle_in_the_golden_tiles_is_refused_and_not_run(tmp_path):
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(canary), "w"))

    packed = io.BytesIO()
    np.savez(packed, tiles=np.array([Payload()], object))
    canary.unlink(missing_ok=True)
    with pytest.raises(BundleError):
        open_bundle(tampered(DEMO, tmp_path / "copy.mminfer", "golden.npz", packed.getvalue()))
    assert not canary.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "clinic"},
        {"surprise": 1},
        {"malignant": ["naevus"]},
        {"classes": ["a", "a", "b", "c"]},
        {"tile_px": 256},
        {"tile_px": "512 px"},
        {"tile_um": None},
        {"um_per_px": 1.0},
        {"outputs": ["features"]},
        {"resize": "nearest"},
        {"std": [0, 1, 1]},
        {"threshold": {"value": 0.5, "low": 0.6, "high": 0.7, "how": ""}},
        {"patient_fields": []},
        {"patient_fields": [{"name": "age", "values": ["young", "old"], "edges": [40, 60]}]},
    ],
)
def test_a_card_that_is_unknown_or_does_not_fit_is_refused(tmp_path, changes):
    with pytest.raises(BundleError):
        open_bundle(with_card(DEMO, tmp_path / "copy.mminfer", **changes))


def _bundle_of(tmp_path: Path, graph: onnx.ModelProto) -> Path:
    """The colour rule's bundle with another graph under right checksums."""
    whole = make_bundle(tmp_path / "whole.mminfer")
    return tampered(whole, tmp_path / "copy.mminfer", "model.fp32.onnx", graph.SerializeToString())


def test_the_colour_rule_itself_is_accepted(tmp_path):
    assert isinstance(open_bundle(_bundle_of(tmp_path, colour_rule_graph(64))), Bundle)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_a_graph_with_external_data_is_refused(tmp_path, location):
    graph = colour_rule_graph(64)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    with pytest.raises(BundleError, match="another file"):
        open_bundle(_bundle_of(tmp_path, graph))


def test_external_data_inside_a_node_is_refused(tmp_path):
    graph = colour_rule_graph(64)
    constant = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="weights.bin")
    graph.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=constant))
    with pytest.raises(BundleError, match="another file"):
        open_bundle(_bundle_of(tmp_path, graph))


@pytest.mark.parametrize("where", ["node", "opset", "branch"])
def test_a_graph_of_another_domain_is_refused(tmp_path, where):
    graph = colour_rule_graph(64)
    if where == "node":
        graph.graph.node[2].domain = "com.example"
    elif where == "opset":
        graph.opset_import.append(helper.make_opsetid("com.example", 1))
    else:
        foreign = helper.make_graph([helper.make_node("Evil", [], ["y"], domain="com.example")], "branch", [], [])
        graph.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=foreign, else_branch=foreign))
    with pytest.raises(BundleError, match="domain"):
        open_bundle(_bundle_of(tmp_path, graph))


def test_a_graph_with_local_functions_is_refused(tmp_path):
    graph = colour_rule_graph(64)
    function = helper.make_function(
        "", "Softmax", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    graph.functions.append(function)
    with pytest.raises(BundleError, match="local functions"):
        open_bundle(_bundle_of(tmp_path, graph))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_graph_with_weights_that_are_not_finite_is_refused(tmp_path, value):
    graph = colour_rule_graph(64)
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([value, 0], np.float32), "bias"))
    with pytest.raises(BundleError, match="NaN"):
        open_bundle(_bundle_of(tmp_path, graph))


@pytest.mark.parametrize("tile_px", [32, 128])
def test_a_graph_of_another_tile_size_is_refused(tmp_path, tile_px):
    with pytest.raises(BundleError, match="tiles"):
        open_bundle(_bundle_of(tmp_path, colour_rule_graph(tile_px)))


def test_a_graph_with_other_outputs_than_the_card_names_is_refused(tmp_path):
    with pytest.raises(BundleError, match="outputs"):
        open_bundle(_bundle_of(tmp_path, colour_rule_graph(64, outputs=("depth_mm",))))


def test_a_run_checks_the_graph_that_it_uses_and_no_runtime_gets_another(tmp_path):
    graph = colour_rule_graph(64)
    graph.graph.node[2].domain = "com.example"
    lazy = parsed_bundle(bundle_contents(_bundle_of(tmp_path, graph)), lazily=True)
    assert lazy.precisions == ("fp32",)
    assert "fp32" in lazy.graphs
    for use in (lambda: lazy.graphs["fp32"], lambda: dict(lazy.graphs), lambda: Scorer(lazy, "openvino")):
        with pytest.raises(BundleError, match="domain"):
            use()


def test_weights_that_are_not_finite_make_no_network(tmp_path):
    from safetensors.numpy import load, save

    tensors = load((DEMO / "weights.safetensors").read_bytes())
    tensors[sorted(tensors)[-1]].flat[0] = np.nan
    wrong = tampered(DEMO, tmp_path / "copy.mminfer", "weights.safetensors", save(tensors))
    with pytest.raises(BundleError, match="NaN"):
        Scorer(parsed_bundle(bundle_contents(wrong), lazily=True), "torch")


def test_a_card_of_eight_lines_is_enough():
    card = ModelCard.model_validate(
        {
            "name": "n", "classes": ["a", "b"], "malignant": ["b"], "tile_px": 224, "um_per_px": 0.5,
            "mean": [0, 0, 0], "std": [1, 1, 1], "resize": "pillow-bilinear",
        }
    )  # fmt: skip
    assert card.tile_side_um == 112.0
    assert card.top_area_mm2 == pytest.approx(0.112**2)
    assert (card.threshold, card.outcome, card.precision, card.evaluable_floor) == (None, None, "fp32", 0.8)


def test_runtimes_get_bytes_and_never_a_path(tmp_path):
    copy = shutil.copytree(DEMO, tmp_path / "copy.mminfer")
    opened = open_bundle(copy)
    shutil.rmtree(copy)
    assert Scorer(opened, "openvino").numerics.engine == "openvino"


def test_the_digest_names_the_content(tmp_path):
    first = make_bundle(tmp_path / "a.mminfer")
    same = make_bundle(tmp_path / "b.mminfer")
    other = make_bundle(tmp_path / "c.mminfer", colour_rule_card(region_threshold=0.4))
    assert open_bundle(first).digest == open_bundle(same).digest != open_bundle(other).digest
