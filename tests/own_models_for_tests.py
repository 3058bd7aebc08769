"""Models that others might bring: small networks in PyTorch, ONNX and TorchScript, and a folder of WSInfer's zoo."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from melanoma_infer.card import ModelCard

SIDE = 32
MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.25, 0.2)


class SmallNet(nn.Module):
    """Three convolutions with batch normalisation and a classifier; weights by seed, activations of about 1."""

    def __init__(self, classes: int = 2, seed: int = 7) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
            )
            self.body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
            self.neck = nn.Conv2d(16, 16, 3, padding=1)
            self.head = nn.Linear(16, classes)
            for layer in (self.stem[1], self.body[1]):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.normal_(self.head.weight, std=6.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.body(self.stem(images))).relu().mean((2, 3)))


def card(**changes: Any) -> ModelCard:
    """The card of a small network."""
    fields: dict[str, Any] = {
        "name": "small", "classes": ("normal", "tumour"), "malignant": ("tumour",), "tile_px": SIDE, "um_per_px": 1.0,
        "mean": MEAN, "std": STD, "resize": "pillow-bilinear",
    }  # fmt: skip
    return ModelCard.model_validate(fields | changes)


def random_tiles(count: int = 4, side: int = SIDE, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of different brightness."""
    rng = np.random.default_rng(seed)
    level = rng.integers(1, 9, (count, 1, 1, 1))
    return (rng.integers(0, 256, (count, side, side, 3)) * level // 8).astype(np.uint8)


def expected(net: nn.Module, tiles: NDArray[np.uint8], mean: Any = MEAN, std: Any = STD) -> NDArray[np.float64]:
    """The network's probabilities for tiles, in float64 and by torchvision's recipe: /255, normalise, softmax."""
    images = torch.from_numpy(tiles).double().permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    double = type(net)(net.head.out_features)
    double.load_state_dict(net.state_dict())
    with torch.no_grad():
        return double.double().eval()(images).softmax(1).numpy()


def linear_onnx(
    *,
    classes: int = 2,
    side: int | str = SIDE,
    batch: int | str = "batch",
    ending: str | None = None,
    outputs: tuple[str, ...] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """Float images (N, 3, H, W) ─ mean over the tile ─ linear ─ scores (N, K), and `depth_mm` where it is asked for."""
    rng = np.random.default_rng(4)
    constants = {
        "weight": rng.normal(size=(3, classes)).astype(np.float32),
        "bias": rng.normal(size=classes).astype(np.float32),
    }
    last = "logits" if ending else "scores"
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colour"]),
        helper.make_node("Gemm", ["colour", "weight", "bias"], [last]),
    ]
    if ending:
        nodes.append(helper.make_node(ending, ["logits"], ["scores"], **({"axis": 1} if ending == "Softmax" else {})))
    values = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])]
    if "depth_mm" in outputs:
        constants["one"] = np.array([1], np.int64)
        nodes.append(helper.make_node("ReduceSum", ["colour", "one"], ["depth_mm"], keepdims=0))
        values.append(helper.make_tensor_value_info("depth_mm", TensorProto.FLOAT, [batch]))
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side])], values,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def linear_probabilities(tiles: NDArray[np.uint8], classes: int = 2) -> NDArray[np.float64]:
    """What `linear_onnx` must give behind normalisation and softmax, in float64."""
    rng = np.random.default_rng(4)
    weight, bias = (rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in ((3, classes), classes))
    colour = ((tiles.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)).mean((1, 2))
    logits = np.exp(colour @ weight + bias)
    return logits / logits.sum(1, keepdims=True)


def save_torchscript(net: nn.Module, path: Path, side: int) -> None:
    """The network, traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated; WSInfer's zoo consists of such files
        torch.jit.trace(net.eval(), torch.zeros(1, 3, side, side)).save(str(path))


def wsinfer_folder(folder: Path, net: nn.Module | None, **changes: Any) -> Path:
    """A model of WSInfer's zoo: 350 px at 0.5 µm/px, resized to 224 px."""
    config: dict[str, Any] = {
        "spec_version": "1.0",
        "architecture": "resnet34",
        "num_classes": 2,
        "class_names": ["notumor", "tumor"],
        "patch_size_pixels": 350,
        "spacing_um_px": 0.5,
        "transform": [
            {"name": "Resize", "arguments": {"size": 224}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(MEAN), "std": list(STD)}},
        ],
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    if net is not None:
        save_torchscript(net, folder / "torchscript_model.pt", 224)
    return folder
