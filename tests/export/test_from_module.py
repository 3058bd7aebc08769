"""write_bundle: a bundle gives the module's numbers, or the module is refused and the first differing step named."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from own_models_for_tests import MEAN, SIDE, STD, SmallNet, card, expected, random_tiles
from torch import nn

import mminfer_export
import mminfer_export.from_module as from_module
from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, OutputError, ParityError, UsageError
from mminfer_export import write_bundle

EXPORT = from_module.to_onnx


@functools.cache
def exported():
    """The graph of the small network, as it should be."""
    with torch.no_grad():
        net = from_module.TileModule(SmallNet().eval(), "logits", card())
    return EXPORT(net.eval(), SIDE, ["probabilities"])


def write(folder, module, **changes):
    arguments = {
        "module": module, "output": "logits", "classes": ["normal", "tumour"], "malignant": ["tumour"], "tile_px": SIDE,
        "um_per_px": 0.5, "mean": MEAN, "std": STD, "sample_tiles": random_tiles(6),
        "training_data": "none: the weights are random", "intended_use": "to test the exporter",
    }  # fmt: skip
    return write_bundle(folder, **(arguments | changes))


@pytest.fixture(scope="module")
def net():
    return SmallNet().train()


@pytest.fixture(scope="module")
def bundle(net, tmp_path_factory):
    return open_bundle(write(tmp_path_factory.mktemp("made") / "skin.mminfer", net, stain="H&E"))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_every_engine_gives_the_module_s_probabilities_for_other_tiles(bundle, net, engine):
    tiles = random_tiles(5, seed=9)
    actual = load_engine(bundle, engine).engine.infer(tiles)["probabilities"]
    wanted = expected(net, tiles)
    assert np.ptp(wanted[:, 1]) > 0.3
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)


def test_the_card_says_what_was_said(bundle):
    card = bundle.card
    assert (card.name, card.tile_px, card.um_per_px, card.resize) == ("skin", SIDE, 0.5, "pillow-bilinear")
    assert (card.classes, card.malignant, card.stain, card.threshold) == (
        ("normal", "tumour"),
        ("tumour",),
        "H&E",
        None,
    )
    assert card.mean == MEAN


def test_the_user_is_warned_once_of_a_card_that_lacks_statements(tmp_path):
    with pytest.warns(UserWarning, match="does not say what the model may be used for") as warned:
        write(tmp_path / "x.mminfer", SmallNet(), intended_use="")
    assert [str(warning.message) for warning in warned] == [
        "The model card does not say what the model may be used for. "
        "Add intended_use to the card: until then no slide gets a verdict."
    ]
    assert warned[0].filename == __file__.replace(".pyc", ".py")


def test_golden_tiles_span_the_sample_tiles_and_parity_is_sealed(bundle, net):
    wanted = expected(net, random_tiles(6))[:, 1]
    golden = bundle.golden.outputs["probabilities"][:, 1]
    assert len(golden) == 4
    np.testing.assert_allclose((golden.min(), golden.max()), (wanted.min(), wanted.max()), rtol=0, atol=1e-5)
    for engine in ("openvino", "onnxruntime"):
        row = bundle.parity_of(engine, "fp32")
        assert (row.tiles, row.decision_flips, row.on) == (6, 0, "6 of the author's tiles")
        assert row.max_dp < 1e-5


def test_the_module_stays_as_it_was(net, bundle):
    assert net.training
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_module_in_half_precision_is_exported_in_single(tmp_path):
    made = open_bundle(write(tmp_path / "half.mminfer", SmallNet().half()))
    tensors = onnx.load_from_string(made.graphs["fp32"]).graph.initializer
    assert {tensor.data_type for tensor in tensors} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_a_module_that_gives_probabilities_gets_no_second_softmax(tmp_path, net):
    made = open_bundle(write(tmp_path / "p.mminfer", nn.Sequential(SmallNet(), nn.Softmax(1)), output="probabilities"))
    actual = load_engine(made, "openvino").engine.infer(random_tiles(3))["probabilities"]
    np.testing.assert_allclose(actual, expected(net, random_tiles(3)), rtol=0, atol=1e-5)


def test_probabilities_called_logits_are_refused(tmp_path):
    with pytest.raises(UsageError, match="a second softmax would flatten them"):
        write(tmp_path / "x.mminfer", nn.Sequential(SmallNet(), nn.Softmax(1)))


def test_a_last_layer_of_zeros_is_taken(tmp_path):
    """As vision transformers begin: its scores are all 0, which is within 0 and 1."""
    last = nn.Linear(2, 2)
    for weight in last.parameters():
        nn.init.zeros_(weight)
    made = open_bundle(write(tmp_path / "zeros.mminfer", nn.Sequential(SmallNet(), nn.LayerNorm(2), last)))
    assert (load_engine(made, "openvino").engine.infer(random_tiles(2))["probabilities"] == 0.5).all()


def test_logits_called_probabilities_are_refused(tmp_path):
    with pytest.raises(UsageError, match="are not probabilities"):
        write(tmp_path / "x.mminfer", SmallNet(), output="probabilities")


@pytest.mark.parametrize(
    ("ending", "output"),
    [
        pytest.param([nn.Flatten()], "logits", marks=pytest.mark.slow),
        ([nn.Sigmoid(), nn.Identity()], "probabilities"),
    ],
)
def test_one_column_is_the_second_class(tmp_path, ending, output):
    net = SmallNet(1).eval()
    with torch.no_grad():
        net.head.bias += 5.7  # or every tile would be close to 0
    made = open_bundle(write(tmp_path / "one.mminfer", nn.Sequential(net, *ending), output=output))
    images = (random_tiles(3) / 255 - np.array(MEAN)) / np.array(STD)
    with torch.no_grad():
        second = net(torch.from_numpy(images).permute(0, 3, 1, 2).float()).sigmoid().numpy()
    actual = load_engine(made, "openvino").engine.infer(random_tiles(3))["probabilities"]
    assert np.ptp(second) > 0.1
    np.testing.assert_allclose(actual, np.concatenate([1 - second, second], 1), rtol=0, atol=1e-5)


class ByHand(SmallNet):
    """A sigmoid that is written out."""

    def forward(self, images):
        return 1 / (1 + torch.exp(-super().forward(images)))


@pytest.mark.parametrize(
    ("module", "output", "words"),
    [
        (nn.Sequential(SmallNet(1), nn.Sigmoid()), "logits", "a second sigmoid would flatten them"),
        (ByHand(1), "logits", "like probabilities: a second sigmoid would flatten them. Instead use output="),
        pytest.param(SmallNet(1), "probabilities", "it ends with Gemm. Use output=", marks=pytest.mark.slow),
        (nn.Sequential(SmallNet(), nn.Sigmoid()), "probabilities", "a Sigmoid for each of 2 classes: independent"),
        pytest.param(
            nn.Sequential(SmallNet(), nn.Sigmoid()), "logits", "a Sigmoid for each of 2 classes", marks=pytest.mark.slow
        ),
    ],
)
def test_an_output_that_contradicts_the_module_s_last_operators_is_refused(tmp_path, module, output, words):
    with pytest.raises(UsageError, match=words):
        write(tmp_path / "x.mminfer", module, output=output)
    assert list(tmp_path.iterdir()) == []


class Normalises(SmallNet):
    """Does what the card does as well."""

    def forward(self, images):
        return super().forward((images - 0.5) / 0.25)


def test_a_module_that_normalises_a_second_time_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"takes off 0\.5, as if it got 0 to 1"):
        write(tmp_path / "x.mminfer", Normalises())


class ClassToken(nn.Module):
    """Patches, a class token for each tile of the batch, attention; VGG's view of a map beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head, self.beside = nn.Linear(16, 2), nn.Linear(256, 2)

    def forward(self, x):
        maps = self.patches(x)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), maps.flatten(2).transpose(1, 2)], dim=1)
        shifted = torch.roll(self.norm(tokens), 1, 1)
        y = self.attention(shifted, shifted, shifted, need_weights=False)[0]
        return 4 * self.head(y[:, 0]) + self.beside(maps.view(x.size(0), -1))


