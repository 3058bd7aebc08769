"""What a model is, what it needs, and what it may say: the model card.

Eight lines are enough (``name``, ``classes``, ``malignant``, ``tile_px``, ``um_per_px`` or ``tile_um``, ``mean``,
``std``, ``resize``). Everything else is optional; what happens without it is stated beside each field.
"""

from __future__ import annotations

import math
import re
from typing import Literal, Self

from pydantic import Field, model_validator

from melanoma_infer.tolerances import DEFAULT_TOLERANCES, Frozen, Positive, Precision, Probability, Tolerance

AggregatorKind = Literal["mean", "max", "top-area-mean"]
OptionalOutput = Literal["depth_mm", "attention", "cam", "features"]

UNKNOWN = "unknown"
NOUN_PHRASE = re.compile(r"(?!(?:an?|the) )[^\W\d_](?:[^\W_]|['’/()+-]| (?! |$)){1,59}", re.IGNORECASE)
"""What may follow "Suspected": a letter first, no article, no full stop, 2 to 60 characters."""
NO_NOUN = "malignancy"
"""What a model finds whose card has no word for it."""
STATEMENTS = {"training_data": "what the model was trained on", "intended_use": "what the model may be used for"}
"""What a card must say before its model may judge, by field."""


class Outcome(Frozen):
    """What some of the malignant classes say about the patient rather than about the tile."""

    name: str
    """What happened, in the words that a reader should see: "metastasis recorded"."""
    classes: tuple[str, ...] = Field(min_length=1)
    """The classes in which the outcome occurred; each must be malignant."""
    horizon: str = ""
    """The follow-up time that the outcome refers to, such as "5 years"; shown as "within 5 years"."""

    @property
    def in_words(self) -> str:
        """What happened, and within what time."""
        return f"{self.name} within {self.horizon}" if self.horizon else self.name


class Threshold(Frozen):
    """A decision threshold on the slide's malignant score, and how it was set."""

    value: Probability
    """The finding is suspected from this score on."""
    low: Probability
    """Start of the threshold's interval; a score in [low, high) is `near-threshold` and therefore indeterminate."""
    high: Probability
    """End of the interval, exclusive."""
    how: str
    """On what data it was set, on how many cases, at which prevalence."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("a threshold needs low ≤ value ≤ high")
        return self


class OutcomeThresholds(Frozen):
    """Two thresholds on the outcome score; between them nothing is claimed."""

    low: Probability
    """Scores below it are `below-threshold`."""
    high: Probability
    """Scores from it on are `above-threshold`."""
    how: str
    """On what data they were set, on how many cases."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("outcome thresholds need low ≤ high")
        return self


class Aggregator(Frozen):
    """How tile scores become the slide's malignant score."""

    kind: AggregatorKind = "top-area-mean"
    """`mean` and `max` over all tiles, or `top-area-mean`: the mean over the highest-scoring tiles of a fixed area."""
    area_mm2: Positive | None = None
    """The area averaged by top-area-mean, in mm². None: the area of one tile."""


class ClassPriors(Frozen):
    """Class frequencies for class normalisation (paper 2.5): p'(k) ∝ p(k) · stated(k) / trained(k)."""

    trained: dict[str, Positive]
    """The frequency of every class in the training data."""
    stated: dict[str, Positive]
    """The frequency of every class where the model is used."""


class PatientField(Frozen):
    """One categorical value of the patient, one-hot encoded with a last column for "unknown"."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The name of its option and of its manifest column."""
    values: tuple[str, ...] = Field(min_length=1)
    """The categories in the order of the columns, without "unknown"."""
    edges: tuple[float, ...] | None = None
    """For a number such as age in years: category i holds edges[i-1] ≤ x < edges[i]. None: a word."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if UNKNOWN in self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"patient field {self.name!r}: values must differ, and 'unknown' is added automatically")
        if self.edges is not None and (
            len(self.edges) != len(self.values) - 1 or list(self.edges) != sorted(set(self.edges))
        ):
            raise ValueError(f"patient field {self.name!r} needs rising edges, one fewer than it has values")
        return self

    @property
    def columns(self) -> int:
        """Columns of the one-hot vector: the values and "unknown"."""
        return len(self.values) + 1


NETWORK_STEP_PX = 64
"""Our own network's tile_px is a multiple of this: its depth module averages equal blocks and halves three times."""


class NetworkShape(Frozen):
    """The settings of our own network, needed only by the engines that run its weights."""

    width: int = Field(gt=0)
    """Channels after the first convolution; 64 is ResNet-50's."""


