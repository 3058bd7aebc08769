"""Machines with a fake GPU. They are made from the installed bindings; without these, tests that ask for one skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_infer.bundle.bundle import Bundle, open_bundle


@pytest.fixture(scope="session")
def bundle(colour_bundle: Path) -> Bundle:
    """The colour rule, which the fake TensorRT computes."""
    return open_bundle(colour_bundle)


@pytest.fixture
def new_machine(monkeypatch, tmp_path):
    """Creates machines by the name of their library and the properties of their GPU."""
    from tensorrt_machine_for_tests import machine_maker

    return machine_maker(monkeypatch, tmp_path / "cache")


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def machine(request, new_machine):
    """A machine with one of the two libraries."""
    return new_machine(request.param)
