"""A model of the WSInfer zoo (its folder: config.json and torchscript_model.pt or model.safetensors) → a bundle.

WSInfer (0.6) reads a patch of patch_size_pixels · spacing_um_px µm from level 0, resizes it with Pillow's antialiased
bilinear filter, divides by 255 and normalises. That is this package's reading with `read_from = "level0"`,
`resize = "pillow-bilinear"` and the transform's size as tile_px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.tolerances import Positive
from mminfer_export.card_toml import card_of
from mminfer_export.checked_bundle import Model, Reference, require_new, write_checked_bundle
from mminfer_export.from_onnx import bundle_graph, checked_model, normalised, seen_of
from mminfer_export.interface import TO_NCHW, interface_of
from mminfer_export.sample_tiles import Samples
from mminfer_export.scores import check_scores, kind_of, probabilities
from mminfer_export.untrusted import converted_torchscript

CONFIG, TORCHSCRIPT, SAFETENSORS = "config.json", "torchscript_model.pt", "model.safetensors"
CODE = (
    "TorchScript is code: it ran once, in a process of its own, and is not part of the bundle. Import only models "
    "whose author you trust."
)
BILINEAR = (None, 2, "bilinear")
"""The spellings of "bilinear" in the arguments of Resize; 2 is Pillow's and torchvision's number for it."""

Side = Annotated[int, Field(gt=0)]


class Resize(BaseModel):
    """Arguments of the transform's Resize."""

    model_config = ConfigDict(extra="forbid")

    size: Side | tuple[Side] | tuple[Side, Side]
    interpolation: int | str | None = None
    antialias: bool | None = None


class Normalize(BaseModel):
    """Arguments of the transform's Normalize."""

    model_config = ConfigDict(extra="forbid")

    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


class Transform(BaseModel):
    """One step between the patch and the model."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Resize", "ToTensor", "Normalize"]
    arguments: dict[str, Any] | None = None


class Config(BaseModel):
    """config.json, as WSInfer's schema 1.0 has it; keys that it does not know are left alone, as WSInfer does."""

    spec_version: Literal["1.0"]
    architecture: str
    num_classes: Side
    class_names: tuple[str, ...]
    patch_size_pixels: Side
    spacing_um_px: Positive
    transform: tuple[Transform, ...]


@dataclass(frozen=True)
class Preprocessing:
    """What a transform does: the resize's target, and the normalisation of x / 255."""

    tile_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_config(folder: Path) -> Config:
    """The model's config.json.

    Raises:
        UsageError: the folder has none.
        BundleError: it is not one of WSInfer's.
    """
    try:
        content = (folder / CONFIG).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{folder.name} has no {CONFIG} that can be read ({error.strerror}). Give the folder of one WSInfer model."
        ) from error
    try:
        config = Config.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BundleError(
            f"{CONFIG} is not a WSInfer configuration (spec 1.0): {where}: {problem['msg']}. Correct it."
        ) from error
    if len(config.class_names) != config.num_classes:
        raise BundleError(f"{CONFIG} has {len(config.class_names)} class_names; num_classes is {config.num_classes}.")
    return config


def preprocessing_of(config: Config) -> Preprocessing:
    """What the transform does, when it is (Resize,) ToTensor(, Normalize).

    Raises:
        BundleError: it is another one, or resizes in another way than this package's reading.
    """
    names = [step.name for step in config.transform]
    if names not in (
        ["Resize", "ToTensor", "Normalize"],
        ["ToTensor", "Normalize"],
        ["Resize", "ToTensor"],
        ["ToTensor"],
    ):
        raise BundleError(
            f"The transform {names} of {CONFIG} is not (Resize,) ToTensor(, Normalize). It cannot be kept."
        )
    arguments = {step.name: step.arguments or {} for step in config.transform}
    try:
        resize = Resize.model_validate(arguments.get("Resize", {"size": config.patch_size_pixels}))
        normalize = Normalize.model_validate(arguments.get("Normalize", {"mean": (0, 0, 0), "std": (1, 1, 1)}))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise BundleError(f"{CONFIG}: {problem['loc'][0]} of the transform: {problem['msg']}. Correct it.") from error
    sides = {resize.size} if isinstance(resize.size, int) else set(resize.size)
    if len(sides) != 1 or resize.interpolation not in BILINEAR or resize.antialias is False:
        raise BundleError(
            f"{CONFIG}: Resize to {resize.size} with interpolation {resize.interpolation!r} is not the antialiased "
            "bilinear resize to a square that this package has. The model cannot be imported as it was trained."
        )
    return Preprocessing(sides.pop(), normalize.mean, normalize.std)


