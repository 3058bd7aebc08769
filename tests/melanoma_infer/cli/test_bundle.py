"""`mminfer bundle`: every way to make a bundle, and what each of them refuses."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from bundles_for_tests import colour_rule_card, make_bundle, minimal_card, tampered
from own_models_for_tests import linear_onnx, linear_probabilities, wsinfer_folder
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.contents import PACKAGED
from melanoma_infer.engines import load_engine, quiet

CARD = """
name = "mine"
classes = ["normal", "tumour"]
malignant = ["tumour"]
tile_px = 32
um_per_px = 1.0
mean = [0.7, 0.5, 0.6]
std = [0.2, 0.25, 0.2]
resize = "pillow-bilinear"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a card and an ONNX file, where commands run."""
    monkeypatch.chdir(tmp_path)
    Path("card.toml").write_text(CARD)
    onnx.save(linear_onnx(), "model.onnx")
    return tmp_path


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every runtime fails the test when it is asked for."""
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setattr(quiet, name, lambda: pytest.fail("a runtime was opened"))


def test_init_writes_a_card_that_create_reads(mminfer, here):
    ended = mminfer("bundle", "init", "new.toml")
    assert (ended.code, ended.out) == (0, "new.toml\n")
    onnx.save(linear_onnx(side="side"), "any-size.onnx")
    ended = mminfer("bundle", "create", "m.mminfer", "--onnx", "any-size.onnx", "--card", "new.toml")
    assert ended.code == 0, ended.err
    assert open_bundle("m.mminfer").card.tile_px == 224
    assert mminfer("bundle", "init", "new.toml").code == 14


def test_create_makes_a_checked_bundle_of_an_onnx_file(mminfer, here):
    ended = mminfer("bundle", "create", "m.mminfer", "--onnx", "model.onnx", "--card", "card.toml")
    assert ended.code == 0, ended.err
    first, header, *rows = ended.out.splitlines()
    assert first == "m.mminfer"
    assert header.split() == ["engine", "max", "|Δp|", "flips", "on"]
    assert {row.split()[0] for row in rows} == {"openvino", "onnxruntime"}
    checked = mminfer("bundle", "check", "m.mminfer", "--json")
    assert checked.code == 0
    assert [row["state"] for row in json.loads(checked.out)["engines"][:1]] == ["agrees"]


UNDOCUMENTED = (
    "The model card does not say what the model was trained on or what the model may be used for. "
    "Add training_data and intended_use to the card: until then no slide gets a verdict.\n"
)


def test_a_card_that_lacks_statements_is_told_once_by_create_show_and_check(mminfer, here):
    create = ("create", "m.mminfer", "--onnx", "model.onnx", "--card", "card.toml")
    show, check = ("show", "m.mminfer"), ("check", "m.mminfer")
    for command in (create, show, (*show, "--json"), check, (*check, "--json")):
        ended = mminfer("bundle", *command)
        assert ended.code == 0
        assert ended.err.count(UNDOCUMENTED) == 1, command
        assert "does not say" not in ended.out


def test_a_card_that_has_its_statements_is_told_nothing(mminfer, here):
    make_bundle(here / "m.mminfer")
    assert mminfer("bundle", "show", "m.mminfer").err == ""
    assert "does not say" not in mminfer("bundle", "check", "m.mminfer").err


@pytest.mark.parametrize(
    ("card", "shown"),
    [(colour_rule_card(finding="carcinoma"), "carcinoma"), (minimal_card(), "tumour")],
    ids=["stated", "derived"],
)
def test_show_prints_what_a_result_will_suspect(mminfer, here, card, shown):
    make_bundle(here / "m.mminfer", card)
    rows = [line.split() for line in mminfer("bundle", "show", "m.mminfer").out.splitlines()]
    assert ["finding", shown] in rows


def test_create_compares_on_the_user_s_tiles(mminfer, here):
    tiles = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    Path("tiles").mkdir()
    for place, tile in enumerate(tiles):
        Image.fromarray(tile).save(f"tiles/{place}.png")
    argv = ("--onnx", "model.onnx", "--card", "card.toml", "--tiles", "tiles", "--json")
    ended = mminfer("bundle", "create", "m.mminfer", *argv)
    said = json.loads(ended.out)
    assert said["bundle"] == "m.mminfer"
    assert said["digest"] == open_bundle("m.mminfer").digest
    assert {row["tiles"] for row in said["parity"]} == {5}
    actual = load_engine(open_bundle("m.mminfer"), "openvino").engine.infer(tiles)["probabilities"]
    np.testing.assert_allclose(actual, linear_probabilities(tiles), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "exactly one of --onnx, --weights and --random"),
        (("--onnx", "model.onnx", "--random", "1"), "exactly one of --onnx, --weights and --random"),
        (("--onnx", "model.onnx"), "bundle init"),
        (("--onnx", "missing.onnx", "--card", "card.toml"), "missing.onnx cannot be read"),
        (("--onnx", "model.onnx", "--card", "missing.toml"), "missing.toml cannot be read"),
        (("--weights", "model.onnx", "--card", "card.toml"), "no weights file"),
    ],
)
def test_create_says_what_is_missing(mminfer, here, argv, words):
    ended = mminfer("bundle", "create", "m.mminfer", *argv)
    assert ended.code == 2
    assert words in ended.err
    assert not Path("m.mminfer").exists()


def test_create_never_changes_an_existing_folder(mminfer, here):
    Path("m.mminfer").mkdir()
    ended = mminfer("bundle", "create", "m.mminfer", "--onnx", "model.onnx", "--card", "card.toml")
    assert ended.code == 14
    assert list(Path("m.mminfer").iterdir()) == []


