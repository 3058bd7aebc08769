"""Sealing: what is written, the checksums over it, and that a folder is complete or not there at all."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import ParityRow, open_bundle
from melanoma_infer.errors import OutputError
from mminfer_export.seal import seal_bundle


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


def seal(folder, demo, **changes):
    head = {name: value.astype(np.float32) for name, value in vars(demo.head).items()}
    inputs = {"card": demo.card, "graphs": demo.graphs, "golden": demo.golden, "parity": demo.parity, "head": head}
    return seal_bundle(folder, **(inputs | changes))


def test_a_sealed_bundle_opens_and_holds_what_was_given(tmp_path, demo):
    row = ParityRow(
        engine="openvino",
        precision="fp32",
        tiles=4,
        max_dp=0.25,
        p999_dp=0.125,
        max_dmm=None,
        p999_dmm=None,
        decision_flips=1,
        on="four tiles",
    )
    opened = open_bundle(seal(tmp_path / "new.mminfer", demo, parity=[row], weights={"a": np.arange(3.0)}))
    assert opened.card == demo.card
    assert opened.graphs == demo.graphs
    assert opened.parity == (row,)
    assert opened.weights is not None
    for name, output in demo.golden.outputs.items():
        np.testing.assert_array_equal(opened.golden.outputs[name], output)
    np.testing.assert_array_equal(opened.golden.tiles, demo.golden.tiles)
    np.testing.assert_array_equal(opened.golden.host_probabilities, demo.golden.host_probabilities)
    for name, value in vars(demo.head).items():
        np.testing.assert_array_equal(getattr(opened.head, name), value)


def test_sha256sums_lists_every_file_sorted_with_the_digest_of_its_bytes(tmp_path, demo):
    folder = seal(tmp_path / "new.mminfer", demo)
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    expected = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    assert (folder / "SHA256SUMS").read_bytes() == expected.encode()
    assert [path.name for path in files] == [
        "card.json",
        "golden.npz",
        "head.safetensors",
        "model.fp32.onnx",
        "model.int8.onnx",
        "parity.json",
    ]


def test_parity_json_is_a_list_of_rows(tmp_path, demo):
    rows = json.loads((seal(tmp_path / "new.mminfer", demo) / "parity.json").read_text())["rows"]
    assert rows == [row.model_dump() for row in demo.parity]


def test_the_same_input_gives_the_same_bytes(tmp_path, demo):
    first, second = (seal(tmp_path / f"{name}.mminfer", demo) for name in "ab")
    assert (first / "SHA256SUMS").read_bytes() == (second / "SHA256SUMS").read_bytes()


def test_an_existing_folder_is_refused_and_left_as_it_was(tmp_path, demo):
    folder = tmp_path / "old.mminfer"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match=r"old\.mminfer exists"):
        seal(folder, demo)
    assert [path.name for path in tmp_path.rglob("*")] == ["old.mminfer", "mine.txt"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, demo, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        seal(tmp_path / "new.mminfer", demo)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_features_needs_no_head(tmp_path, demo):
    outputs = {name: value for name, value in demo.golden.outputs.items() if name == "probabilities"}
    golden = replace(demo.golden, outputs=outputs, host_probabilities=None)
    folder = seal(tmp_path / "new.mminfer", demo, golden=golden, head=None)
    assert not (folder / "head.safetensors").exists()
    with np.load(folder / "golden.npz") as arrays:
        assert sorted(arrays.files) == ["patients", "probabilities", "tiles"]
