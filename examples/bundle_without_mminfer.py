"""A bundle read and run without mminfer: onnxruntime, numpy and json are enough. Its golden outputs come out.

    python examples/bundle_without_mminfer.py MODEL.mminfer

Run it where mminfer is not installed, to see that a model does not depend on the toolkit. docs/bundle.md describes the
files. Nothing in a bundle is pickled, and every file is hashed before it is parsed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

DP_MAX = 1e-4
"""Two versions of onnxruntime on two CPUs differ by about 1e-6."""


def main(folder: Path) -> None:
    """Check the files' digests, run the fp32 graph on the golden tiles, and compare."""
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} differs from its digest in SHA256SUMS. Copy the bundle again.")
    card = json.loads((folder / "card.json").read_text())
    golden = np.load(folder / "golden.npz", allow_pickle=False)
    session = onnxruntime.InferenceSession(folder / "model.fp32.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"tiles": golden["tiles"]}), strict=True))
    print(f"{card['name']}: tiles of {card['tile_px']} px, classes {', '.join(card['classes'])}")
    for tile, p in enumerate(outputs["probabilities"]):
        print(f"golden tile {tile}: " + ", ".join(f"{each:.4f}" for each in p))
    apart = float(np.abs(outputs["probabilities"] - golden["probabilities"]).max())
    print(f"largest difference from the golden probabilities: {apart:.1e}")
    if not apart <= DP_MAX:
        sys.exit(f"That is more than {DP_MAX:g}: this machine computes another model.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
