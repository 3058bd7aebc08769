"""mminfer: score melanoma slides with a multi-modal network. For research use only.

>>> from melanoma_infer import Scorer, open_bundle, score_slide
>>> scorer = Scorer(open_bundle("demo"))
>>> result = score_slide("slide.svs", scorer, patient={"age": 63})

Importing this package loads none of the runtimes: every name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle, open_bundle
    from melanoma_infer.card import ModelCard
    from melanoma_infer.errors import MminferError, ScanBusyError
    from melanoma_infer.pipeline.flow import score_slide
    from melanoma_infer.pipeline.scan_options import ScanOptions, ScanProgress
    from melanoma_infer.pipeline.scorer import Scorer
    from melanoma_infer.pipeline.session import ScanSession
    from melanoma_infer.result import SlideResult
    from melanoma_infer.settings import Settings
    from melanoma_infer.slides import open_slide

__all__ = [
    "Bundle",
    "MminferError",
    "ModelCard",
    "ScanBusyError",
    "ScanOptions",
    "ScanProgress",
    "ScanSession",
    "Scorer",
    "Settings",
    "SlideResult",
    "open_bundle",
    "open_slide",
    "score_slide",
]

_HOMES = {
    "Bundle": "bundle.bundle",
    "MminferError": "errors",
    "ModelCard": "card",
    "ScanBusyError": "errors",
    "ScanOptions": "pipeline.scan_options",
    "ScanProgress": "pipeline.scan_options",
    "ScanSession": "pipeline.session",
    "Scorer": "pipeline.scorer",
    "Settings": "settings",
    "SlideResult": "result",
    "open_bundle": "bundle.bundle",
    "open_slide": "slides",
    "score_slide": "pipeline.flow",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
