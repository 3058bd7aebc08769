"""docs/your-own-model.md, run from top to bottom."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from own_models_for_tests import SmallNet, linear_onnx, random_tiles, wsinfer_folder
from PIL import Image
from safetensors.torch import save_file

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.cli.app import main
from melanoma_infer.model.melanoma_net import MelanomaNet
from mminfer_export.card_toml import card_of
from mminfer_export.wsinfer_resnet50 import ResNet50

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-model.md"
OURS = """
name = "ours"
classes = ["none", "melanoma"]
malignant = ["melanoma"]
tile_px = 256
tile_um = 512.0
mean = [0.8, 0.7, 0.8]
std = [0.2, 0.2, 0.2]
resize = "reduce-bilinear"
"""


def blocks(language: str) -> list[str]:
    # The tests of the wheel are collected where there are no docs; none of those below are among them.
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text() if PAGE.is_file() else "", re.DOTALL)


def tamed(net: torch.nn.Module) -> torch.nn.Module:
    """The network with small residual branches: at 1 a random backbone amplifies rounding."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.2)
    return net.eval()


def spread(net: torch.nn.Module, tiles: np.ndarray) -> torch.nn.Module:
    """The network with a classifier that tells the tiles apart: a random one gives 0.4932 to 0.4937."""
    with torch.no_grad():
        net.fc.weight.mul_(100)
        logits = net(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255)
        net.fc.bias.sub_(logits.mean(0))
    return net


TILES = random_tiles(3, 224)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder with the files that the page starts from, and the names that its Python leaves behind."""
    folder = tmp_path_factory.mktemp("page")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        save_file(spread(tamed(ResNet50(2)), TILES).state_dict(), folder / "resnet50.safetensors")
    np.save(folder / "tiles.npy", TILES)
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for place, block in enumerate(blocks("python")):
            exec(compile(block, f"{PAGE.name}, block {place + 1}", "exec"), names)
    return folder, names


def test_the_bundle_gives_the_module_s_probabilities(page):
    folder, names = page
    bundle = open_bundle(folder / "skin.mminfer")
    assert (bundle.card.tile_px, bundle.card.um_per_px, bundle.card.outputs) == (224, 0.5, ())
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (bundle.card.mean, bundle.card.std))
    images = (torch.from_numpy(TILES).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        wanted = names["net"].eval()(images).softmax(1).numpy()
    assert np.ptp(wanted[:, 1]) > 0.01
    np.testing.assert_allclose(names["probabilities"], wanted, rtol=0, atol=5e-5)  # half of the fp32 tolerance


def commands() -> list[list[str]]:
    lines = [line.split() for block in blocks("sh") for line in block.splitlines()]
    assert all(line[0] == "mminfer" for line in lines)
    return [line[1:] for line in lines]


def provide(folder: Path, command: list[str]) -> None:
    """What the command reads and the page does not make."""
    if "section.png" in command:
        pixels = np.full((400, 500, 3), 245, np.uint8)
        pixels[60:330, 80:420] = (170, 80, 140)
        Image.fromarray(pixels).save(folder / "section.png")
    if "--onnx" in command:
        onnx.save(linear_onnx(side=224), folder / "model.onnx")
    if "--wsinfer" in command:
        wsinfer_folder(folder / "breast-tumor-resnet34", SmallNet().eval())
    if "--weights" in command:
        (folder / "ours.toml").write_text(OURS)
        fields = {"classes": ["none", "melanoma"], "malignant": ["melanoma"], "tile_px": 256, "tile_um": 512.0}
        more = {"name": "ours", "mean": [0] * 3, "std": [1] * 3, "resize": "reduce-bilinear", "network": {"width": 2}}
        net = tamed(MelanomaNet.from_card(card_of(fields | more)))
        save_file(net.state_dict(), folder / "weights.safetensors")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[pytest.mark.slow] if {"--wsinfer", "--weights"} & {*command} else [])
        for place, command in enumerate(commands())
    ],
)
def test_every_command_of_the_page_succeeds(page, monkeypatch, capsys, place):
    folder, _ = page
    command = commands()[place]
    provide(folder, command)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["mminfer", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None), capsys.readouterr().err
