"""The errors of the kernels.

KernelError
└── KernelInputError      a shape, dtype, layout or device that a kernel does not take
"""

from __future__ import annotations


class KernelError(Exception):
    """Base of all errors of this package."""


class KernelInputError(KernelError, ValueError):
    """A shape, dtype, layout or device differs from what the kernel takes; the message names it."""
