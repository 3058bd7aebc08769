"""Bundles: from a network to a folder that every engine runs.

>>> from mminfer_export import write_bundle
>>> write_bundle("skin.mminfer", module=my_net, output="logits", classes=["normal", "tumour"], malignant=["tumour"], …)

Importing this package loads none of the runtimes: every name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mminfer_export.from_module import write_bundle

__all__ = ["write_bundle"]

_HOMES = {"write_bundle": "from_module"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
