"""PyTorch's current CUDA device on a machine without one: a number that PyTorch's device contexts change."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch


@dataclass
class CurrentDevice:
    """The number of the device that a CUDA call would go to."""

    number: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)
    """The calls that were noted, each with the device that was current."""

    def noting(self, name: str, result: Any = None) -> Any:
        """A function that notes its call."""

        def call(*_: Any, **__: Any) -> Any:
            self.calls.append((name, self.number))
            return result

        return call

    def exchange(self, number: int) -> int:
        """Make a device current, and return the one before it; a negative number changes nothing."""
        before = self.number
        if number >= 0:
            self.number = number
        return before


def draw_devices(monkeypatch: pytest.MonkeyPatch) -> CurrentDevice:
    """Let `torch.cuda.device` and `torch.cuda.device_of` change the returned device instead of a real one."""
    current = CurrentDevice()
    monkeypatch.setattr(torch.cuda, "_exchange_device", current.exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", current.exchange)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current.number)
    return current


def draw_calls(monkeypatch: pytest.MonkeyPatch, current: CurrentDevice) -> None:
    """Let PyTorch's calls that act on the current device be noted instead; memory is the CPU's."""
    real_zeros = torch.zeros
    zeros = current.noting("zeros")

    def noted_zeros(shape: Any, *, dtype: torch.dtype, **_: Any) -> torch.Tensor:
        zeros()
        return real_zeros(shape, dtype=dtype)

    event = SimpleNamespace(record=current.noting("record"), synchronize=current.noting("wait on the host"))
    stream = SimpleNamespace(wait_event=current.noting("wait"))
    monkeypatch.setattr(torch, "zeros", noted_zeros)
    monkeypatch.setattr(torch, "empty", noted_zeros)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "Stream", current.noting("stream", stream))
    monkeypatch.setattr(torch.cuda, "Event", current.noting("event", event))
    monkeypatch.setattr(torch.cuda, "stream", current.noting("use stream", nullcontext()))
    for name in ("graph_pool_handle", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, current.noting(name))
