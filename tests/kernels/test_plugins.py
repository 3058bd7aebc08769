"""The plugins' PTX, executed on the CPU with its arguments as TensorRT passes them: inputs, then outputs, no others.

x is laid out as TensorRT documents its channels-last formats (HWC8, HWC), everything else row-major.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import triton.backends.nvidia

from mminfer_kernels import bounds, catalogue
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.compile import compile_launch
from mminfer_kernels.errors import KernelError, KernelInputError
from mminfer_kernels.launch import TARGETS
from mminfer_kernels.plugin_code import inputs_of, plugin_code, without_hidden_parameters, without_places
from mminfer_kernels.plugins import HEAD, PLUGINS, PROJECT
from mminfer_kernels.reference import Classifier, Tail
from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer import execute
from mminfer_proofs.sanitizer.ptx import parse

if os.environ.get("TRITON_INTERPRET", "0") != "0":
    pytest.skip("kernels are compiled only in a process without TRITON_INTERPRET", allow_module_level=True)

EXECUTED = (80, 86, 89)
PTXAS = Path(triton.backends.nvidia.__file__).parent / "bin" / "ptxas"
TILES = 2
COMPILED = [sm if sm in (80, 89) else pytest.param(sm, marks=pytest.mark.slow) for sm in TARGETS]
"""Compiling takes seconds."""


def tail_inputs(dtype):
    """The tail's arguments for two tiles, with 5 × 9 places: not a whole number of any block."""
    return catalogue.inputs("attention_tail", Problem(dtype, TILES, 64, 5, 9))


def arrays_of(arguments):
    """The arguments by name, as TensorRT has them in memory."""
    x, classifier = arguments["x"], arguments["classifier"]
    tensors = {name: arguments[name] for name in ("weight", "bias", "w1_image")} | classifier._asdict()
    return {"x": x.permute(0, 2, 3, 1).contiguous().numpy()} | {name: each.numpy() for name, each in tensors.items()}


def shapes_of(arrays):
    """The shapes that TensorRT states: x's are (N, C, h, w) in every format."""
    shapes = {name: each.shape for name, each in arrays.items()}
    if "x" in shapes:
        batch, height, width, channels = shapes["x"]
        shapes["x"] = (batch, channels, height, width)
    return shapes


def launched(plugin, arrays, dtype, sm, *, swapped=()):
    """The plugin's outputs, launched as TensorRT does: an address for each input and output, in the plugin's order."""
    shapes = shapes_of(arrays)
    launch, code = (make(shapes, dtype, TARGETS[sm]) for make in (plugin.launch, plugin.code))
    names = (*plugin.inputs, *plugin.outputs)
    blank = {
        name: np.zeros(shape, np.float32)
        for name, shape in zip(plugin.outputs, plugin.output_shapes(shapes), strict=True)
    }
    order = list(names)
    if swapped:
        first, second = map(names.index, swapped)
        order[first], order[second] = order[second], order[first]
    assert len(parse(code.ptx).parameters) == len(names)
    assert parse(code.ptx).threads == code.threads
    grid = list(launch.grid)
    grid[plugin.batch_axis] = TILES
    arguments = {name: {**arrays, **blank}[name] for name in order}
    done = execute(code.ptx, arguments, tuple(grid), code.shared_bytes, stored=plugin.outputs)
    assert not any(done.unwritten.values())
    return done.outputs


def tail_outputs(arguments, dtype, sm, **swapped):
    """The tail by both plugins, one after the other."""
    arrays = arrays_of(arguments)
    projection = launched(PROJECT, {name: arrays[name] for name in PROJECT.inputs}, dtype, sm,
                          swapped=swapped.get("project", ()))  # fmt: skip
    given = {name: {**arrays, **projection}[name] for name in HEAD.inputs}
    outputs = launched(HEAD, given, dtype, sm, swapped=swapped.get("head", ()))
    return Tail(*(torch.from_numpy(outputs[name]) for name in Tail._fields))


def comparisons(outputs, arguments, dtype):
    expected = (catalogue.reference("attention_tail", arguments, kind) for kind in (torch.float64, dtype))
    return [bounds.compare(*each) for each in zip(outputs, *expected, strict=True)]


@pytest.mark.parametrize(
    ("dtype", "sm"),
    [
        pytest.param(dtype, sm, marks=[pytest.mark.slow] if dtype == torch.float32 and sm != 80 else [])
        for dtype in (torch.float16, torch.float32)
        for sm in EXECUTED
    ],
    ids=str,
)
def test_both_plugins_give_the_tail_within_the_kernels_bound(dtype, sm):
    arguments = tail_inputs(dtype)
    for name, comparison in zip(
        Tail._fields, comparisons(tail_outputs(arguments, dtype, sm), arguments, dtype), strict=True
    ):
        assert comparison.holds, f"{name}: {comparison}"


