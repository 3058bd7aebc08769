"""The kernels that TensorRT-RTX compiles on a GPU at load time, kept in the cache folder for the next process."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.cache import read_cached, write_cached

DIGEST_BYTES = hashlib.sha256().digest_size
"""A file is the SHA-256 of the kernels, then the kernels: what is damaged never reaches the library."""


class KernelCache:
    """A runtime cache of TensorRT-RTX and its file, which is read now.

    Args:
        library: the runtime cache, an `IRuntimeCache`, still empty.
        path: the file, of one engine on one GPU.
    """

    def __init__(self, library: Any, path: Path) -> None:
        self.library = library
        self._path, self._digest = path, b""
        self.remark: str | None = None
        """Why kernels that were kept are not used."""
        if (content := read_cached(path)) is None:
            return
        digest, kernels = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(kernels).digest() == digest and library.deserialize(kernels):
            self._digest = digest
        else:
            self.remark = "the kernels in the cache are damaged or another driver's, and were compiled again"

    def save(self) -> None:
        """Write the file if there are other kernels than it has; without a writable cache they are compiled again."""
        kernels = bytes(self.library.serialize())
        digest = hashlib.sha256(kernels).digest()
        if digest != self._digest:
            self._digest = digest
            with suppress(OutputError):
                write_cached(self._path, digest + kernels)
