"""Weights beside an ONNX file are taken in from plain files of its folder, and from nowhere else."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from own_models_for_tests import card, linear_onnx, linear_probabilities, random_tiles

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import BundleError
from mminfer_export.from_onnx import read_onnx, write_from_onnx
from mminfer_export.sample_tiles import Samples

TILES = random_tiles(4)
DATA = "m.onnx.data"


@pytest.fixture
def path(tmp_path):
    """A model as PyTorch's exporter writes it: the weights are in m.onnx.data."""
    onnx.save(linear_onnx(), tmp_path / "m.onnx", save_as_external_data=True, location=DATA, size_threshold=0)
    return tmp_path / "m.onnx"


def changed(path, **entries):
    """The model, with other entries for where its first tensor is."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {each.key: each.value for each in tensor.external_data} | {k: str(v) for k, v in entries.items()}
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_bundle_needs_the_data_file_no_more(path, tmp_path):
    content = read_onnx(path)
    (tmp_path / DATA).unlink()
    write_from_onnx(tmp_path / "m.mminfer", content, card(), samples=Samples(TILES, "4 tiles"))
    actual = open_bundle(tmp_path / "m.mminfer").golden.outputs["probabilities"][:, 1]
    np.testing.assert_allclose(np.sort(actual), np.sort(linear_probabilities(TILES)[:, 1]), rtol=0, atol=1e-5)


def test_a_file_with_all_data_inside_is_read_as_it_is(tmp_path):
    onnx.save(linear_onnx(), tmp_path / "m.onnx")
    assert read_onnx(tmp_path / "m.onnx") == (tmp_path / "m.onnx").read_bytes()


@pytest.mark.parametrize("location", ["../m.onnx.data", "sub/m.onnx.data", "./m.onnx.data", "", "..", "absolute"])
def test_a_location_that_is_not_a_name_in_the_folder_is_refused(path, tmp_path, location):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / DATA).write_bytes((tmp_path / DATA).read_bytes())
    given = str(tmp_path / DATA) if location == "absolute" else location
    with pytest.raises(BundleError, match="not a file of its own folder"):
        read_onnx(changed(path, location=given))


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing"])
def test_what_is_no_plain_file_is_refused(path, tmp_path, kind):
    (tmp_path / DATA).rename(tmp_path / "elsewhere")
    match kind:
        case "link":
            os.symlink("elsewhere", tmp_path / DATA)
        case "folder":
            (tmp_path / DATA).mkdir()
        case "pipe":
            os.mkfifo(tmp_path / DATA)
    with pytest.raises(BundleError, match=r"m\.onnx\.data is (missing|a link|not a plain file).*external_data=False"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": 10**6}, "has .* bytes; the ONNX file needs 10000"),
        ({"offset": -4}, "from -4 on"),
        ({"offset": "first"}, "no number"),
        ({"length": 4}, "needs 24 bytes, but 4"),
        ({"length": 10**12}, "needs 24 bytes, but 1000000000000"),
    ],
)
def test_an_offset_or_length_that_does_not_fit_is_refused(path, entries, words):
    with pytest.raises(BundleError, match=words):
        read_onnx(changed(path, **entries))


def test_a_data_file_that_was_cut_is_refused(path, tmp_path):
    os.truncate(tmp_path / DATA, 8)
    with pytest.raises(BundleError, match=r"has 8 bytes; .* Copy it again"):
        read_onnx(path)


def test_more_data_than_a_bundle_holds_is_refused_unread(path, tmp_path):
    """The data file is sparse: it takes no room."""
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].dims[:] = [1 << 30, 1]
    path.write_bytes(model.SerializeToString())
    os.truncate(tmp_path / DATA, 1 << 33)
    with pytest.raises(BundleError, match="larger than 2 GiB"):
        read_onnx(changed(path, length=1 << 32))


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a rubbish")
    with pytest.raises(BundleError, match="cannot be parsed"):
        read_onnx(tmp_path / "m.onnx")