class OneAtATime(SmallNet):
    """Its loop over the batch fits no open batch size."""

    def forward(self, images):
        return torch.stack([super(OneAtATime, self).forward(images[i : i + 1])[0] for i in range(len(images))])


@pytest.mark.parametrize("kind", [ClassToken, pytest.param(OneAtATime, marks=pytest.mark.slow)])
def test_a_module_that_reads_the_batch_size_is_taken(tmp_path, kind):
    """Its memory is contiguous as in training, or `view` would fail."""
    net = kind().eval()
    made = open_bundle(write(tmp_path / "x.mminfer", net))
    images = torch.from_numpy((random_tiles(5) / 255 - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = torch.cat([net(image) for image in images.contiguous().float().split(1)]).softmax(1).numpy()
    assert np.ptp(wanted[:, 1]) > 0.05
    for engine in ("openvino", "onnxruntime"):
        actual = load_engine(made, engine).engine.infer(random_tiles(5))["probabilities"]
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)


class DropsAlways(SmallNet):
    """Dropout that evaluation mode does not reach."""

    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.5)


class CentresBatch(SmallNet):
    """Takes the mean of the batch off."""

    def forward(self, images):
        return super().forward(images - 0.5 * images.mean(0, keepdim=True))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (CentresBatch, "the other tiles of its batch"),
        pytest.param(DropsAlways, "training=self.training", marks=pytest.mark.slow),
    ],
)
def test_a_module_whose_answer_changes_from_run_to_run_is_refused(tmp_path, module, words):
    with pytest.raises(BundleError, match=words):
        write(tmp_path / "x.mminfer", module())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["torchvision/mobilenet_v3_small", "torchvision/resnet18", "timm/mobilevitv2_050", "timm/vit_tiny_patch16_224"],
)
def test_networks_of_others_are_taken_as_they_are(tmp_path, name):
    library, model = name.split("/")
    package = pytest.importorskip(library, reason=f"{library} is not among the locked packages: install it to run this")
    torch.manual_seed(0)
    make = package.models.get_model if library == "torchvision" else package.create_model
    net = make(model, num_classes=2).eval()
    tiles = random_tiles(2, 224)
    made = open_bundle(write(tmp_path / "x.mminfer", net, tile_px=224, sample_tiles=tiles))
    images = torch.from_numpy((tiles / 255 - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2).contiguous().float()
    with torch.no_grad():
        wanted = net(images).softmax(1).numpy()
    for engine in ("openvino", "onnxruntime"):
        actual = load_engine(made, engine).engine.infer(tiles)["probabilities"]
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4)