class ModelCard(Frozen):
    """What the model is, needs and may say."""

    name: str = Field(min_length=1, max_length=120)
    """The model's name, as results show it."""
    classes: tuple[str, ...] = Field(min_length=2)
    """In the order of the graph's `probabilities`, of the CSV columns and of the API."""
    malignant: tuple[str, ...] = Field(min_length=1)
    """The classes that are malignant: some, not all."""
    no_lesion: str | None = None
    """The class of tiles without any lesion. None: the first class that is not malignant."""
    tile_px: int = Field(gt=0, le=8192)
    """Side of a tile in pixels of the model's input."""
    um_per_px: Positive | None = None
    """µm per pixel of the model's input. None: tile_um / tile_px."""
    tile_um: Positive | None = None
    """Side of a tile in µm. None: um_per_px × tile_px."""
    mean: tuple[float, float, float]
    """Mean of x/255 by channel. The graph itself normalises, so no caller can do it wrongly; this documents it."""
    std: tuple[Positive, Positive, Positive]
    """Standard deviation of x/255, likewise."""
    resize: Literal["pillow-bilinear", "reduce-bilinear"]
    """How a region becomes a tile: Pillow's bilinear resize alone, or after exact means over blocks of pixels."""

    finding: str | None = None
    """What results suspect, a noun such as "melanoma". None: the name of the only malignant class, or "malignancy"."""
    domain: Literal["phantom", "tissue"] = "tissue"
    """What the model was trained on. "phantom": it never judges tissue (`model-knows-only-phantoms`)."""
    trained: bool = True
    """False: every verdict is `indeterminate` (`model-untrained`)."""
    version: str = ""
    """The model's version, as results show it."""
    intended_use: str = ""
    """What the model may be used for, as the report shows it. Empty: every verdict is `not-configured`."""
    training_data: str = ""
    """What the model was trained on, as the report shows it. Empty: every verdict is `not-configured`."""
    limits: str = ""
    """What the model cannot do, as the report shows it."""
    stain: str | None = None
    """The stain it was made for. None: a stated stain is not compared; the brightfield check stays."""
    specimen: str | None = None
    """The kind of specimen it was made for. None: a stated specimen is not compared."""
    read_from: Literal["pyramid", "level0"] = "pyramid"
    """Where pixels come from: the coarsest level that is fine enough, or always level 0."""
    histogram_equalisation: bool = False
    """Whether each tile's channels are equalised after the resize (paper 2.5)."""
    precision: Precision = "fp32"
    """The precision that the author verified."""
    outputs: tuple[OptionalOutput, ...] = ()
    """Optional outputs of the graph. No `depth_mm`: no Breslow thickness is shown. No `features`: no patient data."""
    aggregator: Aggregator = Aggregator()
    """How tile scores become the slide's score; the threshold is valid for this aggregator only."""
    threshold: Threshold | None = None
    """From which slide score on the finding is suspected. None: the verdict is `not-configured`."""
    outcome: Outcome | None = None
    """What malignant classes say about the patient. None: no outcome is shown."""
    outcome_thresholds: OutcomeThresholds | None = None
    """Thresholds on the outcome score. None: the outcome is `not-assessed`."""
    class_priors: ClassPriors | None = None
    """Class frequencies to normalise for. None: the probabilities stay as the model gives them."""
    patient_fields: tuple[PatientField, ...] = ()
    """The patient values that the head takes; they need the output `features`. Empty: no patient option is taken."""
    network: NetworkShape | None = None
    """The shape of our own network. None: another network; the `torch` and `triton` engines do not run it."""
    thickness_residual_quantiles_mm: tuple[float, float] | None = None
    """Quantiles of the residuals (true − estimated) at 2.5 % and 97.5 %. None: no interval, so no T category."""
    cam_scale: Positive | None = None
    """The class activation that counts as full evidence. None: regions are drawn at the resolution of the tiles."""
    region_threshold: Probability = 0.5
    """Cells with at least this evidence form regions."""
    evaluable_floor: Probability = 0.80
    """Evaluable share of the tissue below which the verdict is `low-evaluable-tissue`."""
    padding_limit: Probability = 0.50
    """Share of the evaluated area that may be unscanned before the verdict is `mostly-padding`."""
    allow_scale_override: bool = True
    """False: a scale entered by hand makes the verdict `scale-overridden`."""
    report_t_category: bool = False
    """Whether the T category may be shown."""
    tolerances: dict[Precision, Tolerance] = Field(default_factory=lambda: dict(DEFAULT_TOLERANCES))
    """How far each precision may differ from the reference; a missing one has its default."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_classes()
        self._check_scale()
        self._check_normalisation()
        if self.network is not None and self.tile_px % NETWORK_STEP_PX:
            raise ValueError(
                f"tile_px is {self.tile_px}, but with [network] it must be a multiple of {NETWORK_STEP_PX}, such as "
                "256 or 512"
            )
        if self.finding is not None and not NOUN_PHRASE.fullmatch(self.finding):
            raise ValueError(
                f'finding is a noun without an article or a full stop, such as "melanoma": it follows the word '
                f'"Suspected". {self.finding!r} is not'
            )
        if self.patient_fields and "features" not in self.outputs:
            raise ValueError("patient fields need the output `features`: patient data is added on the host")
        names = [field.name for field in self.patient_fields]
        if len(set(names)) != len(names):
            raise ValueError("patient fields must have different names")
        return self

    def _check_classes(self) -> None:
        known = set(self.classes)
        if len(known) != len(self.classes):
            raise ValueError("classes must differ")
        if not set(self.malignant) < known:
            raise ValueError(f"malignant must name some, not all, of the classes ({', '.join(self.classes)})")
        if self.no_lesion is not None and self.no_lesion not in known - set(self.malignant):
            benign = ", ".join(name for name in self.classes if name not in self.malignant)
            raise ValueError(f"no_lesion must be a class that is not malignant ({benign})")
        if self.outcome is not None and not set(self.outcome.classes) <= set(self.malignant):
            raise ValueError("outcome classes must be malignant classes")
        priors = self.class_priors
        if priors is not None and not (set(priors.trained) == set(priors.stated) == known):
            raise ValueError("class priors must name every class, trained and stated")

    def _check_scale(self) -> None:
        if self.um_per_px is None and self.tile_um is None:
            raise ValueError("give um_per_px or tile_um")
        if (
            self.um_per_px is not None
            and self.tile_um is not None
            and not math.isclose(self.um_per_px * self.tile_px, self.tile_um, rel_tol=1e-6)
        ):
            raise ValueError("um_per_px × tile_px differs from tile_um: give one of them")

    def _check_normalisation(self) -> None:
        """Values of 0 to 255 would make every tile look alike, and no engine would differ from another."""
        if max(map(abs, (*self.mean, *self.std))) <= 1:
            return
        unscaled = max(map(abs, self.mean)) > 1
        mean = [float(f"{value / 255:.6g}") if unscaled else value for value in self.mean]
        # A mean of 0 to 255 beside a deviation of 1: only the mean is subtracted from x, which is (x − mean) / 1.
        scaled = max(self.std) > 1 or (unscaled and set(self.std) == {1.0})
        std = [float(f"{value / 255:.6g}") if scaled else value for value in self.std]
        raise ValueError(
            f"mean and std are those of x / 255, from 0 to 1, but mean is {list(self.mean)} and std {list(self.std)}: "
            f"values of 0 to 255. Write mean = {mean} and std = {std}"
        )

    def tolerance_of(self, precision: Precision) -> Tolerance:
        """The tolerance of a precision, with defaults for the bounds that the card leaves out."""
        default = DEFAULT_TOLERANCES[precision]
        own = self.tolerances.get(precision, default).model_dump(exclude_none=True)
        return default.model_copy(update=own)

    @property
    def tile_side_um(self) -> float:
        """The side of a tile in µm."""
        if self.tile_um is not None:
            return self.tile_um
        assert self.um_per_px is not None  # _check_scale
        return self.um_per_px * self.tile_px

    @property
    def noun(self) -> str:
        """What a result suspects: `finding`, else the name of the only malignant class, else "malignancy"."""
        if self.finding is not None:
            return self.finding
        name = " ".join(self.malignant[0].replace("_", " ").split())
        return name if len(self.malignant) == 1 and NOUN_PHRASE.fullmatch(name) else NO_NOUN

    @property
    def undocumented(self) -> str | None:
        """Why the model may not judge, in a sentence, if the card lacks a statement; None if it has both."""
        missing = [field for field in STATEMENTS if not getattr(self, field).strip()]
        if not missing:
            return None
        unsaid = " or ".join(STATEMENTS[field] for field in missing)
        return (
            f"The model card does not say {unsaid}. Add {' and '.join(missing)} to the card: until then no slide gets "
            "a verdict."
        )

    @property
    def malignant_columns(self) -> tuple[int, ...]:
        """The columns of `probabilities` that are malignant."""
        return tuple(self.classes.index(name) for name in self.malignant)

    @property
    def lesion_columns(self) -> tuple[int, ...]:
        """The columns of `probabilities` that mean a lesion, benign or malignant: all but `no_lesion`."""
        healthy = self.no_lesion or next(name for name in self.classes if name not in self.malignant)
        return tuple(i for i, name in enumerate(self.classes) if name != healthy)

    @property
    def outcome_columns(self) -> tuple[int, ...]:
        """The columns of `probabilities` in which the outcome occurred; empty without an outcome."""
        return tuple(self.classes.index(name) for name in self.outcome.classes) if self.outcome else ()

    @property
    def patient_columns(self) -> int:
        """Length of the one-hot patient vector."""
        return sum(field.columns for field in self.patient_fields)

    @property
    def top_area_mm2(self) -> float:
        """The area that top-area-mean averages, in mm²."""
        return self.aggregator.area_mm2 or (self.tile_side_um / 1000) ** 2
