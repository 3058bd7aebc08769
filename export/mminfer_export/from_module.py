"""A PyTorch module in the user's own program → a bundle. Nothing is unpickled, because the module is in memory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melanoma_infer.bundle.graph_checks import self_contained_model
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, ParityError, UsageError
from melanoma_infer.verification.intermediate import every_value
from melanoma_infer.verification.steps import Step, first_missing, recording
from mminfer_export.batches import MIXED, batches_of
from mminfer_export.card_toml import card_of
from mminfer_export.checked_bundle import Model, Reference, require_new, write_checked_bundle
from mminfer_export.ending import Ending, ending_of
from mminfer_export.normalised_once import check_normalised_once
from mminfer_export.run_onnx import load_onnx
from mminfer_export.sample_tiles import checked_tiles
from mminfer_export.scores import Kind, Said, Seen, check_scores, kind_of, probabilities
from mminfer_export.to_onnx import to_onnx
from mminfer_export.varied_tiles import varied_scores
from mminfer_kernels import reference as kernels

DP_MAX = 1e-4
"""The largest |Δp| between the module and its graph: the tolerance of fp32."""


class TileModule(nn.Module):
    """A user's module from tiles to probabilities: tiles ─ normalisation ─ module ─ softmax."""

    def __init__(self, module: nn.Module, kind: Kind, card: ModelCard) -> None:
        super().__init__()
        self.normalisation = _Normalisation(card)
        self.module = module
        self.softmax = FINISHES[kind]()

    def forward(self, tiles: Tensor) -> Tensor:
        """Return probabilities (N, K) for tiles uint8 (N, tile_px, tile_px, 3)."""
        probabilities: Tensor = self.softmax(self.module(self.normalisation(tiles)))
        return probabilities


class _Complement(nn.Module):
    """P(second class) (N, 1) → probabilities (N, 2)."""

    def forward(self, second: Tensor) -> Tensor:
        return torch.cat([1 - second, second], 1)


FINISHES: Mapping[Kind, Callable[[], nn.Module]] = {
    "logits": lambda: nn.Softmax(dim=1),
    "one-logit": lambda: nn.Sequential(nn.Sigmoid(), _Complement()),
    "probabilities": nn.Identity,
    "one-probability": _Complement,
}
"""What is added to a module's output."""


class _Normalisation(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(card.mean))
        self.register_buffer("std", torch.tensor(card.std))

    def forward(self, tiles: Tensor) -> Tensor:
        # Contiguous (NCHW), as in training: `x.view(x.size(0), -1)` fails on channels-last memory.
        return kernels.normalize_tiles(tiles, self.mean, self.std, torch.float32).contiguous()


