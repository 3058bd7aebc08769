"""The examples run as a user runs them: whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def ran(name: str, *arguments: object, code: int = 0, **environment: str) -> str:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "export")))
    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path} | environment, timeout=300,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def test_a_simulated_scanner_is_scored_while_it_scans(skin, tmp_path):
    live = tmp_path / "live.png"
    said = ran(
        "scanner_strip_stream.py", skin, "--tile-um", 128, "--rows", 100, "--line-hz", 1e6, "--live", live,
        "--out", tmp_path / "out",
    ).splitlines()  # fmt: skip
    assert [line.split(" scanned")[0].strip() for line in said[:5]] == ["29%", "49%", "68%", "88%", "100%"]
    assert said[-1].endswith("verdict: indeterminate")
    assert live.read_bytes()[:4] == b"\x89PNG"
    assert len(list(tmp_path.glob("out/skin-*/result.json"))) == 1


def test_a_bundle_needs_no_mminfer():
    """`-P` and an empty path: the package cannot be imported there."""
    bundle = ROOT / "melanoma_infer" / "bundle" / "demo.mminfer"
    source = (EXAMPLES / "bundle_without_mminfer.py").read_text()
    assert "melanoma_infer" not in source
    said = ran("bundle_without_mminfer.py", bundle, PYTHONPATH="")
    assert said.count("golden tile") == 4


def test_the_example_of_gpu_frames_says_what_it_needs():
    pytest.importorskip("torch")
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: run it by hand")
    assert "needs an NVIDIA GPU and PyCUDA" in ran("pycuda_frames.py", code=1)