class GivesMore(SmallNet):
    """Returns its features as well."""

    def forward(self, images):
        return super().forward(images), images


@pytest.mark.parametrize(
    ("module", "changes", "words"),
    [
        (SmallNet(3), {}, "the card names 2 classes"),
        (GivesMore(), {}, "must return one tensor"),
        (nn.Linear(7, 2), {}, "The module fails on a tile: mat1 and mat2"),
        (SmallNet(), {"sample_tiles": random_tiles(2, 16)}, "sample_tiles must be uint8"),
        (SmallNet(), {"sample_tiles": random_tiles(2).astype(np.float32)}, "sample_tiles must be uint8"),
        (SmallNet(), {"sample_tiles": random_tiles(2)[:0]}, "sample_tiles must be uint8"),
        (SmallNet(), {"malignant": ["naevus"]}, "malignant must name some"),
        (SmallNet(), {"um_per_px": None}, "give um_per_px or tile_um"),
        (SmallNet(), {"surprise": 1}, "surprise"),
        (SmallNet(), {"outputs": ("depth_mm",)}, "leave `outputs` out"),
    ],
)
def test_what_contradicts_itself_is_refused_and_nothing_is_written(tmp_path, module, changes, words):
    with pytest.raises(UsageError, match=words):
        write(tmp_path / "x.mminfer", module, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_gives_nan_is_refused(tmp_path):
    broken = SmallNet()
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    with pytest.raises((BundleError, UsageError)):
        write(tmp_path / "x.mminfer", broken)
    assert list(tmp_path.iterdir()) == []


class DependsOnPixels(SmallNet):
    """Takes another way for dark tiles, which no graph can."""

    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


def test_a_module_that_cannot_be_exported_is_refused_with_pytorch_s_reason(tmp_path):
    with pytest.raises(BundleError, match=r"PyTorch cannot export this module: .+ torch\.export\.export"):
        write(tmp_path / "x.mminfer", DependsOnPixels())


def test_an_existing_folder_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(from_module, "to_onnx", lambda *_: pytest.fail("it was exported"))
    (tmp_path / "x.mminfer").mkdir()
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "x.mminfer", SmallNet())


