"""Our network's weights become a bundle; a checkpoint is read in a child process, and what is no tensor never runs."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, EngineUnavailableError, UsageError
from melanoma_infer.model.melanoma_net import MelanomaNet
from mminfer_export import untrusted
from mminfer_export.calibrated_net import reference_outputs
from mminfer_export.card_toml import card_of
from mminfer_export.children.read_pickled_tensors import state_dict
from mminfer_export.from_weights import card_of_weights, read_weights, write_from_weights
from mminfer_export.sample_tiles import samples_for

VALUES = {
    "name": "ours", "classes": ["none", "naevus", "melanoma"], "malignant": ["melanoma"], "tile_px": 256,
    "tile_um": 512, "mean": [0.8, 0.7, 0.8], "std": [0.2, 0.2, 0.2], "resize": "reduce-bilinear",
    "patient_fields": [{"name": "sex", "values": ["female", "male"]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    """A narrow network with small random weights."""
    card = card_of(VALUES | {"outputs": ["depth_mm", "attention", "cam", "features"], "network": {"width": 2}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = MelanomaNet.from_card(card).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.2)
    return made


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The weights by themselves, and in a checkpoint."""
    folder = tmp_path_factory.mktemp("weights")
    state = net.state_dict()
    save_file(state, folder / "plain.safetensors")
    torch.save({"epoch": 3, "state_dict": state}, folder / "lightning.ckpt")
    return folder


@pytest.mark.parametrize("name", ["plain.safetensors", "lightning.ckpt"])
def test_both_files_give_the_same_tensors_and_nothing_is_unpickled_here(files, net, monkeypatch, name):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled in this process"))
    read = read_weights(files / name)
    assert set(read) == set(net.state_dict())
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(read[key], value.numpy())


def test_the_bundle_gives_the_network_s_numbers_in_every_engine(files, net, tmp_path):
    weights = read_weights(files / "plain.safetensors")
    card = card_of_weights(VALUES, weights)
    assert card.network is not None
    assert card.network.width == 2
    folder = write_from_weights(tmp_path / "ours.mminfer", weights, card, samples=samples_for(card))
    bundle = open_bundle(folder)
    tiles = samples_for(card).tiles[:3]
    wanted = reference_outputs(net, tiles)
    for engine in ("torch", "openvino", "onnxruntime"):
        actual = load_engine(bundle, engine).engine.infer(tiles)
        np.testing.assert_allclose(actual["probabilities"], wanted["probabilities"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(actual["depth_mm"], wanted["depth_mm"], rtol=0, atol=1e-5)
        assert bundle.parity_of(engine, "fp32").max_dp < 1e-5
    golden = bundle.golden
    for row, patient in enumerate(golden.patients):
        host = bundle.head.probabilities(golden.outputs["features"][row][None], patient)[0]
        np.testing.assert_allclose(host, golden.host_probabilities[row], rtol=0, atol=1e-12)


def test_weights_that_do_not_fit_the_card_are_refused(files, tmp_path):
    weights = read_weights(files / "plain.safetensors")
    card = card_of_weights(VALUES | {"classes": ["none", "melanoma"]}, weights)
    with pytest.raises(BundleError, match=r"do not fit the network of the card: .*w3"):
        write_from_weights(tmp_path / "x.mminfer", weights, card, samples=samples_for(card))
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_refused_with_the_way_in_for_them(tmp_path):
    save_file({"fc.weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="write_bundle"):
        card_of_weights(VALUES, read_weights(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("name", ["missing.pt", "weights.bin", "."])
def test_what_is_no_weights_file_is_refused(tmp_path, name):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="no weights file"):
        read_weights(tmp_path / name)


class Payload:
    """What a pickle can hold: a call, made by whoever unpickles it."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def with_payload(path, canary, form):
    match form:
        case "beside weights":
            torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Payload(canary)}, path)
        case "in place of a tensor":
            torch.save({"a": Payload(canary)}, path)
        case "bare pickle":
            path.write_bytes(pickle.dumps(Payload(canary)))
        case "old protocol":
            torch.save({"a": Payload(canary)}, path, _use_new_zipfile_serialization=False)
        case "zip by hand":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(Payload(canary), protocol=2))
                archive.writestr("archive/version", "3\n")
                archive.writestr("archive/byteorder", "little")


REAL = ["beside weights", "in place of a tensor", "bare pickle", "old protocol"]
SLOW = [pytest.param(form, marks=pytest.mark.slow) for form in ("in place of a tensor", "old protocol", "zip by hand")]


@pytest.mark.parametrize("form", ["beside weights", "bare pickle", *SLOW])
def test_a_pickle_payload_is_refused_and_never_run(tmp_path, monkeypatch, form):
    """Nor does it run where the environment asks PyTorch to unpickle everything."""
    canary, path = tmp_path / "canary", tmp_path / "weights.pt"
    with_payload(path, canary, form)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(BundleError, match="nothing in it was run"):
        read_weights(path)
    assert not canary.exists()


@pytest.mark.parametrize("form", REAL)
def test_the_canary_would_sing(tmp_path, form):
    """The payloads are real: an unpickler that is not restricted runs them."""
    canary, path = tmp_path / "canary", tmp_path / "weights.pt"
    with_payload(path, canary, form)
    if form == "bare pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" + bytes(60), *(pytest.param(c, marks=pytest.mark.slow) for c in (b"", b"\x80\x04"))]
)
def test_a_damaged_checkpoint_is_refused_without_this_machine_s_paths(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(BundleError, match=r"^weights\.pt cannot be read") as caught:
        read_weights(tmp_path / "weights.pt")
    assert str(tmp_path) not in str(caught.value)


WEIGHTS = {"a.weight": torch.arange(3.0), "b": torch.ones(2)}


@pytest.mark.parametrize(
    "held",
    [
        WEIGHTS,
        {"epoch": 3, "state_dict": WEIGHTS},
        {"model_state_dict": WEIGHTS, "optimiser": {"lr": 1}},
        {"model": {f"module.{name}": value for name, value in WEIGHTS.items()}},
    ],
)
def test_weights_are_found_where_training_programs_put_them(held):
    found = state_dict(held)
    assert set(found) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("held", [{"epoch": 3}, [torch.zeros(1)], {"state_dict": {}}, {}])
def test_a_checkpoint_without_weights_ends_the_child(held):
    with pytest.raises(SystemExit, match="no state_dict"):
        state_dict(held)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(BundleError, match="holds no state_dict"):
        read_weights(tmp_path / "weights.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "weights.safetensors")
    with pytest.raises(BundleError, match="NaN"):
        read_weights(tmp_path / "weights.safetensors")


def test_without_pytorch_it_says_what_to_install(files, monkeypatch):
    monkeypatch.setattr(untrusted, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailableError, match=r"mminfer\[export\]"):
        read_weights(files / "lightning.ckpt")


def test_a_child_that_hangs_is_ended(files, monkeypatch):
    monkeypatch.setattr(untrusted, "SECONDS_MAX", 0.01)
    with pytest.raises(BundleError, match=r"stopped after 0\.01 s"):
        read_weights(files / "lightning.ckpt")
