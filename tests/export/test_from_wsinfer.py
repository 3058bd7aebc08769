"""A model of WSInfer's zoo gives here what WSInfer gives for the same patches."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import torch
from own_models_for_tests import MEAN, STD, SmallNet, random_tiles, wsinfer_folder
from PIL import Image
from safetensors.torch import save_file

from melanoma_infer import Scorer, score_slide
from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, UsageError
from mminfer_export.from_wsinfer import card_of_config, preprocessing_of, read_config, write_from_wsinfer
from mminfer_export.sample_tiles import samples_for
from mminfer_export.wsinfer_resnet50 import ResNet50

TOTENSOR = {"name": "ToTensor"}
NORMALIZE = {"name": "Normalize", "arguments": {"mean": list(MEAN), "std": list(STD)}}


def imported(folder, out, malignant=("tumor",), told=None):
    card = card_of_config(read_config(folder), name="zoo", malignant=malignant)
    tell = (told if told is not None else []).append
    return open_bundle(write_from_wsinfer(out, folder, card, samples=samples_for(card), tell=tell))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A model of 350 px at 0.5 µm/px that sees 224 px: as a folder of the zoo, as a bundle, and what the user was told.

    Its code is not loaded in this process.
    """
    root, told = tmp_path_factory.mktemp("zoo"), []
    folder = wsinfer_folder(root / "breast-tumor", SmallNet().eval())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded in this process"))
        bundle = imported(folder, root / "zoo.mminfer", told=told)
    return folder, bundle, told


def by_wsinfer(folder, slide, rows):
    """What WSInfer 0.6 computes for patches (minx, miny, width, height): level 0, PIL resize, /255, normalise, softmax.

    transforms.Resize(224) of a PIL image is Image.resize with the bilinear filter, which antialiases.
    """
    model = torch.jit.load(str(folder / "torchscript_model.pt")).eval()
    probabilities = []
    for x, y, width, height in rows:
        patch = slide.read_region((int(x), int(y)), 0, (int(width), int(height))).convert("RGB")
        patch = patch.resize((224, 224), Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.array(patch)).permute(2, 0, 1).float() / 255
        image = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.no_grad():
            probabilities.append(model(image[None]).softmax(1)[0].numpy())
    return np.stack(probabilities)


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("spacing", [0.5, pytest.param(0.25, marks=pytest.mark.slow)])
def test_probabilities_on_a_real_slide_are_wsinfer_s(cmu, tmp_path, zoo, spacing):
    """Every patch inside the slide; 0.003 on average was promised. Enlarged (0.25 µm/px) as well as reduced patches."""
    folder, bundle, _ = zoo
    if spacing != 0.5:
        folder = wsinfer_folder(tmp_path / "fine", SmallNet().eval(), spacing_um_px=spacing)
        bundle = imported(folder, tmp_path / "fine.mminfer")
    tiles = score_slide(cmu, Scorer(bundle)).tiles
    with openslide.OpenSlide(cmu) as slide:
        width, height = slide.dimensions
        inside = (tiles.minx + tiles.width <= width) & (tiles.miny + tiles.height <= height)
        rows = np.stack([tiles.minx, tiles.miny, tiles.width, tiles.height], axis=1)[inside]
        theirs = by_wsinfer(folder, slide, rows)
    assert len(rows) >= 25
    assert (rows[:, 2:] == round(350 * spacing / 0.499)).all()
    assert np.ptp(theirs[:, 1]) > 0.2
    difference = np.abs(tiles.probabilities[inside] - theirs)
    assert difference.mean() < 0.003
    assert difference.max() < 1e-5


def test_the_card_is_the_config_s(zoo):
    _, bundle, _ = zoo
    card = bundle.card
    assert (card.classes, card.malignant, card.name) == (("notumor", "tumor"), ("tumor",), "zoo")
    assert (card.tile_px, card.tile_side_um, card.read_from, card.resize) == (224, 175.0, "level0", "pillow-bilinear")
    np.testing.assert_allclose((*card.mean, *card.std), (*MEAN, *STD))
    assert bundle.parity_of("onnxruntime", "fp32").max_dp < 1e-5


