"""`mminfer bundle`: look at a model bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from melanoma_infer.cli.console import note, say, table

if TYPE_CHECKING:
    from melanoma_infer.bundle import Bundle

app = typer.Typer(help="Look at model bundles.", no_args_is_help=True)

BundleArgument = Annotated[str, typer.Argument(help="A packaged bundle's name, or the path of a NAME.mminfer folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


@app.command()
def show(bundle: BundleArgument = "demo", json: JsonOption = False) -> None:
    """Print what a model is, what it needs and what it may say."""
    from melanoma_infer.bundle import open_bundle

    opened = open_bundle(bundle)
    if json:
        say(opened.card.model_dump_json())
        return
    say(table(_card_rows(opened)))


@app.command()
def check(bundle: BundleArgument = "demo", json: JsonOption = False) -> None:
    """Verify every byte of a bundle, and its golden tiles through every engine that loads here."""
    import json as json_module

    from melanoma_infer.bundle import open_bundle
    from melanoma_infer.golden import check_engines

    opened = open_bundle(bundle)
    checks = check_engines(opened)
    if json:
        say(json_module.dumps({"digest": opened.digest, "engines": [vars(row) for row in checks]}))
    else:
        say(f"{opened.name}: every byte is as sealed (digest {opened.digest[:12]})")
        say(table([("engine", "state", "max |Δp|", ""), *(row.cells for row in checks)]))
    if any(row.state == "differs" and row.precision == opened.card.precision for row in checks):
        from melanoma_infer.errors import ParityError

        raise ParityError("An engine's numbers differ from the golden outputs at the card's precision. Do not use it.")
    if not any(row.state == "agrees" for row in checks):
        note("No engine could be checked here.")


def _card_rows(bundle: Bundle) -> list[tuple[str, str]]:
    card = bundle.card
    cut = (
        f"{card.cut.value:.2f} ({card.cut.low:.2f}–{card.cut.high:.2f}; {card.cut.how})"
        if card.cut
        else "none: not-configured"
    )
    fields = ", ".join(f"{field.name} ({'|'.join(field.values)})" for field in card.patient_fields)
    return [
        ("name", f"{card.name} {card.version}".strip()),
        ("digest", bundle.digest),
        ("domain", card.domain),
        ("trained", "yes" if card.trained else "no: every verdict is indeterminate"),
        ("intended use", card.intended_use or "not stated"),
        ("training data", card.training_data or "not stated"),
        ("limits", card.limits or "not stated"),
        ("classes", ", ".join(f"{name}{' (malignant)' if name in card.malignant else ''}" for name in card.classes)),
        ("tiles", f"{card.tile_side_um:g} µm, {card.tile_px} px, {card.resize}, read from {card.read_from}"),
        ("outputs", ", ".join(("probabilities", *card.outputs))),
        ("patient fields", fields or "none"),
        ("slide score", card.aggregator.kind),
        ("cut", cut),
        ("stain, specimen", f"{card.stain or 'not compared'}, {card.specimen or 'not compared'}"),
        ("precisions", ", ".join(bundle.precisions)),
    ]
