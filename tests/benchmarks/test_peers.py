"""The peers get the bundle's network, and their answers are read correctly."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from melanoma_infer.bundle.bundle import open_bundle

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def compare():
    sys.path.insert(0, str(PEERS))
    try:
        import compare
    finally:
        sys.path.remove(str(PEERS))
    return compare


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_the_peers_get_the_bundle_s_numbers(compare, tmp_path):
    bundle = open_bundle("demo")
    compare.write_model(bundle, 256, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["spacing_um_px"] == 0.5
    given = config["transform"][2]["arguments"]
    mean, std = (torch.tensor(given[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    images = torch.from_numpy(bundle.golden.tiles).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        answer = torch.jit.load(tmp_path / "model.pt")((images - mean) / std).softmax(1)
    np.testing.assert_allclose(answer, bundle.golden.outputs["probabilities"], rtol=0, atol=1e-5)


def test_ratios_compare_throughput(compare):
    def row(tool, precision, rate):
        return compare.Row(tool, precision, 2, 10, 10 / rate, rate, 0.0, 10)

    rows = compare.with_ratios([row("wsinfer", "fp32", 2.0), row("mminfer", "int8", 20.0)])
    assert [each.ratio_to_wsinfer for each in rows] == [1.0, 10.0]
    assert np.isnan(rows[1].ratio_to_tiatoolbox)
