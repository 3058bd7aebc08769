"""PyTorch: the reference of our own network, run from the bundle's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines.base import Numerics, OneAtATime, Outputs
from melanoma_infer.errors import BundleError, EngineUnavailableError

if TYPE_CHECKING:
    import torch

    from melanoma_infer.model.melanoma_net import MelanomaNet


class TorchEngine(OneAtATime):
    """Our network in eager PyTorch, fp32, one tile a request: its last bits depend on the batch (2e-7 seen)."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        import torch

        self._net = network_of(bundle).to(device)
        self._device = device
        self._names = ("probabilities", *bundle.card.outputs)
        self.numerics = Numerics("torch", str(torch.__version__), "fp32", device.type)

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The network's outputs for tiles (N, tile_px, tile_px, 3), one forward pass a tile."""
        answers = [self._infer_one(tile) for tile in tiles]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def _infer_one(self, tile: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        import torch

        try:
            with torch.inference_mode():
                outputs = self._net(torch.from_numpy(np.ascontiguousarray(tile[None])).to(self._device))
        except RuntimeError as error:
            raise EngineUnavailableError("PyTorch failed on a tile. Try --engine openvino.") from error
        return {name: getattr(outputs, name).cpu().numpy() for name in self._names}


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> TorchEngine:
    """Our network with the bundle's weights.

    Raises:
        EngineUnavailableError: PyTorch, the weights, the precision or the device does not exist here.
        BundleError: the weights do not fit the network that the card describes.
    """
    if bundle.weights is None or bundle.card.network is None:
        raise EngineUnavailableError("The bundle has no weights of our own network. Use --engine openvino.")
    if precision != "fp32":
        raise EngineUnavailableError("The torch engine runs fp32. Use --precision fp32, or --engine openvino.")
    try:
        import torch
    except ImportError as error:
        raise EngineUnavailableError("PyTorch does not load here. Install it: pip install 'mminfer[torch]'.") from error
    try:
        where = torch.device(device or "cpu")
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise EngineUnavailableError(f"PyTorch has no device {device!r} here. Leave --device out.") from error
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchEngine(bundle, where)


def network_of(bundle: Bundle) -> MelanomaNet:
    """Our network with the weights of a bundle that has them, in evaluation mode.

    Raises:
        BundleError: the weights do not fit the network that the card describes.
    """
    from safetensors.torch import load as load_tensors

    from melanoma_infer.model.melanoma_net import MelanomaNet

    assert bundle.weights is not None  # load() refused a bundle without
    net = MelanomaNet.from_card(bundle.card)
    try:
        net.load_state_dict(load_tensors(bundle.weights))
    except RuntimeError as error:
        raise BundleError(
            "weights.safetensors does not fit the network of the card. Export the bundle again."
        ) from error
    return net.eval()
