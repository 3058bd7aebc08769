"""A graph split before its tail: the front and the plugins' operators give what the whole graph gives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import from_array, to_array

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.graph_checks import self_contained_model
from melanoma_infer.bundle.half import to_half
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.errors import EngineUnavailableError
from mminfer_export.plugin_tail import TAIL, split, weights_of
from mminfer_export.run_onnx import load_onnx
from mminfer_export.tensorrt_plugins import require_plugins
from mminfer_export.to_tensorrt import plugin_tail_of
from mminfer_kernels import reference
from mminfer_kernels.reference import Classifier

PRECISIONS = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1e-4}
"""The largest difference from the whole graph, as a fraction of an output's largest value."""


@pytest.fixture(scope="module")
def demo():
    opened = open_bundle("demo")
    return replace(opened, graphs={**opened.graphs, "fp16": to_half(opened.graphs["fp32"])})


@pytest.fixture(scope="module")
def net(demo):
    return network_of(demo)


def tail_of_plugins(x, depth, weights):
    """What the two plugins compute, in PyTorch, from the arrays that the network gets."""
    tensors = {name: torch.from_numpy(array).float() for name, array in weights.items()}
    classifier = Classifier(depth, *(tensors[name] for name in Classifier._fields[1:]))
    projection = reference.attention_project(x, tensors["w1_image"])
    return reference.attention_head(projection, tensors["weight"], tensors["bias"], classifier)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_front_and_plugins_give_what_the_whole_graph_gives(demo, net, precision):
    graph, tiles = demo.graphs[precision], demo.golden.tiles[:2]
    front = split(graph, net)
    assert front.is_half == (precision == "fp16")
    self_contained_model(front.content)
    found = load_onnx(front.content, ["depth_mm", front.x])({"tiles": tiles})
    assert found[front.x].dtype == (np.float16 if front.is_half else np.float32)
    weights = weights_of(net, is_half=front.is_half)
    assert weights["w1_image"].dtype == found[front.x].dtype
    x, depth = (torch.from_numpy(found[name]).float() for name in (front.x, "depth_mm"))
    whole = load_onnx(graph, ["depth_mm", *TAIL])({"tiles": tiles})
    np.testing.assert_array_equal(found["depth_mm"], whole["depth_mm"])
    for name, value in tail_of_plugins(x, depth, weights)._asdict().items():
        allowed = PRECISIONS[precision] * np.abs(whole[name]).max()
        assert np.abs(value.numpy() - whole[name]).max() <= allowed, name


def test_the_front_has_nothing_of_the_tail(demo, net):
    front = onnx.load_model_from_string(split(demo.graphs["fp32"], net).content).graph
    assert {tensor.name for tensor in front.initializer}.isdisjoint({"w1_image", "w2", "attention.weight"})
    assert "Softmax" not in {node.op_type for node in front.node}


def changed(content, change):
    model = onnx.load_model_from_string(content)
    change(model.graph, {tensor.name: tensor for tensor in model.graph.initializer})
    return model.SerializeToString()


def scaled(name):
    def change(graph, stored):
        stored[name].CopyFrom(from_array(to_array(stored[name]) * np.float32(1.01), name))

    return change


def another_activation(graph, stored):
    next(node for node in graph.node if node.op_type == "Sigmoid").op_type = "HardSigmoid"


def another_input(graph, stored):
    """The tail takes the average of the backbone's map before its last sum."""
    makers = {node.output[0]: node for node in graph.node}
    makers["mean_1"].input[0] = makers["relu_48"].input[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scaled("w1_image"), "No convolution of this graph has the network's W1"),
        (scaled("w2"), "computes other"),
        (scaled("attention.weight"), "computes other"),
        (another_activation, "computes other"),
        (another_input, "takes more than 'relu_48' and 'depth_mm'"),
    ],
)
def test_a_tail_that_is_not_ours_is_refused(demo, net, change, words):
    with pytest.raises(EngineUnavailableError, match=f"{words}.*Omit --plugins"):
        split(changed(demo.graphs["fp32"], change), net)


def fake_api(version="10.13.3", *, rtx=False):
    return SimpleNamespace(version=version, is_rtx=rtx, trt=None)


def test_a_bundle_without_our_network_is_refused(demo):
    with pytest.raises(EngineUnavailableError, match="our own network alone"):
        plugin_tail_of(fake_api(), replace(demo, weights=None), demo.graphs["fp32"], "sm89")


@pytest.mark.parametrize(
    ("api", "target", "words"),
    [
        (fake_api("10.8.0.43"), "sm89", r"TensorRT 10.8.0.43 has no ahead-of-time plugins.*10\.9"),
        (fake_api("9.9.1"), "sm89", "no ahead-of-time plugins"),
        (fake_api("1.7.1.116", rtx=True), "sm89", "TensorRT-RTX has no plugins"),
        (fake_api(), "sm75", r"compiled for sm80, sm86.*not for sm75"),
        (fake_api(), "sm103", "not for sm103"),
    ],
)
def test_a_library_or_gpu_without_plugins_is_refused(api, target, words):
    with pytest.raises(EngineUnavailableError, match=f"{words}.*--plugins"):
        require_plugins(api, target)


@pytest.mark.parametrize("version", ["10.9.0.34", "10.13.3", "11.4.0.106"])
def test_a_library_with_plugins_is_taken(version):
    assert require_plugins(fake_api(version), "sm90") == 90
