"""Compares WSInfer, TIAToolbox and mminfer on one slide with the same weights, each as a whole process.

``python benchmarks/peers/compare.py SLIDE --bundle BUNDLE --work FOLDER`` installs each peer in its own virtual
environment in FOLDER (6 GB each, because they include PyTorch for a GPU), and writes results/peers.csv. The peers get
the bundle's network as TorchScript. Each finds tissue in its own way, so the numbers of tiles differ, and throughput is
in tiles/s; probabilities are compared at the peer's tiles.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.settings import Settings
from melanoma_infer.verification.expected import compare_with_expected
from mminfer_proofs.rows import write_rows

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "peers.csv"
BATCH = 8
PEERS = {"wsinfer": ["wsinfer==0.6.1", "zarr<3"], "tiatoolbox": ["tiatoolbox==2.1.3"]}


@dataclass(frozen=True)
class Row:
    """One tool on the slide: seconds of its whole process, and its throughput relative to each peer's."""

    tool: str
    precision: str
    threads: int
    tiles: int
    seconds: float
    tiles_per_s: float
    mean_dp: float
    """Mean |Δp| over tiles and classes, against mminfer fp32 on OpenVINO at the same positions."""
    compared: int
    """Number of tiles that were compared."""
    ratio_to_wsinfer: float = float("nan")
    ratio_to_tiatoolbox: float = float("nan")


class _LogProbabilities(torch.nn.Module):
    """The network as the peers expect it: normalised float images (N, 3, tile_px, tile_px) in, logits out."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.net = network_of(bundle).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net.tail(self.net.backbone(images), self.net.depth(images)).probabilities.log()
        return logits


def write_model(bundle: Bundle, tile_um: float, folder: Path) -> None:
    """Write the bundle's network as TorchScript, and its settings as WSInfer's config.json."""
    card = bundle.card
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.rand(1, 3, card.tile_px, card.tile_px)
    with torch.no_grad():
        torch.jit.trace(_LogProbabilities(bundle), example, check_trace=False).save(str(folder / "model.pt"))
    config = {
        "spec_version": "1.0",
        "architecture": "resnet50",
        "num_classes": len(card.classes),
        "class_names": list(card.classes),
        "patch_size_pixels": card.tile_px,
        "spacing_um_px": tile_um / card.tile_px,
        "transform": [
            {"name": "Resize", "arguments": {"size": card.tile_px}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(card.mean), "std": list(card.std)}},
        ],
    }
    (folder / "config.json").write_text(json.dumps(config))


def python_of(tool: str, work: Path) -> str:
    """The Python of the tool's virtual environment, which is created if it does not exist."""
    python = work / tool / "bin" / "python"
    if not python.is_file():
        venv.create(work / tool, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[tool]], check=True)
    return str(python)


def run_wsinfer(slide: Path, model: Path, work: Path) -> tuple[Path, float]:
    """Run WSInfer: its table of tiles, and the seconds of its process."""
    slides, results = work / "slides", work / "wsinfer-results"
    slides.mkdir(exist_ok=True)
    link = slides / slide.name
    link.unlink(missing_ok=True)
    link.symlink_to(slide.resolve())
    table = results / "model-outputs-csv" / f"{slide.stem}.csv"
    table.unlink(missing_ok=True)
    command = [
        python_of("wsinfer", work), HERE / "with_wsinfer.py", "run", "--wsi-dir", slides, "--results-dir", results,
        "--model-path", model / "model.pt", "--config", model / "config.json", "--batch-size", BATCH,
        "--num-workers", 1,
    ]  # fmt: skip
    return table, seconds_of(command, WSINFER_FORCE_CPU="1")


def run_tiatoolbox(slide: Path, model: Path, work: Path) -> tuple[Path, float]:
    """Run TIAToolbox: its tiles as a table like WSInfer's, and the seconds of its process."""
    table = work / "tiatoolbox-results" / f"{slide.stem}.csv"
    python = python_of("tiatoolbox", work)
    return table, seconds_of([python, HERE / "with_tiatoolbox.py", slide, model, table, BATCH])


