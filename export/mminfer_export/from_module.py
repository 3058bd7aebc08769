"""A PyTorch module in the user's own program → a bundle. Nothing is unpickled, because the module is in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, ParityError, UsageError
from melanoma_infer.verification.intermediate import every_value
from melanoma_infer.verification.steps import Step, first_missing, recording
from mminfer_export.card_toml import card_of
from mminfer_export.checked_bundle import (
    Model,
    Reference,
    are_probabilities,
    check_probabilities,
    require_new,
    write_checked_bundle,
)
from mminfer_export.run_onnx import load_onnx
from mminfer_export.sample_tiles import checked_tiles
from mminfer_export.to_onnx import to_onnx
from mminfer_kernels import reference as kernels

DP_MAX = 1e-4
"""The largest |Δp| between the module and its graph: the tolerance of fp32."""

Output = Literal["logits", "probabilities"]


class TileModule(nn.Module):
    """A user's module from tiles to probabilities: tiles ─ normalisation ─ module ─ softmax."""

    def __init__(self, module: nn.Module, output: Output, card: ModelCard) -> None:
        super().__init__()
        self.normalisation = _Normalisation(card)
        self.module = module
        self.softmax = nn.Softmax(dim=1) if output == "logits" else nn.Identity()

    def forward(self, tiles: Tensor) -> Tensor:
        """Return probabilities (N, K) for tiles uint8 (N, tile_px, tile_px, 3)."""
        probabilities: Tensor = self.softmax(self.module(self.normalisation(tiles)))
        return probabilities


class _Normalisation(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(card.mean))
        self.register_buffer("std", torch.tensor(card.std))

    def forward(self, tiles: Tensor) -> Tensor:
        return kernels.normalize_tiles(tiles, self.mean, self.std, torch.float32)


def write_bundle(
    path: str | Path,
    *,
    module: nn.Module,
    output: Output,
    classes: Sequence[str],
    malignant: Sequence[str],
    tile_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    sample_tiles: NDArray[np.uint8],
    um_per_px: float | None = None,
    tile_um: float | None = None,
    resize: Literal["pillow-bilinear", "reduce-bilinear"] = "pillow-bilinear",
    **card: Any,
) -> Path:
    """Return `path`, which now holds a bundle of the module, compared with it on the sample tiles.

    The module is not changed: a copy of it is exported, on the CPU, in float32 and in evaluation mode.

    Args:
        path: the folder to make, NAME.mminfer.
        module: normalised images float32 (N, 3, tile_px, tile_px) → (N, K).
        output: whether the module gives logits, which then get a softmax, or probabilities.
        classes: K names, in the order of the module's outputs.
        malignant: which of them are malignant: some, not all.
        tile_px: side of the module's input.
        mean: of x / 255, three, in the order R, G, B.
        std: likewise.
        sample_tiles: uint8 (N, tile_px, tile_px, 3), RGB, as cut from slides; a few dozen are good, four are enough.
        um_per_px: the scale of the input; or
        tile_um: the side of a tile in µm.
        resize: how tiles are brought to tile_px.
        card: further fields of `ModelCard`, such as threshold, stain, intended_use.

    Raises:
        UsageError: the arguments contradict each other or the module's output.
        BundleError: PyTorch cannot export the module.
        ParityError: the graph differs from the module by more than 1e-4 in a probability; the first step that differs
            is named.
        OutputError: the path exists, or cannot be written.
    """
    folder = Path(path)
    require_new(folder)
    made = card_of(
        {"name": folder.stem, **card, "classes": tuple(classes), "malignant": tuple(malignant), "tile_px": tile_px,
         "um_per_px": um_per_px, "tile_um": tile_um, "mean": tuple(mean), "std": tuple(std), "resize": resize}
    )  # fmt: skip
    if made.outputs:
        raise UsageError("write_bundle takes modules that give the classes alone: leave `outputs` out.")
    tiles = checked_tiles(sample_tiles, made)
    net = TileModule(_ready(module), output, made).eval()
    expected = _answers(net, tiles)
    check_probabilities(expected, made)
    graph = _exported(net, tile_px, tiles, expected)
    reference = Reference(tiles, {"probabilities": expected}, "the module")
    return write_checked_bundle(folder, Model(made, graph), reference, on=f"{len(tiles)} of the author's tiles")