def card_of_config(
    config: Config, *, name: str, malignant: Sequence[str], more: Mapping[str, Any] | None = None
) -> ModelCard:
    """The card of a WSInfer model.

    Args:
        config: of the model.
        name: of the model.
        malignant: the malignant classes, which config.json does not name.
        more: fields of the card that config.json does not have, such as training_data and threshold.

    Raises:
        UsageError: malignant names none of the classes, or all of them; or `more` has a field of config.json.
        BundleError: the transform cannot be kept.
    """
    classes = config.class_names if config.num_classes > 1 else (f"not {config.class_names[0]}", config.class_names[0])
    if not malignant:
        raise UsageError(
            f"WSInfer does not say which classes are malignant. Give --malignant, one or more of {', '.join(classes)}."
        )
    if unknown := [name for name in malignant if name not in classes]:
        raise UsageError(
            f"--malignant {unknown[0]}: the model has no such class. Its classes are {', '.join(classes)}."
        )
    if set(malignant) == set(classes):
        raise UsageError("--malignant names all classes of the model. Leave out those that are not malignant.")
    step = preprocessing_of(config)
    known = {
        "name": name,
        "classes": classes,
        "malignant": tuple(malignant),
        "tile_px": step.tile_px,
        "tile_um": config.patch_size_pixels * config.spacing_um_px,
        "mean": step.mean,
        "std": step.std,
        "resize": "pillow-bilinear",
        "read_from": "level0",
    }
    more = more or {}
    if both := [field for field in (*known, "um_per_px") if field in more]:
        raise UsageError(f"{both[0]} of the card is what {CONFIG} and the command line say. Leave it out of the card.")
    limits = f"Not stated. Imported from a WSInfer model of architecture {config.architecture}."
    return card_of({"limits": limits, **more, **known})


def write_from_wsinfer(
    out: Path, folder: Path, card: ModelCard, *, samples: Samples, tell: Callable[[str], None]
) -> Path:
    """Return `out`, which now holds the bundle of a WSInfer model, compared with the model itself on the samples.

    model.safetensors is preferred where the architecture is known here (resnet50), because it holds no code.

    Args:
        out: the folder to make.
        folder: of the WSInfer model.
        card: of its config (`card_of_config`).
        samples: tiles.
        tell: gets what the user should know.

    Raises:
        UsageError: the folder holds no weights that can be read.
        BundleError: the model cannot be loaded, converted, or run.
        ParityError: an engine gives other probabilities than the model.
        OutputError: `out` exists, or cannot be written.
    """
    require_new(out)
    architecture = read_config(folder).architecture
    if (folder / SAFETENSORS).is_file() and architecture == "resnet50":
        from mminfer_export.wsinfer_resnet50 import fits, write_resnet50

        if fits(folder / SAFETENSORS):
            return write_resnet50(out, folder / SAFETENSORS, card, samples=samples)
    if not (folder / TORCHSCRIPT).is_file():
        raise UsageError(
            f"{folder.name} has no {TORCHSCRIPT}, and its {SAFETENSORS} is of an architecture that is not known here "
            f"({architecture}). Load it in Python, and use mminfer_export.write_bundle."
        )
    tell(CODE)
    images = np.ascontiguousarray(normalised(samples.tiles, card).transpose(TO_NCHW))
    content, scores = converted_torchscript(folder / TORCHSCRIPT, images)
    model = checked_model(content)
    found = interface_of(model, card)
    kind = kind_of(scores, len(card.classes), "logits")  # WSInfer always adds the softmax itself
    seen = seen_of(model, found, card, scores)
    check_scores(seen, kind, lambda said: f"mminfer_export.write_bundle with output={said!r}")
    graph = bundle_graph(model, found, card, kind, tiles=samples.tiles)
    reference = Reference(samples.tiles, {"probabilities": probabilities(scores, kind)}, "the TorchScript itself")
    return write_checked_bundle(out, Model(card, graph), reference, on=samples.on)
