"""`mminfer train`: from labelled tiles to a sealed bundle."""

from __future__ import annotations

import json as json_text
import os
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import loudness, note, say, say_json
from melanoma_infer.cli.progress import shown
from melanoma_infer.cli.tables import table
from melanoma_infer.cli.training_progress import TrainingPace
from melanoma_infer.errors import EngineUnavailableError, Stopped, UsageError

if TYPE_CHECKING:
    from melanoma_infer.training.experiment import Experiment, Trained
    from melanoma_infer.training.settings import TrainingSettings
    from mminfer_export.precisions import Made

NEEDED = ("torch", "lightning", "sklearn", "matplotlib", "onnxscript")
BUNDLE = "model.mminfer"
CHECKED_TILES = 32
"""Validation tiles on which engines are compared, and of which golden ones are chosen."""
CALIBRATION_TILES = 32
"""Training tiles that set int8's ranges."""


def train(
    data: Annotated[
        Path, typer.Argument(parser=opt.named_path, metavar="DATA", help="A data set, as `mminfer dataset` writes one.")
    ],
    card: Annotated[
        Path,
        typer.Option(metavar="CARD.toml", help="The model card; `mminfer bundle init` writes a template."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=opt.named_path, metavar="DIR", help=f"The folder for the training; the model is DIR/{BUNDLE}."
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last whole epoch of a training that was stopped.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from torchvision's weights of ResNet-50 (.safetensors or .pth)."),
    ] = None,
    folds: Annotated[int, typer.Option(min=1, max=5, help="Train this many folds of a 5-fold cross-validation.")] = 1,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Train the network part by part, too, and compare.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training tiles, at most.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of weights, order and augmentation.")] = 0,
    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="Vary the training tiles.")] = True,
    sensitivity: Annotated[
        float | None,
        typer.Option(help="The sensitivity that the threshold must have.  [default: the best Youden index]"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting of docs/training.md; repeat for more."),
    ] = None,
    precisions: Annotated[
        str, typer.Option(metavar="P,P,…", help="Made besides fp32, where it is accurate enough.")
    ] = "fp16,int8",
    quiet: opt.QuietOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Train the network on labelled tiles, and write it as a bundle that `mminfer score` takes.

    A run that was stopped or killed goes on with --resume, and ends with the same weights.
    """
    # Read when PyTorch's thread pool starts. Threads that spin while they wait take the cores from those that read
    # tiles: beside other programs a step of width 16 took 265 ms of processor time a tile, and 90 ms so.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise EngineUnavailableError(f"Training needs {missing[0]}. Install it: pip install 'mminfer[train]'")
    if ablation and folds > 1:
        raise UsageError("--ablation and --folds cannot be combined. Give one of them.")
    chosen = {"epochs": epochs, "seed": seed, "augment": augment, "sensitivity": sensitivity}
    asked, made = training_settings(chosen, settings or []), made_precisions(precisions)
    from melanoma_infer.training.experiment import prepare
    from melanoma_infer.training.record import RUN, TRAINING, alone, begin
    from mminfer_export.card_toml import read_training_card
    from mminfer_export.from_weights import read_weights

    experiment = prepare(
        data,
        read_training_card(card),
        asked,
        what="ablation" if ablation else "folds" if folds > 1 else "one",
        folds=folds,
        initial=None if weights is None else read_weights(weights),
    )
    with loudness(quiet=quiet, verbose=False), alone(out):
        facts = experiment.facts()
        for doubt in experiment.doubts:
            note(doubt)
        if resume and not (out / RUN).exists():
            note(f"There is no training in {out} to go on with: it starts from the beginning.")
        changed = begin(out, facts, resume=resume)
        if (out / TRAINING).exists():
            note(f"{out} holds a finished training.")
        else:
            if changed:
                note(f"The weights may differ from those of a run that was not stopped: {'; '.join(changed)}.")
            _run(experiment, facts, out, made)
        report = json_text.loads((out / TRAINING).read_bytes())
    if json:
        say_json(report)
        return
    say(summary(report))
    say(str(out / BUNDLE))


def made_precisions(text: str) -> tuple[Made, ...]:
    """The precisions that --precisions names.

    Raises:
        UsageError: one cannot be made, or fp32 is among them, which always is.
    """
    known: tuple[Made, ...] = ("fp16", "int8")
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--precisions {unknown[0]}: choose among {', '.join(known)}; fp32 is always made.")
    return tuple(name for name in known if name in names)


def training_settings(chosen: dict[str, Any], pairs: Sequence[str]) -> TrainingSettings:
    """The settings of the options and of KEY=VALUE pairs, whose values are TOML or words.

    Raises:
        UsageError: a pair has no =, a key is unknown or given twice, or a value is not allowed.
    """
    from pydantic import ValidationError

    from melanoma_infer.training.settings import TrainingSettings

    values = dict(chosen)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name in chosen:
            raise UsageError(f"--set {pair}: give KEY=VALUE, and use the option of that name if there is one.")
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name] = text
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = ", ".join(TrainingSettings.model_fields)
            raise UsageError(f"--set {name}: there is no such setting. The settings are {known}.") from error
        raise UsageError(f"--set {name}: {problem['msg'].lower()}, not {problem['input']!r}.") from error


def _run(experiment: Experiment, facts: dict[str, Any], out: Path, precisions: tuple[Made, ...]) -> None:
    """Train every network, with progress, and make the bundle of the final one."""
    from melanoma_infer.training.experiment import train as train_all

    pace = TrainingPace(tuple(job.name for job in experiment.jobs), experiment.settings.epochs)
    try:
        with shown(pace, often=lambda _step: True) as tell:
            trained = train_all(experiment, out, lambda job, step: tell((job, step)))
        _finish(experiment, trained, facts, out, precisions)
    except Stopped as stop:
        raise Stopped(
            stop.exit_code,
            f"stopped: every whole epoch is kept in {out}. The same command with --resume goes on from there.",
        ) from stop


def _finish(
    experiment: Experiment, trained: list[Trained], facts: dict[str, Any], out: Path, precisions: tuple[Made, ...]
) -> None:
    """Calibrate and seal the final network, and write what is reported; training.json comes last."""
    from melanoma_infer.training.calibration import calibrated, trained_card
    from melanoma_infer.training.experiment import comparison, figures, final_network
    from melanoma_infer.training.record import TRAINING, write
    from melanoma_infer.training.reports import comparison_files, report
    from mminfer_export.precisions import Tiles
    from mminfer_export.trained_bundle import seal_trained, trained_bundle

    model, division = final_network(experiment, trained), experiment.final.division
    rows = comparison(trained)
    for name, content in comparison_files(experiment, rows).items():
        write(out / name, content)
    card = trained_card(experiment.card, experiment.data, division, depth=experiment.depth)
    checked = experiment.files.pixels(spread_rows(division.validation, CHECKED_TILES))
    note("Trained. Setting the threshold on the validation data, and making the bundle.")
    bundle = trained_bundle(model.net, card, checked)
    done = calibrated(bundle, experiment.data, experiment.files, division, experiment.settings, tell=note)
    shutil.rmtree(out / BUNDLE, ignore_errors=True)  # of a run that was killed before it wrote training.json
    left_out = seal_trained(
        replace(bundle, card=done.card),
        out / BUNDLE,
        checked=Tiles(checked, f"{len(checked)} validation tiles"),
        calibration=_calibration(experiment, division.train),
        precisions=precisions,
    )
    for sentence in left_out:
        note(sentence)
    test = figures(experiment, model, division.test) if len(division.test) else None
    whole = report(experiment, trained, done, test=test, left_out=left_out, facts=facts)
    write(out / TRAINING, json_text.dumps(whole, indent=1).encode())


def _calibration(experiment: Experiment, rows: Any) -> Any:
    from mminfer_export.precisions import Tiles

    pixels = experiment.files.pixels(spread_rows(rows, CALIBRATION_TILES))
    return Tiles(pixels, f"{len(pixels)} training tiles")


def spread_rows(rows: Any, wanted: int) -> Any:
    """At most `wanted` of the rows, evenly spread."""
    import numpy as np

    return rows[np.unique(np.linspace(0, len(rows) - 1, min(wanted, len(rows))).round().astype(int))]


def summary(report: dict[str, Any]) -> str:
    """What a training came to, in a table."""
    validation, threshold = report["validation"], report["card"]["threshold"]
    rows = [
        ("kept", f"epoch {report['best_epoch']} of {report['epochs']}, validation loss {report['best_loss']:.3f}"),
        ("validation tiles", _in_words(validation)),
    ]
    if report["test"] is not None:
        rows.append(("test tiles", _in_words(report["test"])))
    if threshold is None:
        rows.append(("threshold", "none: the model may be no better than chance"))
    else:
        rows.append(("threshold", f"{threshold['value']:.3f} ({threshold['low']:.3f}–{threshold['high']:.3f})"))
        rows.append(("set", threshold["how"]))
    if report["spread"]:
        folds = {name: f"{each['mean']:.3f} ± {each['sd']:.3f}" for name, each in report["spread"].items()}
        rows += [(f"{name} over folds", folds[name]) for name in ("auc", "accuracy", "depth_mae_mm") if name in folds]
    return table(rows)


def _in_words(figures: dict[str, Any]) -> str:
    words = [f"{figures['tiles']} of {figures['patients']} patients"]
    if figures["auc"] is not None:
        low, high = figures["auc_95"] or (None, None)
        words.append(f"AUC {figures['auc']:.3f}" + (f" ({low:.3f}–{high:.3f})" if low is not None else ""))
    if figures["outcome_auc"] is not None:
        words.append(f"outcome AUC {figures['outcome_auc']:.3f}")
    if figures["depth"] is not None:
        words.append(f"depth MAE {figures['depth']['mae_mm']:.2f} mm on {figures['depth']['tiles']}")
    return ", ".join(words)
