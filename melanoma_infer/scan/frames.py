"""The frames that a scanner hands over → RGB or RGBA in host memory."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device_arrays import device_tiles
from melanoma_infer.errors import UsageError
from melanoma_infer.scan.gpu_copy import LEGACY_STREAM, copied_to_host

Channels = Literal["RGB", "BGR", "RGBA", "BGRA"]


def host_pixels(frame: Any, channels: Channels) -> NDArray[np.uint8]:
    """A frame's pixels as RGB (h, w, 3) or RGBA (h, w, 4), uint8, perhaps a view.

    Args:
        frame: a NumPy array, an array that offers DLPack, or one with `__cuda_array_interface__`, which is copied.
        channels: their order in the frame.

    Raises:
        UsageError: it is no such array, of another type or shape, or the GPU's driver cannot copy it.
    """
    pixels = _in_host_memory(frame)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != len(channels):
        raise UsageError(
            f"A frame is {pixels.dtype} {pixels.shape}. Push uint8 (height, width, {len(channels)}), with the channels "
            f"in the order {channels} that the session was opened with."
        )
    return pixels[..., [2, 1, 0, 3][: len(channels)]] if channels.startswith("BGR") else pixels


def _in_host_memory(frame: Any) -> NDArray[Any]:
    if isinstance(frame, np.ndarray):
        return frame
    if (on_gpu := device_tiles(frame, None, LEGACY_STREAM)) is not None:
        return copied_to_host(on_gpu)
    try:
        return np.from_dlpack(frame) if hasattr(frame, "__dlpack__") else np.asarray(frame)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise UsageError(
            f"A frame is a {type(frame).__name__}, whose pixels cannot be read ({error}). Push a NumPy array, or one "
            "that offers DLPack or __cuda_array_interface__."
        ) from error