def _ready(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(
            "This is TorchScript, which only the older exporter reads. Save it, and give its folder to "
            "`mminfer bundle import --wsinfer`; or give the module that it was made of."
        )
    return copy.deepcopy(module).cpu().float().eval()


def _answers(net: TileModule, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The module's probabilities (N, K), one tile a pass.

    Raises:
        UsageError: the module fails, or its output contradicts `output`.
    """
    try:
        with torch.inference_mode():
            raw = [net.module(net.normalisation(torch.from_numpy(tile[None]))) for tile in tiles]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"The module fails on a tile: {first}. It gets float32 (1, 3, tile_px, tile_px); is tile_px right?"
        ) from error
    if not all(isinstance(scores, Tensor) and scores.dim() == 2 and len(scores) == 1 for scores in raw):
        raise UsageError("The module must return one tensor (N, K). Wrap it in a module that does.")
    scores = torch.cat(raw)
    if isinstance(net.softmax, nn.Softmax) and scores.shape[1] > 1 and are_probabilities(scores.numpy()):
        raise UsageError(
            "output='logits' was given, but for every sample tile the module already returns probabilities. "
            "Use output='probabilities': a second softmax would flatten them."
        )
    answers: NDArray[np.float32] = net.softmax(scores).numpy()
    return answers


def _exported(net: TileModule, tile_px: int, tiles: NDArray[np.uint8], expected: NDArray[np.float32]) -> bytes:
    """The module's graph.

    Raises:
        BundleError: PyTorch cannot export the module.
        ParityError: the graph does not give the expected probabilities; the first step that differs is named.
    """
    try:
        graph = to_onnx(net, tile_px, ["probabilities"])
    except RuntimeError as error:  # the exporter's and Dynamo's own are all RuntimeErrors
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or [""])[0]
        raise BundleError(
            f"PyTorch cannot export this module: {first[:300]} Run torch.export.export on it to see where; control "
            "flow that depends on pixels, and shapes that depend on the batch, are the usual causes."
        ) from error
    run = load_onnx(graph, ["probabilities"])
    rows = [run({"tiles": tile[None]})["probabilities"] for tile in tiles]
    dp = np.abs(np.concatenate(rows) - expected).max(axis=1)
    # Not written as "above the limit": a NaN must fail.
    if not dp.max() <= DP_MAX:
        worst = int(np.nan_to_num(dp, nan=np.inf).argmax())
        values = every_value(graph, tiles[worst : worst + 1], engine="onnxruntime", precision="fp32")
        where = first_missing(named_steps(net, tiles[worst]), [value.array for value in values])
        raise ParityError(
            f"The exported graph differs from the module by up to {dp.max():.2g} in a probability; {DP_MAX:g} is "
            f"accepted. {where} No bundle was written. Is that step deterministic, and in evaluation mode?"
        )
    return graph


def named_steps(net: TileModule, tile: NDArray[np.uint8]) -> list[Step]:
    """The steps for one tile (H, W, 3): `normalisation`, the user's submodules by their names, `module`, `softmax`."""
    with torch.no_grad(), recording(net) as steps:
        net(torch.from_numpy(tile[None].copy()))
    # The output of the whole net, and of a softmax that is the identity, repeat the step before.
    repeated = {"", *([] if isinstance(net.softmax, nn.Softmax) else ["softmax"])}
    return [Step(step.name.removeprefix("module."), step.value) for step in steps if step.name not in repeated]
