"""Checkpoints: sealed, plain, and the newest whole one is found."""

from __future__ import annotations

import pytest
import torch

from melanoma_infer.errors import UsageError
from melanoma_infer.training.checkpoint import (
    SealedCheckpoints,
    checkpoint_path,
    last_checkpoint,
    read_checkpoint,
)

CONTENT = {
    "epoch": 3,
    "state_dict": {"layer.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)},
    "optimizer_states": [
        {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"betas": (0.9, 0.999), "fused": None}]}
    ],
    "callbacks": {"epochs": {"history": [{"loss": float("inf"), "auc": None}], "best": {}}},
    "empty": [],
    "flag": True,
}  # fmt: skip


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_is_written_is_read_again(tmp_path):
    path = checkpoint_path(tmp_path, 3)
    SealedCheckpoints().save_checkpoint(CONTENT, path)
    assert same(read_checkpoint(path), CONTENT)


def test_one_wrong_byte_is_an_error(tmp_path):
    path = checkpoint_path(tmp_path, 3)
    SealedCheckpoints().save_checkpoint(CONTENT, path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"epoch-0003\.safetensors differs from the digest"):
        read_checkpoint(path)


def test_only_a_checkpoint_with_its_digest_counts_and_the_one_before_goes_after_that(tmp_path):
    first, second = checkpoint_path(tmp_path, 9), checkpoint_path(tmp_path, 10)
    assert last_checkpoint(tmp_path) is None
    SealedCheckpoints().save_checkpoint(CONTENT, first)
    second.write_bytes(first.read_bytes())  # killed before its digest was written
    assert last_checkpoint(tmp_path) == first
    SealedCheckpoints().save_checkpoint(CONTENT, second)
    assert last_checkpoint(tmp_path) == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0010.safetensors", "epoch-0010.sha256"]
    first.with_suffix(".sha256").write_text("left behind")  # killed between the removal of file and digest
    assert last_checkpoint(tmp_path) == second


def test_what_json_cannot_hold_is_refused_when_it_is_written(tmp_path):
    with pytest.raises(TypeError, match="/net is a Linear"):
        SealedCheckpoints().save_checkpoint({"net": torch.nn.Linear(1, 1)}, checkpoint_path(tmp_path, 1))
