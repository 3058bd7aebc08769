"""PyTorch: the reference engine of our own network, run from the bundle's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle, finite_tensors
from melanoma_infer.engines.base import Numerics, OneAtATime, Outputs
from melanoma_infer.errors import BundleError, EngineUnavailableError
from melanoma_infer.tolerances import Precision

if TYPE_CHECKING:
    import torch

    from melanoma_infer.model.melanoma_net import MelanomaNet


class TorchEngine(OneAtATime):
    """Our network in eager PyTorch, fp32, one tile per request: the last bits depend on the batch size (2e-7 seen).

    On a GPU float32 is not TF32, because these outputs are the reference.

    Args:
        net: the network, on `device`.
        names: the outputs to return.
        device: where to put the tiles.
        numerics: what `net` computes with.
    """

    def __init__(self, net: MelanomaNet, names: Sequence[str], device: torch.device, numerics: Numerics) -> None:
        self._net = net
        self._names = names
        self._device = device
        self.numerics = numerics

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The network's outputs for tiles (N, tile_px, tile_px, 3), one forward pass per tile."""
        import torch

        from mminfer_kernels.exact import exact_float32

        inputs = (torch.from_numpy(np.ascontiguousarray(tile[None])) for tile in tiles)
        try:
            with torch.inference_mode(), exact_float32():
                answers = [self._net(each.to(self._device)) for each in inputs]
        except RuntimeError as error:
            raise EngineUnavailableError("PyTorch failed on a tile. Try --engine openvino.") from error
        return {name: np.concatenate([getattr(each, name).cpu().numpy() for each in answers]) for name in self._names}


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> TorchEngine:
    """Our network with the bundle's weights.

    Raises:
        EngineUnavailableError: PyTorch, the weights, the precision or the device is not available here.
        BundleError: the weights do not fit the network that the card describes.
    """
    if bundle.weights is None or bundle.card.network is None:
        raise EngineUnavailableError("The bundle has no weights of our own network. Use --engine openvino.")
    if precision != "fp32":
        raise EngineUnavailableError(
            f"The torch engine runs fp32, not {precision}. Use --precision fp32, or --engine openvino."
        )
    try:
        import torch
    except ImportError as error:
        raise EngineUnavailableError("PyTorch does not load here. Install it: pip install 'mminfer[torch]'.") from error
    try:
        place = torch.device(device or "cpu")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise EngineUnavailableError(f"PyTorch has no device {device!r} here. Omit --device.") from error
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchEngine(
        network_of(bundle).to(place),
        names=("probabilities", *bundle.card.outputs),
        device=place,
        numerics=Numerics("torch", str(torch.__version__), "fp32", place.type),
    )


def network_of(bundle: Bundle) -> MelanomaNet:
    """Our network with the weights of a bundle that has them, in evaluation mode.

    Raises:
        BundleError: the weights do not fit the network that the card describes, or are not finite.
    """
    import torch

    from melanoma_infer.model.melanoma_net import MelanomaNet

    assert bundle.weights is not None  # load() refuses a bundle without weights
    net = MelanomaNet.from_card(bundle.card)
    tensors = finite_tensors(bundle.weights, "weights.safetensors")
    try:
        net.load_state_dict({name: torch.from_numpy(values) for name, values in tensors.items()})
    except RuntimeError as error:
        raise BundleError(
            "weights.safetensors does not fit the network that the card describes. Export the bundle again."
        ) from error
    return net.eval()
