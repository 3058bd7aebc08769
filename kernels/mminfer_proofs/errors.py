"""The error that the sanitizer adds to `mminfer_kernels.errors`.

KernelError
└── KernelFault           compiled code did something forbidden
"""

from __future__ import annotations

from mminfer_kernels.errors import KernelError


class KernelFault(KernelError):  # noqa: N818 - a fault is what sanitizers call it
    """Compiled code made a forbidden access, or one at a forbidden time."""
