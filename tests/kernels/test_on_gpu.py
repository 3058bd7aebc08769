"""Every kernel on a GPU: as exact as PyTorch, the same bits twice, and NaN in its own tile only."""

import itertools

import pytest
import torch

from mminfer_kernels import catalogue, torch_ops
from mminfer_kernels.bounds import compare
from mminfer_kernels.catalogue import KERNELS, Problem

pytestmark = pytest.mark.gpu


def cases():
    for name in KERNELS:
        for dtype, side, channels, batch in itertools.product(
            catalogue.dtypes(name), (7, 15, 16, 32), (64, 2044, 2048), (0, 1, 5, 300)
        ):
            if channels == 64 or side == 16:
                yield name, Problem(dtype, batch, channels, side, side, tile_px=224)


def on_gpu(arguments):
    return catalogue.map_tensors(torch.Tensor.cuda, arguments)


def outputs(name, arguments):
    results = catalogue.outputs_of(getattr(torch_ops, name)(**arguments))
    torch.cuda.synchronize()
    return results


@pytest.mark.parametrize(("name", "problem"), list(cases()), ids=str)
def test_kernels_are_as_exact_as_torch_and_reproducible(name, problem):
    arguments = on_gpu(catalogue.inputs(name, problem))
    results = outputs(name, arguments)
    exact = catalogue.reference(name, arguments)
    low = catalogue.reference(name, arguments, problem.dtype)
    for result, truth, torchs in zip(results, exact, low, strict=True):
        comparison = compare(result, truth, torchs)
        assert comparison.holds, comparison
    for first, second in zip(results, outputs(name, arguments), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("batch", [3, 300], ids=["split", "attention_tail"])
def test_a_nan_shows_in_its_own_tile_only(batch):
    arguments = on_gpu(catalogue.inputs("attention_tail", Problem(torch.float16, batch)))
    clean = outputs("attention_tail", arguments)
    arguments["x"][1, 77, 3, 4] = float("nan")
    dirty = outputs("attention_tail", arguments)
    others = [index for index in range(batch) if index != 1]
    for before, after in zip(clean, dirty, strict=True):
        torch.testing.assert_close(after[others], before[others], rtol=0, atol=0)
        assert not after[1].isfinite().all()
