"""A broken graph, and the stage where it is broken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from broken_bundles_for_tests import (
    as_int8,
    drop_bias,
    edited,
    forget_255,
    swap_attention_inputs,
    swap_colours,
    without,
)

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.verification.intermediate import every_value
from melanoma_infer.verification.localise import first_difference, paired, told_by_outputs
from melanoma_infer.verification.sample import drawn_sample
from melanoma_infer.verification.stages import stages_of


@pytest.fixture(scope="module")
def tile():
    return open_bundle("demo").golden.tiles[-1:]


@pytest.mark.parametrize(
    ("edit", "stage", "detail"),
    [
        (swap_colours, "input", "BGR"),
        (forget_255, "input", "no division by 255"),
        (swap_attention_inputs, "attention", "attention"),
        (drop_bias(20), "backbone", "backbone.layer2"),
        (drop_bias(54), "depth", "depth.conv2"),
    ],
)
def test_our_own_network_s_steps_tell_where_its_export_is_broken(demo_folder, tile, tmp_path, edit, stage, detail):
    bundle = open_bundle(edited(demo_folder, tmp_path / "broken.mminfer", edit))
    found = first_difference(bundle, "onnxruntime", "fp32", tile)
    assert found.stage == stage
    assert detail in found.detail


@pytest.mark.parametrize(("edit", "detail"), [(swap_colours, "BGR"), (forget_255, "no division by 255")])
def test_without_weights_a_wrong_input_is_found_by_undoing_it(demo_folder, tile, tmp_path, edit, detail):
    plain = without(demo_folder, tmp_path / "plain.mminfer", "weights.safetensors")
    found = first_difference(open_bundle(edited(plain, tmp_path / "broken.mminfer", edit)), "openvino", "fp32", tile)
    assert found.stage == "input"
    assert detail in found.detail


def test_a_misread_int8_file_first_differs_in_the_backbone(small, tmp_path):
    misread = open_bundle(edited(small, tmp_path / "misread.mminfer", as_int8, "int8"))
    right = open_bundle(small)
    tiles = drawn_sample(right, 4).tiles
    darkest = tiles[tiles.mean(axis=(1, 2, 3)).argmin()][None]  # what it makes of this tile is cut off
    assert first_difference(misread, "onnxruntime", "int8", darkest).stage == "backbone"
    assert first_difference(right, "onnxruntime", "int8", darkest).stage is None


def test_a_right_graph_has_no_first_difference(demo_folder, tile):
    found = first_difference(open_bundle(demo_folder), "openvino", "fp32", tile)
    assert found.stage is None
    assert "no single fault" in found.detail


def test_values_are_paired_by_their_place_when_names_are_others(demo_folder, tile):
    graph = open_bundle(demo_folder).graphs["fp32"]
    model = onnx.load_model_from_string(graph)
    kept = {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = name if name in kept or not name else f"other_{name}"
    del model.graph.value_info[:]
    plain, renamed = (
        every_value(each, tile, engine="onnxruntime", precision="fp32") for each in (graph, model.SerializeToString())
    )
    pairs = list(paired(plain, renamed))
    assert len(pairs) == len(plain)
    assert all(np.array_equal(one.array, two.array) for one, two in pairs)


def test_every_stage_of_the_demo_s_graph_is_told(demo_folder):
    graph = onnx.load_model_from_string(open_bundle(demo_folder).graphs["fp32"]).graph
    stages = stages_of(graph)
    ops = {node.output[0]: node for node in graph.node}
    assert {stages[name] for name in stages} == {
        "input", "backbone", "depth", "attention", "projection", "head", "maps"
    }  # fmt: skip
    convolutions = [stages[name] for name, node in ops.items() if node.op_type == "Conv"]
    # 53 of the backbone, three of the depth, the attention's 7 × 7, and the projection.
    assert [convolutions.count(stage) for stage in ("backbone", "depth", "attention", "projection")] == [53, 3, 1, 1]
    assert (stages["depth_mm"], stages["attention"], stages["features"]) == ("depth", "attention", "projection")
    assert (stages["probabilities"], stages["cam"]) == ("head", "maps")


@pytest.mark.parametrize(
    ("wrong", "stage"),
    [
        (("attention", "depth_mm", "features", "probabilities"), "input"),
        (("attention", "features", "probabilities", "cam"), "backbone"),
        (("depth_mm", "features", "probabilities"), "depth"),
        (("features", "probabilities"), "projection"),
        (("probabilities",), "head"),
        (("cam",), "maps"),
    ],
)
def test_outputs_alone_tell_the_first_stage_that_can_be_at_fault(wrong, stage):
    assert told_by_outputs(wrong, ("depth_mm", "attention", "cam", "features")).stage == stage


def test_probabilities_alone_tell_no_stage():
    assert told_by_outputs(("probabilities",), ()).stage is None
