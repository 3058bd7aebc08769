"""IN.pt OUT.safetensors: the tensors of a checkpoint, read by PyTorch's restricted unpickler and by nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs store the weights next to other data."""


def state_dict(loaded: Any) -> dict[str, Tensor]:
    """The weights by name, without DataParallel's prefix; exits with a message if there are none."""
    if isinstance(loaded, Mapping):
        loaded = next((loaded[key] for key in KEYS if isinstance(loaded.get(key), Mapping)), loaded)
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        sys.exit("it holds no state_dict: names and tensors, alone or under `state_dict` or `model`")
    shared = "module." if all(name.startswith("module.") for name in loaded) else ""
    return {name.removeprefix(shared): tensor.detach().clone().contiguous() for name, tensor in loaded.items()}


def main(source: str, target: str) -> None:
    """Write the tensors of `source` to `target`."""
    save_file(state_dict(torch.load(source, map_location="cpu", weights_only=True)), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
