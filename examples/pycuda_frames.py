"""Frames that are in GPU memory already, pushed without a library in between. It needs an NVIDIA GPU and PyCUDA.

    python examples/pycuda_frames.py

PyCUDA, CuPy, PyTorch, JAX and Numba arrays offer `__cuda_array_interface__` or DLPack, and any of them may be pushed. A
frame is copied to host memory after its stream's pending work; the block sums are made there.
"""

from __future__ import annotations

import sys

import numpy as np

from melanoma_infer import ScanOptions, Scorer, Settings, open_bundle

WIDTH, HEIGHT, ROWS = 2048, 1536, 256


def main() -> None:
    """Push strips of drawn tissue from GPU memory."""
    try:
        import pycuda.autoinit
        from pycuda import gpuarray
    except Exception as error:  # noqa: BLE001 - PyCUDA has its own errors without a GPU
        sys.exit(f"This example needs an NVIDIA GPU and PyCUDA (pip install pycuda): {error}")
    print(f"frames on {pycuda.autoinit.device.name()}")
    rng = np.random.default_rng(1)
    colours = np.array([(205, 140, 180)]) + rng.integers(-12, 13, (HEIGHT, WIDTH, 1))
    pixels = colours.astype(np.uint8)

    scorer = Scorer(open_bundle("demo"))
    options = ScanOptions(id="from-gpu", channels="BGR", is_phantom=True)
    with scorer.session(0.5, (WIDTH, HEIGHT), settings=Settings(tile_um=256.0), options=options) as scan:
        for top in range(0, HEIGHT, ROWS):
            frame = gpuarray.to_gpu(np.ascontiguousarray(pixels[top : top + ROWS, :, ::-1]))
            scan.push(frame, 0, top)
    result = scan.close()
    print(f"{result.tiles_counted.ok} tiles, score {result.malignant_score:.3f}, {result.numerics.engine}")


if __name__ == "__main__":
    main()
