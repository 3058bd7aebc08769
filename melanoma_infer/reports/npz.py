"""Arrays as an .npz without pickles; the same arrays give the same bytes."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp in the archive."""
PROBED_BYTES = 1 << 14
WORTH_DEFLATING = 0.75
"""An array is stored as it is unless its beginning becomes smaller than this share: masks do, but not encoded pictures,
nor maps of 32-bit numbers, which a tenth of their size cost 50 ms a slide."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile)
"""What reading an archive that was damaged or not written by this version raises."""


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The archive of these arrays."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), entry.getvalue(), _method(entry.getvalue()))
    return content.getvalue()


def _method(entry: bytes) -> int:
    """How to keep an entry of the archive."""
    probe = entry[:PROBED_BYTES]
    worth = len(zlib.compress(probe, 1)) < WORTH_DEFLATING * len(probe)
    return zipfile.ZIP_DEFLATED if worth else zipfile.ZIP_STORED


def unpacked(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive.

    Raises:
        UNREADABLE: it cannot be read.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
