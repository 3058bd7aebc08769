"""PyTorch's current CUDA device on a machine without one: a number that PyTorch's device contexts change."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch


@dataclass
class CurrentDevice:
    """The number of the device that a CUDA call would go to."""

    number: int = 0

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
