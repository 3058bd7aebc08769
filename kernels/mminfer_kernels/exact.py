"""float32 arithmetic that is float32: on a GPU, PyTorch's convolutions are TF32 unless that is switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Context in which float32 convolutions and products keep 24-bit significands; TF32 has 11."""
    cudnn: Any = torch.backends.cudnn  # its stubs lack `conv`
    conv, matmul = cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    conv.fp32_precision = matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        conv.fp32_precision, matmul.fp32_precision = before
