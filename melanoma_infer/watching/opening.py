"""Whether a slide opens, tried in a process of its own: a native library that crashes must not end the watch."""

from __future__ import annotations

from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.runtime.child import run_child

CHILD = "melanoma_infer.watching.open_child"
OPEN_SECONDS = 120.0
"""A slide whose storage hangs for longer does not open."""


def why_not_open(request: SlideRequest) -> str | None:
    """Why a slide does not open; None if it does."""
    if request.fault is not None:
        return str(request.fault)
    failure = run_child(CHILD, request.path.absolute(), seconds=OPEN_SECONDS)
    return None if failure is None else str(failure)
