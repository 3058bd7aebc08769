"""Pictures of a training: learning curves, and the ablation's bars."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from melanoma_infer.training.learner import EpochFigures

BLUE, ORANGE, GREY = "#1f5f8b", "#d1711f", "#777777"
DPI = 130


def learning_curves(history: Sequence[EpochFigures], best: EpochFigures) -> bytes:
    """A PNG of losses, AUC and depth error by epoch, as far as there are any, with the epoch whose weights are kept."""
    from matplotlib.figure import Figure

    epochs = [each.epoch for each in history]
    panels: list[tuple[str, list[tuple[str, str, Callable[[EpochFigures], float | None]]]]] = [
        ("loss", [("training", GREY, lambda each: each.train_loss), ("validation", BLUE, lambda each: each.loss)]),
        ("AUC, malignant against other tiles", [("validation", BLUE, lambda each: each.auc)]),
        ("depth: mean absolute error, mm", [("validation", ORANGE, lambda each: each.depth_mae_mm)]),
    ]
    known = [
        (title, lines)
        for title, lines in panels
        if any(value(each) is not None for _, _, value in lines for each in history)
    ]
    figure = Figure(figsize=(11 / 3 * len(known), 3.4), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        for name, colour, value in lines:
            values = [_or_nan(value(each)) for each in history]
            axes.plot(epochs, values, color=colour, label=name, marker="." if len(history) < 30 else "")
        axes.axvline(best.epoch, color=GREY, linewidth=0.8, linestyle=":", label=f"kept: epoch {best.epoch}")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return _png(figure)


def ablation_bars(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with the AUC of each network, and its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        value, low, high = (_or_nan(row[name]) for name in ("auc", "auc_low", "auc_high"))
        axes.errorbar([value], [place], xerr=[[value - low], [high - value]], fmt="o", color=BLUE, capsize=3)
    axes.set_yticks(range(len(rows)), [f"{row['network']}\n{row['parts']}" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUC on validation tiles, malignant against other; 95 % interval (patient bootstrap)", fontsize=8)
    axes.grid(alpha=0.25, axis="x")
    return _png(figure)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without the version of Matplotlib: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
