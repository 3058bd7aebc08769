"""What a program that embeds the toolkit imports, and the names that it may rely on."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import melanoma_infer

PUBLIC = {
    "Bundle": None,
    "MminferError": None,
    "ModelCard": None,
    "ScanBusyError": None,
    "ScanOptions": {
        "id", "case_id", "channels", "overlap", "when_full", "waiting_tiles", "memory_mib", "on_tile", "is_phantom",
    },
    "ScanProgress": {"scanned_px", "scanned_fraction", "tiles_scored", "tiles_waiting", "memory_bytes"},
    "ScanSession": None,
    "Scorer": {"bundle", "engine", "precision", "threads", "device", "engine_file", "tell"},
    "Settings": {"mpp_um", "tile_um", "stride_um", "tissue", "aggregate", "stain", "specimen"},
    "SlideResult": None,
    "open_bundle": {"name_or_path"},
    "open_slide": {"path"},
    "score_slide": {"path", "scorer", "patient", "settings", "reader", "progress"},
}  # fmt: skip
"""The public names with their parameters; docs/embedding.md says how they may change."""
METHODS = {
    "session": ["self", "mpp_um", "size_l0", "patient", "settings", "options"],
    "push": ["self", "pixels", "x_l0", "y_l0"],
    "running": ["self"],
    "close": ["self", "out", "deadline_s"],
    "cancel": ["self"],
}
PROGRAM = """
import sys
import numpy as np
from melanoma_infer import ScanOptions, Scorer, Settings, open_bundle
scorer = Scorer(open_bundle("demo"), "openvino")
frame = np.full((600, 600, 3), (205, 130, 180), np.uint8)
with scorer.session(0.5, (600, 600), settings=Settings(tile_um=256.0), options=ScanOptions(id="x")) as scan:
    scan.push(frame, 0, 0)
    scan.running()
print(scan.close().tiles_counted.ok, *sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_the_public_names_and_their_parameters_are_these():
    assert set(melanoma_infer.__all__) == set(PUBLIC)
    for name, parameters in PUBLIC.items():
        if parameters is not None:
            assert set(inspect.signature(getattr(melanoma_infer, name)).parameters) == parameters, name
    for name, parameters in METHODS.items():
        owner = melanoma_infer.Scorer if name == "session" else melanoma_infer.ScanSession
        assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.mark.wheel
def test_a_program_with_a_session_imports_neither_torch_nor_triton_nor_typer():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    tiles, *modules = ended.stdout.split()
    assert tiles == "3"
    assert {"torch", "triton", "typer", "click", "rich", "onnxruntime", "lightning", "sklearn"}.isdisjoint(modules)


def test_every_public_name_is_in_the_page_for_programs():
    from pathlib import Path

    page = (Path(__file__).resolve().parent.parent / "docs" / "embedding.md").read_text()
    for name in (*PUBLIC, *METHODS):
        assert f"`{name}" in page or f".{name}(" in page, name


def test_the_session_of_the_page_runs(tmp_path, monkeypatch, capsys):
    import re
    from pathlib import Path

    page = (Path(__file__).resolve().parent.parent / "docs" / "embedding.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "embedding.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[1] == "indeterminate 4"
    assert len(list(tmp_path.glob("results/S26-1042-*/result.json"))) == 1
