"""Frames that PyCUDA has computed, pushed from GPU memory. It needs an NVIDIA GPU and `pip install 'mminfer[pycuda]'`.

    python examples/pycuda_frames.py

A frame is copied to host memory once its context's work is done; the block sums are made there. PyCUDA's own context
stays current. Any array that offers `__cuda_array_interface__` or DLPack is pushed alike.
"""

from __future__ import annotations

import sys

import numpy as np

from melanoma_infer import ScanOptions, Scorer, Settings, SlideResult, open_bundle

WIDTH, HEIGHT, ROWS = 2048, 1536, 256


def main() -> SlideResult:
    """Push strips of drawn tissue, as from a camera whose raw values are inverted on the GPU."""
    try:
        import pycuda.autoinit
        from pycuda import gpuarray
    except Exception as error:  # noqa: BLE001 - PyCUDA has its own errors without a GPU
        sys.exit(f"This example needs an NVIDIA GPU and PyCUDA (pip install 'mminfer[pycuda]'): {error}")
    print(f"frames on {pycuda.autoinit.device.name()}")
    rng = np.random.default_rng(1)
    colours = np.array([(205, 140, 180)]) + rng.integers(-12, 13, (HEIGHT, WIDTH, 1))
    pixels = colours.astype(np.uint8)

    scorer = Scorer(open_bundle("demo"))
    options = ScanOptions(id="from-gpu", channels="BGR", is_phantom=True)
    with scorer.session(0.5, (WIDTH, HEIGHT), settings=Settings(tile_um=256.0), options=options) as scan:
        for top in range(0, HEIGHT, ROWS):
            raw = gpuarray.to_gpu(np.ascontiguousarray(255 - pixels[top : top + ROWS, :, ::-1]))
            scan.push(255 - raw, 0, top)
    result = scan.close()
    print(f"{result.tiles_counted.ok} tiles, score {result.malignant_score:.3f}, {result.numerics.engine}")
    return result


if __name__ == "__main__":
    main()
