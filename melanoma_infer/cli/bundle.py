"""`mminfer bundle`: inspect a model bundle, or make one from an existing model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import note, say, say_json
from melanoma_infer.cli.doctor import checks_table
from melanoma_infer.cli.tables import table
from melanoma_infer.errors import EngineUnavailableError, ParityError, UsageError

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle, ParityRow

app = typer.Typer(help="Inspect and make model bundles.", no_args_is_help=True)


class Scores(StrEnum):
    """What the outputs of a model are."""

    auto = "auto"
    logits = "logits"
    probabilities = "probabilities"


OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create: NAME.mminfer.")]
OnnxOption = Annotated[Path | None, typer.Option(metavar="FILE.onnx", help="Make it from an ONNX file and a card.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Make it from weights of this project's network (.safetensors or .pt) and a card."
    ),
]
RandomOption = Annotated[
    int | None,
    typer.Option(
        metavar="SEED", min=0, help="Make it from this project's network with random weights, for benchmarks."
    ),
]
CardOption = Annotated[
    Path | None,
    typer.Option(
        metavar="CARD.toml",
        help="The model card; `bundle init` writes a template. For import: only the fields that config.json lacks.",
    ),
]
ScoresOption = Annotated[
    Scores,
    typer.Option(help="What the ONNX file outputs; auto: what its last operators tell, such as Softmax or Gemm."),
]


@app.command()
def show(bundle: opt.BundleArgument = "demo", json: opt.JsonOption = False) -> None:
    """Print what a model is, what it needs and what it reports."""
    from melanoma_infer.bundle.bundle import open_bundle

    opened = open_bundle(bundle)
    _note_what_is_unsaid(opened)
    if json:
        say_json(opened.card.model_dump(mode="json"))
    else:
        say(card_table(opened))


def card_table(bundle: Bundle) -> str:
    """The card of a bundle, field by field."""
    card = bundle.card
    threshold = (
        f"{card.threshold.value:.2f} ({card.threshold.low:.2f}–{card.threshold.high:.2f}; {card.threshold.how})"
        if card.threshold
        else "none (verdict: not-configured)"
    )
    fields = "; ".join(f"{field.name}: {', '.join(field.values)}" for field in card.patient_fields)
    classes = (f"{name}{' (malignant)' if name in card.malignant else ''}" for name in card.classes)
    rows = [
        ("name", f"{card.name} {card.version}".strip()),
        ("digest", bundle.digest),
        ("finding", card.noun),
        ("domain", card.domain),
        ("trained", "yes" if card.trained else "no (every verdict is indeterminate)"),
        ("intended use", card.intended_use or "not stated"),
        ("training data", card.training_data or "not stated"),
        ("limits", card.limits or "not stated"),
        ("classes", ", ".join(classes)),
        ("tiles", f"{card.tile_side_um:g} µm, {card.tile_px} px, {card.resize}, read from {card.read_from}"),
        ("outputs", ", ".join(("probabilities", *card.outputs))),
        ("patient fields", fields or "none"),
        ("slide score", card.aggregator.kind),
        ("threshold", threshold),
        ("stain, specimen", f"{card.stain or 'not compared'}, {card.specimen or 'not compared'}"),
        ("precisions", ", ".join(bundle.precisions)),
    ]
    return table(rows)


@app.command()
def check(bundle: opt.BundleArgument = "demo", json: opt.JsonOption = False) -> None:
    """Verify every byte of a bundle, and run its golden tiles through every engine that loads here."""
    from melanoma_infer.bundle.bundle import open_bundle
    from melanoma_infer.engines.check import check_engines

    opened = open_bundle(bundle)
    checks = check_engines(opened)
    failure = None
    if wrong := [row for row in checks if row.state == "differs" and row.precision == opened.card.precision]:
        names = ", ".join(f"{row.engine} {row.precision}" for row in wrong)
        failure = ParityError(f"{names}: differs from the golden outputs by more than the tolerance. Do not use it.")
    if json:
        say_json({"digest": opened.digest, "engines": [vars(row) for row in checks]}, failure)
    else:
        say(f"{opened.name}: every byte matches SHA256SUMS (digest {opened.digest[:12]})")
        say(checks_table(checks))
    _note_what_is_unsaid(opened)
    if failure is not None:
        raise failure
    if not any(row.state == "agrees" for row in checks):
        note("No engine loads here, so none was checked. `mminfer doctor` says what to install.")


@app.command()
def init(
    card: Annotated[Path, typer.Argument(metavar="CARD.toml", help="The file to write.")] = Path("card.toml"),
) -> None:
    """Write a commented template of a model card: eight lines to fill in, and every other field with its default."""
    from mminfer_export.card_toml import write_template

    say(str(write_template(card)))


@app.command()
def create(
    out: OutArgument,
    onnx: OnnxOption = None,
    weights: WeightsOption = None,
    random: RandomOption = None,
    card: CardOption = None,
    scores: ScoresOption = Scores.auto,
    width: Annotated[int, typer.Option(min=1, help="For --random: channels after the first layer.")] = 64,
    tiles: opt.TilesOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Make a bundle that every engine can run. It is compared with the model on sample tiles before it is written."""
    if [onnx, weights, random].count(None) != 2:
        raise UsageError("Give exactly one of --onnx, --weights and --random.")
    if random is None and card is None:
        raise UsageError("Give --card CARD.toml. `mminfer bundle init` writes a template.")
    if onnx is None and (find_spec("torch") is None or find_spec("onnxscript") is None):
        raise EngineUnavailableError("This needs PyTorch and onnxscript. Install them: pip install 'mminfer[export]'")
    from mminfer_export.sample_tiles import samples_for

    if random is not None:
        from mminfer_export.random_bundle import write_random_bundle

        write_random_bundle(out, random, width)
    elif onnx is not None and card is not None:
        from mminfer_export.card_toml import read_card
        from mminfer_export.from_onnx import read_onnx, write_from_onnx

        read = read_card(card)
        graph = read_onnx(onnx)
        write_from_onnx(out, graph, read, samples=samples_for(read, tiles or ()), scores=scores.value)
    elif weights is not None and card is not None:
        from mminfer_export.card_toml import card_values
        from mminfer_export.from_weights import card_of_weights, read_weights, write_from_weights

        tensors = read_weights(weights)
        made = card_of_weights(card_values(card), tensors)
        write_from_weights(out, tensors, made, samples=samples_for(made, tiles or ()))
    _say_made(out, json)