def corrupted(name):
    """The exporter, with one weight of its graph changed, or its softmax replaced."""

    def export(*_):
        model = onnx.load_from_string(exported())
        if name == "Softmax":
            model.graph.node[-1].op_type = "Sigmoid"
            del model.graph.node[-1].attribute[:]
        else:
            (tensor,) = (each for each in model.graph.initializer if each.name == name)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.25), name))
        return model.SerializeToString()

    return export


def mean_in(graph):
    """The name of the initializer that is subtracted."""
    return next(node.input[1] for node in graph.node if node.op_type == "Sub")


@pytest.mark.parametrize(
    ("weight", "step"),
    [
        ("mean", "They differ at `normalisation`"),
        ("module.stem.0.weight", "agree up to `normalisation` and first differ at `stem.0`"),
        ("module.body.0.weight", "agree up to `stem` and first differ at `body.0`"),
        ("module.neck.bias", "agree up to `body` and first differ at `neck`"),
        ("module.head.bias", "first differ at `head`"),
        ("Softmax", "agree up to `module` and first differ at `softmax`"),
    ],
)
def test_a_graph_that_differs_is_refused_and_the_first_step_named(tmp_path, monkeypatch, weight, step):
    """SmallNet's ReLU works in place: what the layer before it gave must have been kept before that."""
    if weight == "mean":
        weight = mean_in(onnx.load_from_string(exported()).graph)
    monkeypatch.setattr(from_module, "to_onnx", corrupted(weight))
    with pytest.raises(ParityError, match=step):
        write(tmp_path / "x.mminfer", SmallNet())
    assert list(tmp_path.iterdir()) == []


def test_a_graph_just_within_the_tolerance_is_accepted_and_one_just_beyond_is_not(tmp_path, monkeypatch, net):
    """Δp of a shifted logit z is p(1−p)·Δz; the largest p(1−p) of the tiles scales the shift."""
    probabilities = expected(net, random_tiles(6))
    slope = (probabilities[:, 0] * probabilities[:, 1]).max()

    def shifted(dp):
        def export(*_):
            model = onnx.load_from_string(exported())
            (tensor,) = (each for each in model.graph.initializer if each.name == "module.head.bias")
            bias = numpy_helper.to_array(tensor) + np.array([dp / slope, 0], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), tensor.name))
            return model.SerializeToString()

        return export

    monkeypatch.setattr(from_module, "to_onnx", shifted(0.9e-4))
    write(tmp_path / "within.mminfer", SmallNet())
    monkeypatch.setattr(from_module, "to_onnx", shifted(1.1e-4))
    with pytest.raises(ParityError):
        write(tmp_path / "beyond.mminfer", SmallNet())


def test_torchscript_is_refused_with_the_way_to_import_it(tmp_path):
    with pytest.warns(DeprecationWarning, match="deprecated"):
        traced = torch.jit.trace(SmallNet().eval(), torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(UsageError, match="bundle import --wsinfer"):
        write(tmp_path / "x.mminfer", traced)


@pytest.mark.wheel
def test_the_package_offers_what_it_names_and_imports_no_torch_for_that():
    assert mminfer_export.__all__ == dir(mminfer_export) == ["write_bundle"]
    assert mminfer_export.write_bundle.__name__ == "write_bundle"
    with pytest.raises(AttributeError, match="no attribute 'pickle'"):
        _ = mminfer_export.pickle
    code = f"import sys; sys.path[:0] = {sys.path!r}; import mminfer_export; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
