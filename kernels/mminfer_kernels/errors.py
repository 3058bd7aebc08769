"""What the kernels refuse.

KernelError
├── KernelInputError      a shape, dtype, layout or device that a kernel does not take
└── KernelFault           compiled code did something forbidden, found by the sanitizer
"""

from __future__ import annotations


class KernelError(Exception):
    """Base of all errors of this package."""


class KernelInputError(KernelError, ValueError):
    """A shape, dtype, layout or device differs from what the kernel takes; the message names it."""


class KernelFault(KernelError):  # noqa: N818 - a fault is what sanitizers call it
    """Compiled code read or wrote where, or when, it must not."""
