"""What start-up imports, which no busy machine changes; `benchmarks/startup.py` shows what that takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

MAIN = "import sys; sys.argv[0] = 'mminfer'\nfrom melanoma_infer.cli.app import main\n"
COUNTED = (
    "import atexit, json, os\n"
    "tell, leave = lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr, flush=True), os._exit\n"
    "atexit.register(tell)\n"
    "os._exit = lambda code: (tell(), leave(code))  # so does a worker process end\n"
) + MAIN + "main()"  # fmt: skip
HELP_MODULES_MAX = 220
"""169 were counted; numpy or pydantic alone would bring more than a hundred."""
SCORE_MODULES_MAX = 1000
"""883 were counted; ONNX Runtime brings about a hundred and torch a thousand."""


def run_code(code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", code, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def modules(*argv: object) -> set[str]:
    """What was imported, here and in worker processes."""
    told = run_code("import sys\n" + COUNTED, *argv).stderr.splitlines()
    return {name for line in told if line.startswith("[") for name in json.loads(line)}


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_help_imports_no_array_no_runtime_and_no_model():
    loaded = modules("--help")
    heavy = {"numpy", "PIL", "pydantic", "openslide", "tifffile", "openvino", "onnxruntime", "torch", "triton", "onnx"}
    assert not heavy & packages(loaded)
    assert len(loaded) <= HELP_MODULES_MAX


def test_scoring_imports_the_runtime_it_uses_and_no_other(tmp_path):
    from PIL import Image

    slide = tmp_path / "grey.png"
    Image.new("RGB", (600, 600), (180, 90, 140)).save(slide)
    loaded = modules("score", slide, "--mpp", "0.5", "--out", tmp_path / "out", "--tissue", "all")
    assert list((tmp_path / "out").glob("*/result.json"))
    assert "openvino" in packages(loaded)
    heavy = {"torch", "triton", "onnxruntime", "onnxscript", "tensorrt", "cuda", "mminfer_export", "pandas", "sympy"}
    assert not heavy & packages(loaded)
    assert len(loaded) <= SCORE_MODULES_MAX


def test_the_process_that_waits_for_the_worker_plans_draws_and_computes_nothing():
    """So what these import takes its time in the worker, beside the loading of the engine."""
    code = (
        "import json, sys\n"
        "from melanoma_infer.pipeline import batch, scorer\n"
        "from melanoma_infer.store import output, run_record, summary\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    told = run_code(code)
    loaded = set(json.loads(told.stdout))
    assert not {"scipy", "jinja2", "openvino"} & packages(loaded)
    assert not {"melanoma_infer.tiles.tissue", "melanoma_infer.reports.writing"} & loaded
