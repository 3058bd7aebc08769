"""Takes the tensors that an ONNX file keeps in files beside it, as PyTorch's exporter writes them, into the model.

Only plain files of the model's own folder are read: no link, no path, nothing beyond a file's end.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from melanoma_infer.bundle.graph_checks import AGAIN, stored_tensors
from melanoma_infer.errors import BundleError

ONNX_BYTES_MAX = (1 << 31) - 1
"""Protobuf's own limit; a bundle holds one file."""
INSIDE = "Or export with external_data=False, which keeps the data inside."


def with_data_inside(content: bytes, folder: Path) -> bytes:
    """The same model with all data inside; the bytes unchanged where they are already.

    Args:
        content: the ONNX file.
        folder: where it is.

    Raises:
        BundleError: it cannot be parsed, or its data is missing, elsewhere, or not as long as the model says.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"The ONNX file cannot be parsed. {AGAIN}") from error
    outside = [each for each in stored_tensors(model.graph) if each.data_location == TensorProto.EXTERNAL]
    if sum(map(_bytes_of, outside)) + len(content) > ONNX_BYTES_MAX:
        raise BundleError("The ONNX file and its data are larger than 2 GiB. Export a smaller model.")
    for tensor in outside:
        where = {entry.key: entry.value for entry in tensor.external_data}
        size = _bytes_of(tensor)
        try:
            offset = int(where.get("offset", "0"))
            length = int(where.get("length", str(size)))
        except ValueError as error:
            raise BundleError(
                f"The ONNX file: {tensor.name!r} has an offset or length that is no number. {AGAIN}"
            ) from error
        if offset < 0 or length != size:
            raise BundleError(
                f"The ONNX file: {tensor.name!r} needs {size} bytes, but {length} from {offset} on are named. {AGAIN}"
            )
        tensor.raw_data = _read(where.get("location", ""), folder, offset, length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return bytes(model.SerializeToString()) if outside else content


def _bytes_of(tensor: TensorProto) -> int:
    try:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(f"The ONNX file: {tensor.name!r} is of an unknown type. {AGAIN}") from error
    if any(side < 0 for side in tensor.dims) or kind.hasobject:
        raise BundleError(f"The ONNX file: tensor {tensor.name!r} is damaged. {AGAIN}")
    size: int = math.prod(tensor.dims) * kind.itemsize
    return size


def _read(location: str, folder: Path, offset: int, length: int) -> bytes:
    """The bytes of a plain file in this folder."""
    if location in ("", ".", "..") or Path(location).name != location or "\\" in location or "\0" in location:
        raise BundleError(
            f"The ONNX file keeps data in {location!r}, which is not a file of its own folder. Copy that file beside "
            f"it and save the model with its name alone. {INSIDE}"
        )
    path = folder / location
    try:
        # Not followed and not waited for: a link or a pipe of this name is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BundleError(f"{location} is missing: copy it into the folder of the ONNX file. {INSIDE}") from error
    except OSError as error:
        raise BundleError(f"{location} is a link or cannot be read. Copy the file itself. {INSIDE}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise BundleError(f"{location} is not a plain file. Copy the file itself. {INSIDE}")
    with os.fdopen(descriptor, "rb") as file:
        if offset + length > facts.st_size:
            raise BundleError(
                f"{location} has {facts.st_size} bytes; the ONNX file needs {offset + length}. Copy it again."
            )
        file.seek(offset)
        return file.read(length)