def seconds_of(command: list[object], **environment: str) -> float:
    """The seconds that a process takes.

    Raises:
        subprocess.CalledProcessError: it failed; its output has the reason.
    """
    started = perf_counter()
    subprocess.run([str(part) for part in command], check=True, env=os.environ | environment, stdout=sys.stderr)
    return perf_counter() - started


def peer_row(tool: str, table: Path, seconds: float, scorer: Scorer, slide: Path, settings: Settings) -> Row:
    """A peer's row; its probabilities are compared at its own tiles."""
    with table.open(newline="", encoding="utf-8") as file:
        tiles = len(list(csv.DictReader(file)))
    compared = compare_with_expected(scorer, slide, table, settings)
    return Row(tool, "fp32", available_cores(), tiles, seconds, tiles / seconds, compared.mean_dp, compared.matched)


def our_rows(bundle: str, slide: Path, tile_um: float, work: Path) -> list[Row]:
    """The rows of mminfer, from whole processes of `mminfer score`."""
    rows, exact = [], np.empty(0)
    for precision in ("fp32", "int8"):
        out = work / f"mminfer-{precision}"
        shutil.rmtree(out, ignore_errors=True)
        command = [
            Path(sys.executable).with_name("mminfer"), "score", slide, "--bundle", bundle, "--precision", precision,
            "--tile-um", tile_um, "--out", out,
        ]  # fmt: skip
        seconds = seconds_of(command)
        (table,) = out.glob("*/tiles.csv")
        with table.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        names = [name for name in lines[0] if name.startswith("prob_")]
        probabilities = np.array([[float(line[name]) for name in names] for line in lines])
        exact = exact if len(exact) else probabilities
        rows.append(
            Row(
                "mminfer",
                precision,
                available_cores(),
                len(probabilities),
                seconds,
                len(probabilities) / seconds,
                float(np.abs(probabilities - exact).mean()),
                len(probabilities),
            )
        )
    return rows


def with_ratios(rows: list[Row]) -> list[Row]:
    """The rows with each one's throughput divided by that of every peer."""
    rates = {row.tool: row.tiles_per_s for row in rows}
    return [
        replace(
            row,
            ratio_to_wsinfer=row.tiles_per_s / rates.get("wsinfer", float("nan")),
            ratio_to_tiatoolbox=row.tiles_per_s / rates.get("tiatoolbox", float("nan")),
        )
        for row in rows
    ]


def main() -> None:
    """Run all tools; print and save the rows."""
    parser = argparse.ArgumentParser(description="Run peers and mminfer on one slide with the same weights.")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--bundle", required=True, help="one of our own network, such as `bundle create … --random 7`")
    parser.add_argument("--work", type=Path, required=True, help="folder for virtual environments and results")
    parser.add_argument("--tile-um", type=float, default=256.0)
    parser.add_argument("--tools", nargs="+", choices=list(PEERS), default=list(PEERS))
    given = parser.parse_args()
    bundle, model = open_bundle(given.bundle), given.work / "model"
    write_model(bundle, given.tile_um, model)
    scorer, settings = Scorer(bundle, "openvino", precision="fp32"), Settings(tile_um=given.tile_um)
    run = {"wsinfer": run_wsinfer, "tiatoolbox": run_tiatoolbox}
    rows = [
        peer_row(tool, *run[tool](given.slide, model, given.work), scorer, given.slide, settings)
        for tool in given.tools
    ]
    rows = with_ratios([*rows, *our_rows(given.bundle, given.slide, given.tile_um, given.work)])
    for row in rows:
        print(
            f"{row.tool:10} {row.precision:5} {row.tiles:5} tiles {row.seconds:7.1f} s {row.tiles_per_s:6.2f} tiles/s  "
            f"{row.ratio_to_wsinfer:5.1f} × WSInfer  {row.ratio_to_tiatoolbox:5.1f} × TIAToolbox  "
            f"mean |Δp| {row.mean_dp:.1e} ({row.compared} tiles)"
        )
    write_rows(RESULTS, rows)


if __name__ == "__main__":
    main()