def write_bundle(
    path: str | Path,
    *,
    module: nn.Module,
    output: Said,
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
        module: normalised images float32 (N, 3, tile_px, tile_px), contiguous → (N, K); (N, 1) for the second of two.
        output: whether the module gives logits, which then get a softmax (one column: a sigmoid), or probabilities.
        classes: K names, in the order of the module's outputs.
        malignant: which of them are malignant: some, not all.
        tile_px: side of the module's input.
        mean: of x / 255, three, in the order R, G, B.
        std: likewise.
        sample_tiles: uint8 (N, tile_px, tile_px, 3), RGB, as cut from slides; a few dozen are good, four are enough.
        um_per_px: the scale of the input; or
        tile_um: the side of a tile in µm.
        resize: how tiles are brought to tile_px.
        card: further fields of `ModelCard`, such as threshold, training_data, intended_use.

    Warns:
        UserWarning: the card does not say what the model may be used for, or was trained on: it will give no verdict.

    Raises:
        UsageError: the arguments contradict each other, the module's output or its last operators.
        BundleError: PyTorch cannot export the module, or a tile's output depends on chance or on the rest of its batch.
        ParityError: the graph differs from the module by more than 1e-4 in a probability; the first such step is named.
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
    if made.undocumented is not None:
        warnings.warn(made.undocumented, stacklevel=2)
    return write_module(folder, module, card=made, output=output, tiles=checked_tiles(sample_tiles, made))


def write_module(folder: Path, module: nn.Module, *, card: ModelCard, output: Said, tiles: NDArray[np.uint8]) -> Path:
    """Return `folder`, which now holds a bundle of the module with this card, compared with it on these tiles.

    Raises:
        UsageError, BundleError, ParityError, OutputError: as in `write_bundle`.
    """
    ready = _ready(module)
    scores = _scores(ready, card, tiles)
    kind = kind_of(scores, len(card.classes), output)
    net = TileModule(ready, kind, card).eval()
    graph = _exported(net, tiles)
    check_normalised_once(graph)
    seen = Seen(scores, _ending(graph, output), lambda: varied_scores(partial(_scores, ready, card), card.tile_px))
    check_scores(seen, kind, lambda said: f"output={said!r}")
    expected = probabilities(scores, kind)
    _require_same(net, graph, tiles, expected)
    reference = Reference(tiles, {"probabilities": expected}, "the module")
    return write_checked_bundle(folder, Model(card, graph), reference, on=f"{len(tiles)} of the author's tiles")


def _ready(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(
            "This is TorchScript, which only the older exporter reads. Save it, and give its folder to "
            "`mminfer bundle import --wsinfer`; or give the module that it was made of."
        )
    return copy.deepcopy(module).cpu().float().eval()


def _scores(
    module: nn.Module, card: ModelCard, tiles: NDArray[np.uint8], factors: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The module's own output (N, columns), one tile a pass; normalised tiles are multiplied by the factors (N,).

    Raises:
        UsageError: the module fails, or returns something else.
    """
    normalisation = _Normalisation(card)
    scales = torch.ones(len(tiles)) if factors is None else torch.from_numpy(factors)
    try:
        with torch.inference_mode():
            images = (normalisation(torch.from_numpy(tile[None])) for tile in tiles)
            raw = [module(image * scale) for image, scale in zip(images, scales, strict=True)]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"The module fails on a tile: {first}. It gets float32 (1, 3, tile_px, tile_px); is tile_px right?"
        ) from error
    if not all(isinstance(scores, Tensor) and scores.dim() == 2 and len(scores) == 1 for scores in raw):
        raise UsageError("The module must return one tensor (N, K). Wrap it in a module that does.")
    values: NDArray[np.float32] = torch.cat(raw).numpy()
    return values


def _exported(net: TileModule, tiles: NDArray[np.uint8]) -> bytes:
    """The module's graph: for any batch size if the module allows it, else for one tile.

    Raises:
        BundleError: PyTorch cannot export the module, or it is not one that computes each tile alone.
    """
    try:
        graph = to_onnx(net, tiles.shape[1], ["probabilities"])
    except RuntimeError:
        return _for_one_tile(net, tiles)
    self_contained_model(graph)
    batches = batches_of(graph, tiles, ["probabilities"])
    if batches == "mixed":
        raise BundleError(MIXED)
    return graph if batches == "open" else _for_one_tile(net, tiles)


def _for_one_tile(net: TileModule, tiles: NDArray[np.uint8]) -> bytes:
    """The graph for one tile."""
    try:
        return to_onnx(net, tiles.shape[1], ["probabilities"], batch=1)
    except RuntimeError as error:  # the exporter's and Dynamo's own are all RuntimeErrors
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or [""])[0]
        raise BundleError(
            f"PyTorch cannot export this module: {first[:300]} Run torch.export.export on it to see where; control "
            "flow that depends on pixels is the usual cause."
        ) from error


def _ending(graph: bytes, output: Said) -> Ending:
    """How the module itself ends: before the softmax or sigmoid that was added to logits."""
    inner = onnx.load_model_from_string(graph).graph
    ending = ending_of(inner, "probabilities")
    if output == "logits" and ending.node is not None:
        return ending_of(inner, ending.node.input[0])
    return ending


def _require_same(net: TileModule, graph: bytes, tiles: NDArray[np.uint8], expected: NDArray[np.float32]) -> None:
    """Raise ParityError, with the first step that differs, unless the graph gives the expected probabilities."""
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


def named_steps(net: TileModule, tile: NDArray[np.uint8]) -> list[Step]:
    """The steps for one tile (H, W, 3): `normalisation`, the user's submodules by their names, `module`, `softmax`."""
    with torch.no_grad(), recording(net) as steps:
        net(torch.from_numpy(tile[None].copy()))
    # The output of the whole net, and of a softmax that is the identity, repeat the step before.
    repeated = {"", *(["softmax"] if isinstance(net.softmax, nn.Identity) else [])}
    return [Step(step.name.removeprefix("module."), step.value) for step in steps if step.name not in repeated]