def test_random_bundles_are_made_by_the_exporter(mminfer, here, monkeypatch):
    asked: list[tuple[Any, ...]] = []

    def write(out: Path, seed: int, width: int) -> None:
        asked.append((out, seed, width))
        make_bundle(out)

    module = ModuleType("mminfer_export.random_bundle")
    module.write_random_bundle = write  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert mminfer("bundle", "create", "m.mminfer", "--random", "7").code == 0
    assert mminfer("bundle", "create", "n.mminfer", "--random", "0", "--width", "8").code == 0
    assert asked == [(Path("m.mminfer"), 7, 64), (Path("n.mminfer"), 0, 8)]


def test_a_payload_in_a_pt_file_is_refused_and_never_run(mminfer, here):
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(here / "canary"),))

    Path("weights.pt").write_bytes(pickle.dumps({"backbone.conv1.weight": Payload()}))
    ended = mminfer("bundle", "create", "m.mminfer", "--weights", "weights.pt", "--card", "card.toml")
    assert ended.code == 20
    assert "nothing in it was run" in ended.err
    assert not (here / "canary").exists()
    assert not Path("m.mminfer").exists()


def test_import_asks_which_classes_are_malignant(mminfer, here):
    wsinfer_folder(here / "zoo", None)
    ended = mminfer("bundle", "import", "m.mminfer", "--wsinfer", "zoo")
    assert ended.code == 2
    assert "Give --malignant, one or more of notumor, tumor." in ended.err
    ended = mminfer("bundle", "import", "m.mminfer", "--wsinfer", "zoo", "--malignant", "TUMOR")
    assert ended.code == 2
    assert ended.err == "mminfer: --malignant TUMOR: the model has no such class. Its classes are notumor, tumor.\n"


@pytest.mark.slow
def test_import_makes_a_checked_bundle_and_warns_that_torchscript_is_code(mminfer, here):
    from own_models_for_tests import SmallNet

    wsinfer_folder(here / "zoo", SmallNet().eval())
    more = 'training_data = "breast"\nthreshold = { value = 0.5, low = 0.4, high = 0.6, how = "by hand" }'
    Path("more.toml").write_text(more)
    argv = ("--wsinfer", "zoo", "--malignant", "tumor", "--card", "more.toml")
    ended = mminfer("bundle", "import", "m.mminfer", *argv)
    assert ended.code == 0, ended.err
    assert "TorchScript is code" in ended.err
    assert ended.err.count("Add intended_use to the card: until then no slide gets a verdict.") == 1
    card = open_bundle("m.mminfer").card
    assert (card.name, card.training_data, card.noun) == ("zoo", "breast", "tumor")
    assert card.threshold is not None
    assert mminfer("bundle", "check", "m.mminfer").code == 0


def spoilt(kind: str) -> onnx.ModelProto:
    """The linear model with data in another file, or with an operator of another domain."""
    model = linear_onnx()
    if kind == "domain":
        model.graph.node[1].domain = "com.example"
        return model
    tensor = model.graph.initializer[0]
    shape = list(tensor.dims)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = os.path.abspath("weights.bin") if kind == "absolute" else kind
    tensor.external_data.add(key="location", value=location)
    Path("weights.bin").write_bytes(np.ones(shape, np.float32).tobytes())
    if kind == "link.bin":
        os.symlink("weights.bin", "link.bin")
    return model


KINDS = ["absolute", "../weights.bin", "weights.bin", "link.bin", "domain"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "weights.bin"])
@pytest.mark.usefixtures("no_runtime")
def test_create_refuses_a_file_that_no_runtime_may_open(mminfer, here, kind):
    Path("bad.onnx").write_bytes(spoilt(kind).SerializeToString())
    ended = mminfer("bundle", "create", "m.mminfer", "--onnx", "bad.onnx", "--card", "card.toml")
    assert ended.code == 20
    assert not Path("m.mminfer").exists()


def test_create_takes_in_the_weights_in_a_plain_file_of_the_same_folder(mminfer, here):
    Path("beside.onnx").write_bytes(spoilt("weights.bin").SerializeToString())
    ended = mminfer("bundle", "create", "m.mminfer", "--onnx", "beside.onnx", "--card", "card.toml")
    assert ended.code == 0, ended.err
    Path("weights.bin").unlink()
    assert mminfer("bundle", "check", "m.mminfer").code == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_runtime")
def test_check_refuses_a_sealed_bundle_that_no_runtime_may_open(mminfer, here, kind):
    whole = make_bundle(here / "whole.mminfer")
    tampered(whole, here / "bad.mminfer", "model.fp32.onnx", spoilt(kind).SerializeToString())
    assert mminfer("bundle", "check", "bad.mminfer").code == 20


@pytest.mark.parametrize("name", ["model.fp32.onnx", "card.json", "weights.safetensors", "golden.npz"])
@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.usefixtures("no_runtime")
def test_a_changed_byte_ends_with_20_before_a_runtime_opens(mminfer, here, name, command):
    content = bytearray((PACKAGED / "demo.mminfer" / name).read_bytes())
    content[len(content) // 2] ^= 0x01
    tampered(PACKAGED / "demo.mminfer", here / "bad.mminfer", name, bytes(content), resealed=False)
    ended = mminfer("bundle", command, "bad.mminfer")
    assert ended.code == 20
    assert "differs from SHA256SUMS" in ended.err