def test_the_user_is_told_that_torchscript_is_code(zoo):
    assert len(zoo[2]) == 1
    assert "TorchScript is code" in zoo[2][0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
def test_one_class_gets_a_sigmoid_and_its_opposite_a_name(tmp_path):
    folder = wsinfer_folder(tmp_path / "zoo", SmallNet(1).eval(), num_classes=1, class_names=["tumor"])
    bundle = imported(folder, tmp_path / "zoo.mminfer")
    assert bundle.card.classes == ("not tumor", "tumor")
    tiles = random_tiles(3, 224)
    images = (torch.from_numpy(tiles).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        wanted = torch.jit.load(str(folder / "torchscript_model.pt"))(images.permute(0, 3, 1, 2)).sigmoid()[:, 0]
    actual = load_engine(bundle, "openvino").engine.infer(tiles)["probabilities"]
    np.testing.assert_allclose(actual[:, 1], wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual.sum(1), 1, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_known_architecture_comes_from_its_safetensors_and_no_code_runs(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = ResNet50(2).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.2)
    folder, told = wsinfer_folder(tmp_path / "zoo", None, architecture="resnet50"), []
    (folder / "torchscript_model.pt").write_bytes(b"never read")
    save_file({k: v for k, v in net.state_dict().items() if "batches" not in k}, folder / "model.safetensors")
    bundle = imported(folder, tmp_path / "zoo.mminfer", told=told)
    assert told == []
    tiles = random_tiles(2, 224)
    images = (torch.from_numpy(tiles).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        wanted = net(images.permute(0, 3, 1, 2)).softmax(1).numpy()
    actual = load_engine(bundle, "openvino").engine.infer(tiles)["probabilities"]
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "tile_px", "mean"),
    [
        ([{"name": "Resize", "arguments": {"size": 224}}, TOTENSOR, NORMALIZE], 224, MEAN),
        ([{"name": "Resize", "arguments": {"size": [96, 96], "interpolation": 2}}, TOTENSOR], 96, (0, 0, 0)),
        ([{"name": "Resize", "arguments": {"size": [96], "interpolation": "bilinear"}}, TOTENSOR], 96, (0, 0, 0)),
        ([TOTENSOR, NORMALIZE], 350, MEAN),
    ],
)  # fmt: skip
def test_transforms_that_can_be_kept(tmp_path, steps, tile_px, mean):
    step = preprocessing_of(read_config(wsinfer_folder(tmp_path / "zoo", None, transform=steps)))
    assert (step.tile_px, step.mean) == (tile_px, tuple(mean))


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [NORMALIZE, TOTENSOR],
        [{"name": "Resize", "arguments": {"size": [224, 200]}}, TOTENSOR],
        [{"name": "Resize", "arguments": {"size": 224, "interpolation": 3}}, TOTENSOR],
        [{"name": "Resize", "arguments": {"size": 224, "antialias": False}}, TOTENSOR],
        [{"name": "Resize", "arguments": {"size": 224, "max_size": 300}}, TOTENSOR],
        [{"name": "Resize"}, TOTENSOR],
        [TOTENSOR, {"name": "Normalize", "arguments": {"mean": [0.5], "std": [0.5]}}],
        [TOTENSOR, {"name": "Normalize", "arguments": {"mean": [0, 0, 0], "std": [0, 1, 1]}}],
    ],
)
def test_transforms_that_would_change_the_pixels_are_refused(tmp_path, steps):
    config = read_config(wsinfer_folder(tmp_path / "zoo", None, transform=steps))
    with pytest.raises(BundleError):
        preprocessing_of(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec_version": "2.0"},
        {"num_classes": 3},
        {"num_classes": 0},
        {"spacing_um_px": 0},
        {"patch_size_pixels": "350 px"},
        {"transform": [{"name": "CenterCrop"}]},
        {"transform": [{"name": "ToTensor", "more": 1}]},
    ],
)
def test_a_config_of_another_kind_is_refused(tmp_path, changes):
    with pytest.raises(BundleError, match=r"config\.json"):
        read_config(wsinfer_folder(tmp_path / "zoo", None, **changes))


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BundleError):
        read_config(tmp_path)


def test_which_classes_are_malignant_is_never_guessed(tmp_path):
    config = read_config(wsinfer_folder(tmp_path / "zoo", None))
    with pytest.raises(UsageError, match="Give --malignant, one or more of notumor, tumor"):
        card_of_config(config, name="zoo", malignant=())
    for misspelt in ("cancer", "Tumor"):
        with pytest.raises(UsageError, match=rf"^--malignant {misspelt}: .*Its classes are notumor, tumor\.$"):
            card_of_config(config, name="zoo", malignant=("tumor", misspelt))
    with pytest.raises(UsageError, match="--malignant names all classes"):
        card_of_config(config, name="zoo", malignant=("tumor", "notumor"))


def test_a_card_adds_what_the_config_lacks_and_never_contradicts_it(tmp_path):
    config = read_config(wsinfer_folder(tmp_path / "zoo", None))
    assert card_of_config(config, name="zoo", malignant=("tumor",)).training_data == ""
    more = {"training_data": "breast", "finding": "breast cancer"}
    card = card_of_config(config, name="zoo", malignant=("tumor",), more=more)
    assert (card.training_data, card.noun, card.tile_px) == ("breast", "breast cancer", 224)
    for field, value in (("tile_px", 224), ("um_per_px", 0.5)):
        with pytest.raises(UsageError, match=f"^{field} of the card is what config.json and the command line say"):
            card_of_config(config, name="zoo", malignant=("tumor",), more={field: value})


def test_a_folder_without_weights_that_can_be_read_is_refused(tmp_path):
    folder = wsinfer_folder(tmp_path / "zoo", None)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"resnet34.*write_bundle"):
        imported(folder, tmp_path / "zoo.mminfer")


@pytest.mark.parametrize("content", [b"PK\x03\x04 rubbish", pytest.param(b"", marks=pytest.mark.slow)])
def test_what_is_no_torchscript_is_refused(tmp_path, content):
    folder = wsinfer_folder(tmp_path / "zoo", None)
    (folder / "torchscript_model.pt").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be converted") as caught:
        imported(folder, tmp_path / "zoo.mminfer")
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "zoo.mminfer").exists()


@pytest.mark.slow
def test_scores_of_another_number_of_classes_are_refused(tmp_path):
    folder = wsinfer_folder(tmp_path / "zoo", SmallNet(3).eval())
    with pytest.raises(UsageError, match="the card names 2 classes"):
        imported(folder, tmp_path / "zoo.mminfer")