@pytest.mark.parametrize(
    "swapped",
    [
        {"project": ("x", "w1_image")},
        {"project": ("average", "maximum")},
        {"head": ("average", "maximum")},
        {"head": ("w1_depth", "offset")},
        {"head": ("attention", "cam")},
    ],
    ids=str,
)
def test_one_swapped_argument_is_a_fault_or_a_wrong_number(swapped):
    arguments = tail_inputs(torch.float16)
    try:
        outputs = tail_outputs(arguments, torch.float16, 80, **swapped)
    except (KernelFault, KernelInputError):
        return
    assert not all(each.holds for each in comparisons(outputs, arguments, torch.float16))


def shapes_of_the_network(dtype):
    """Those of the paper's network at 512 px; the projection's are those that the first plugin gives."""
    problem = Problem(dtype, 1)
    shapes = {
        "x": (-1, problem.channels, 16, 16), "w1_image": (128, problem.channels), "weight": (1, 2, 7, 7), "bias": (1,),
        "depth_mm": (-1,), "w1_depth": (128,), "offset": (128,), "w2": (64, 128), "b2": (64,), "w3": (4, 64),
        "b3": (4,), "groups": (6, 4),
    }  # fmt: skip
    return shapes | dict(zip(PROJECT.outputs, PROJECT.output_shapes(shapes), strict=True))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
@pytest.mark.parametrize("sm", COMPILED)
def test_the_network_s_plugin_assembles_and_names_no_place(plugin, sm):
    """Whether NVIDIA's assembler takes the PTX, and nothing tells where it was made."""
    code = plugin.code(shapes_of_the_network(torch.float16), torch.float16, TARGETS[sm])
    assert len(re.findall(r"\.param\s", code.ptx[: code.ptx.index("{")])) == len(plugin.inputs) + len(plugin.outputs)
    assert code.entry == f"{plugin.name}_kernel"
    assert code.shared_bytes <= 48 * 1024
    assert not re.search(r"/\w+/|\.py|\.loc|\.section", code.ptx)  # a section holds its text as numbers
    if sm < 100:  # Triton brings another assembler for these
        arch = re.search(r"\.target (\w+)", code.ptx)[1]
        with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
            file.write(code.ptx)
            file.flush()
            done = subprocess.run([PTXAS, f"-arch={arch}", file.name, "-o", os.devnull], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def project():
    return PROJECT.launch(shapes_of_the_network(torch.float16), torch.float16, TARGETS[80])


def test_triton_s_own_parameters_are_unused_and_removed(project):
    ptx = compile_launch(project, TARGETS[80]).ptx
    assert len(parse(ptx).parameters) == 7
    assert ptx.count("_param_5") == ptx.count("_param_6") == 1
    assert parse(without_hidden_parameters(ptx, 5)).parameters == parse(ptx).parameters[:5]


def test_a_parameter_of_triton_that_the_code_uses_is_refused(project):
    ptx = compile_launch(project, TARGETS[80]).ptx
    using = ptx.replace("[attention_project_kernel_param_0]", "[attention_project_kernel_param_6]")
    assert using != ptx
    with pytest.raises(KernelError, match=r"uses attention_project_kernel_param_6.*scratch memory"):
        without_hidden_parameters(using, 5)
    with pytest.raises(KernelError, match="7 parameters, where 8 are needed"):
        without_hidden_parameters(ptx, 8)


def test_code_without_places_does_the_same(project):
    ptx = compile_launch(project, TARGETS[80]).ptx
    bare = without_places(ptx)
    assert [each.text for each in parse(bare).statements] == [each.text for each in parse(ptx).statements]
    assert ".loc" not in bare


def test_arguments_in_another_order_are_refused(project):
    names = ("x", "average", "w1_image", "maximum", "projected")
    shuffled = replace(project, arguments={name: project.arguments[name] for name in names})
    with pytest.raises(KernelError, match="TensorRT passes x, w1_image, average, maximum, projected"):
        inputs_of(shuffled)
    numbered = replace(project, arguments={**project.arguments, "x": 7})
    with pytest.raises(KernelError, match="all of them pointers"):
        inputs_of(numbered)
    other = replace(PROJECT, plan=lambda *_: replace(project, stored=("maximum", "projected")))
    with pytest.raises(KernelError, match="unlike the plugin"):
        other.launch({}, torch.float16, TARGETS[80])


def test_too_much_shared_memory_is_refused(project):
    blocks = {**project.config.blocks, "BLOCK_P": 256, "BLOCK_C": 256}
    large = replace(project, config=replace(project.config, blocks=blocks), constants={**project.constants, **blocks})
    with pytest.raises(KernelError, match=r"bytes of shared memory, and a plugin gets 49,152"):
        plugin_code(large, TARGETS[80])


def test_channels_that_tensorrt_would_pad_are_refused():
    with pytest.raises(KernelInputError, match="44 channels: a plugin takes a multiple of 8"):
        PROJECT.launch({"x": (1, 44, 7, 7), "w1_image": (128, 44)}, torch.float16, TARGETS[80])


def test_the_head_takes_every_tensor_of_a_classifier():
    assert set(Classifier._fields) < set(HEAD.inputs)
