"""MODEL.pt IMAGES.npy OUT.onnx SCORES.npy: a TorchScript model as ONNX, and what it gives for these images.

TorchScript is code: loading and running it is running what its author wrote. That happens here, once, and never again.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch

OPSET = 18


def main(source: str, images: str, target: str, scores: str) -> None:
    """Write the graph (`images` → `scores`, float32, open batch) and the scores of each image, computed one by one."""
    model = torch.jit.load(source, map_location="cpu").float().eval()  # type: ignore[no-untyped-call]
    given = torch.from_numpy(np.load(images, allow_pickle=False))
    with torch.no_grad():
        np.save(scores, torch.cat([model(image[None]) for image in given]).float().numpy(), allow_pickle=False)
    torch.onnx.export(
        model, (given[:1],), target, dynamo=False, opset_version=OPSET, input_names=["images"],
        output_names=["scores"], dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}},
    )  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that both are deprecated; torch.export does not read TorchScript
    main(*sys.argv[1:])