@app.command("import")
def import_(
    out: OutArgument,
    wsinfer: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of a WSInfer model: config.json and weights.")
    ],
    malignant: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="A malignant class; repeat the option for more.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: the folder's]")] = None,
    card: CardOption = None,
    tiles: opt.TilesOption = None,
    json: opt.JsonOption = False,
) -> None:
    """Make a bundle from a model of another toolkit. TorchScript is converted once, in a separate process."""
    from mminfer_export.card_toml import card_values
    from mminfer_export.from_wsinfer import card_of_config, read_config, write_from_wsinfer
    from mminfer_export.sample_tiles import samples_for

    more = card_values(card) if card is not None else {}
    config = read_config(wsinfer)
    made = card_of_config(config, name=name or wsinfer.resolve().name, malignant=malignant or (), more=more)
    write_from_wsinfer(out, wsinfer, made, samples=samples_for(made, tiles or ()), tell=note)
    _say_made(out, json)


def _note_what_is_unsaid(bundle: Bundle) -> None:
    if bundle.card.undocumented is not None:
        note(bundle.card.undocumented)


def _say_made(out: Path, json: bool) -> None:
    from melanoma_infer.bundle.bundle import open_bundle

    made = open_bundle(out)
    _note_what_is_unsaid(made)
    if json:
        rows = [row.model_dump(mode="json") for row in made.parity]
        say_json({"bundle": str(out), "digest": made.digest, "parity": rows})
        return
    say(str(out))
    say(parity_table(made.parity))


def parity_table(rows: Sequence[ParityRow]) -> str:
    """How far each engine is from the model that the bundle was made of."""
    cells = [(f"{row.engine} {row.precision}", f"{row.max_dp:.1e}", str(row.decision_flips), row.on) for row in rows]
    return table(cells, ("engine", "max |Δp|", "flips", "on"))
