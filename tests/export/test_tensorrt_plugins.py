"""The plugins in NVIDIA's own Python bindings of TensorRT: registration, shapes, types, formats, launch, network.

The bindings are the wheel `tensorrt_cu13_bindings` (1.3 MB). They load without NVIDIA's libraries, beside a stub with
the few C functions that they name; the plugin framework is Python. TensorRT itself runs nowhere here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BINDINGS = "MMINFER_TENSORRT_BINDINGS"
"""The folder that holds `tensorrt_bindings`, if it is not installed."""
MISSING = (
    "there are no bindings of TensorRT: pip install --no-deps --target DIR tensorrt_cu13_bindings, and set "
    f"{BINDINGS}=DIR"
)
STUB = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
        "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
        "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
    )
)  # fmt: skip
LINEAR = ["FLOAT", "LINEAR"]


def folder_of_bindings() -> Path:
    """The folder that holds the package, or skip."""
    if os.environ.get(BINDINGS):
        return Path(os.environ[BINDINGS])
    found = find_spec("tensorrt_bindings")
    if found is None or found.origin is None:
        pytest.skip(MISSING)
    return Path(found.origin).parent.parent


def build_stubs(folder: Path, library: Path) -> None:
    """Libraries under the names that the bindings load, with functions that return nothing."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stub of NVIDIA's library")
    source = folder / "stub.c"
    source.write_text(STUB)
    names = set(re.findall(rb"lib(?:nvinfer|nvinfer_plugin|nvonnxparser)\.so\.\d+", library.read_bytes()))
    assert len(names) == 3
    for name in map(bytes.decode, names):
        subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What TensorRT would be told, in a process of its own: there, the bindings are imported as `tensorrt`."""
    bindings, stubs = folder_of_bindings(), tmp_path_factory.mktemp("stubs")
    build_stubs(stubs, next((bindings / "tensorrt_bindings").glob("tensorrt*.so")))
    environment = {
        **os.environ, "PYTHONPATH": ":".join([*sys.path, str(bindings)]), "LD_LIBRARY_PATH": str(stubs),
        "TRITON_INTERPRET": "0",
    }  # fmt: skip
    script = Path(__file__).with_name("plugins_in_bindings.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)  # nothing else is printed there


def test_both_plugins_are_registered_under_our_name(told):
    assert told["registered"] == ["mminfer::attention_head", "mminfer::attention_project"]


@pytest.mark.parametrize(
    ("precision", "x", "w1", "shared"), [("fp16", "HWC8", "HALF", 48 * 1024), ("fp32", "HWC", "FLOAT", 48 * 1024)]
)
def test_the_projection_takes_channels_last_maps_and_gives_float32(told, precision, x, w1, shared):
    project = told[f"project {precision}"]
    assert project["types"] == ["FLOAT"] * 3
    assert project["shapes"] == {"average": [5, 7, 7], "maximum": [5, 7, 7], "projected": [5, 49, 128]}
    assert project["formats"] == [[w1, x], [w1, "LINEAR"], LINEAR, LINEAR, LINEAR]
    launch = project["launch"]
    assert {name: launch[name] for name in ("grid_x", "grid_y", "grid_z")} == {"grid_x": 2, "grid_y": 5, "grid_z": 1}
    assert (launch["block_x"], launch["block_y"], launch["block_z"]) == (128, 1, 1)
    assert 0 < launch["shared_mem"] <= shared
    assert (project["entry"], project["parameters"], project["extra"]) == ("attention_project_kernel", 5, 0)
    assert project["target"] == "sm_89"
    assert project["aliased"] == [-1] * 3


def test_the_head_gives_its_memory_and_the_tail(told):
    head = told["head"]
    assert head["types"] == ["FLOAT"] * 5
    assert head["shapes"] == {
        "gradients": [5, 3, 128], "probabilities": [5, 4], "attention": [5, 7, 7], "cam": [5, 3, 7, 7],
        "features": [5, 128],
    }  # fmt: skip
    assert head["formats"] == [LINEAR] * 18
    launch = head["launch"]
    assert [launch[name] for name in ("grid_x", "grid_y", "grid_z", "block_x")] == [5, 1, 1, 256]
    assert (head["entry"], head["parameters"], head["extra"]) == ("attention_head_kernel", 18, 0)
    assert head["aliased"] == [-1] * 5


def test_the_network_gets_both_layers_and_our_outputs(told):
    project, head = told["network"]["layers"]
    assert project == ["attention_project", True, ["relu_48", "mminfer/w1_image:0"]]
    assert head[:2] == ["attention_head", True]
    assert head[2] == [
        *(f"mminfer/attention_project:{place}" for place in range(3)), "mminfer/weight:0", "mminfer/bias:0",
        "depth_mm", *(f"mminfer/{name}:0" for name in ("w1_depth", "offset", "w2", "b2", "w3", "b3", "groups")),
    ]  # fmt: skip
    assert told["network"]["outputs"] == ["depth_mm", "probabilities", "attention", "cam", "features"]
