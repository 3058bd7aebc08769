"""The slide result: what result.json holds, and what the Python API returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from melanoma_infer.card import AggregatorKind, ModelCard
from melanoma_infer.records import GalleryTile, SlideView, TileTable
from melanoma_infer.tolerances import Precision

Verdict = Literal["suspected", "not-detected", "indeterminate", "not-configured"]
OutcomeState = Literal["above-threshold", "between-thresholds", "below-threshold", "not-assessed"]
ReasonCode = Literal[
    "stain-not-as-card",
    "specimen-not-as-card",
    "scale-overridden",
    "scale-contradicted",
    "geometry-differs-from-card",
    "no-tissue",
    "low-evaluable-tissue",
    "scan-incomplete",
    "hot-tiles-unreadable",
    "non-finite-output",
    "mostly-padding",
    "near-threshold",
    "engine-band",
    "model-untrained",
    "model-knows-only-phantoms",
    "model-undocumented",
    "no-threshold",
    "aggregator-differs-from-card",
]
Share = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base of every part of a result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reason(Frozen):
    """Why the verdict is what it is: a code for programs, a sentence for people, and the value beside its limit."""

    code: ReasonCode
    text: str
    value: float | str | None = None
    limit: float | str | None = None


class BoundsOut(Frozen):
    """A rectangle in l0 pixels."""

    x: int
    y: int
    width: int
    height: int


class SlideOut(Frozen):
    """The slide: only what may be known outside the archive."""

    reader: str
    vendor: str
    width_px: int
    height_px: int
    levels: int
    objective_power: float | None
    digest: str
    size_bytes: int
    is_phantom: bool
    bounds: BoundsOut | None = None
    """The scanned part of the slide, where the file names one (`openslide.bounds-*`); viewers show it alone."""
    doubts: tuple[str, ...] = ()
    """What may be wrong with the slide's files, such as an image in full resolution that is missing."""


class ScaleOut(Frozen):
    """µm per level-0 pixel in use, and the slide's own."""

    x_um_per_px: float
    y_um_per_px: float
    source: Literal["slide", "override"]
    slide_x_um_per_px: float | None
    slide_y_um_per_px: float | None
    contradiction: str | None = None
    """The scales that the slide states, with their sources, if two of them cannot both be right."""


class GeometryOut(Frozen):
    """How the tiles were placed and read."""

    tile_um: float
    stride_um: float
    tile_px: int
    level: int
    resize: str
    block_px: int
    matches_card: bool
    tissue_source: Literal["found", "mask", "all"]
    aggregator: AggregatorKind


class PatientOut(Frozen):
    """Patient values as the model used them, and the score without them."""

    values: dict[str, str]
    ulceration: str
    malignant_score_without: float | None
    breslow_mm: float | None = None
    """A measured thickness, used in place of the estimated one."""


class BundleOut(Frozen):
    """The model."""

    name: str
    version: str
    digest: str
    domain: Literal["phantom", "tissue"]
    trained: bool
    finding: str
    """What the result suspects, as the card calls it."""
    threshold: float | None
    threshold_low: float | None
    threshold_high: float | None


class NumericsOut(Frozen):
    """What computed the numbers."""

    engine: str
    version: str
    precision: Precision
    device: str


class TileCounts(Frozen):
    """Tiles by status. `padded` counts those of `ok` that are partly unscanned."""

    ok: int
    unreadable: int
    padded: int
    not_evaluated: int


class EvaluationOut(Frozen):
    """What the verdict depends on and is not elsewhere in the result."""

    engine_band: float
    non_finite: int
    padded_fraction: float
    is_brightfield: bool
    luminance_p95: float


class Thickness(Frozen):
    """Breslow thickness in mm, or why there is none."""

    state: Literal["estimated", "more-than", "not-assessable"]
    mm: float | None = None
    low_mm: float | None = None
    high_mm: float | None = None
    windows: list[dict[str, float]] = []
    reason: str


class Region(Frozen):
    """A connected area of evidence; rings in l0 pixels."""

    id: str
    class_: Literal["malignant", "benign"] = Field(alias="class")
    area_mm2: float
    diameter_mm: float
    score: Share
    """Mean evidence of a lesion over the region's cells."""
    malignant_share: Share
    """p(malignant) / p(lesion), weighted by evidence; from one half on the class is malignant."""
    outline: list[list[float]]
    """A closed ring of corners (x, y)."""
    holes: list[list[list[float]]] = []
    """Closed rings around parts that do not belong to the region."""
    tissue_section: int
    """The tissue section it is on, numbered from 1 in reading order."""


class Tool(Frozen):
    """What wrote the result."""

    name: str
    version: str


class RunOut(Frozen):
    """Everything in which two runs differ that make the same result."""

    started: str | None = None
    """When the slide was opened, in UTC: "2026-11-29T06:23:11Z"."""
    finished: str | None = None
    """When the result was known; its files are written after that."""
    folder: str | None = None
    """The name of the result's folder; None for a result that is not written."""
    key: str | None = None
    """A keyed hash of what the result depends on besides the slide; the folder's name ends with its beginning. A
    finished result with the same key is not made again."""
    slide_mtime_ns: int | None = None
    """When the slide's file was written last; a slide written since is scored again."""
    rescored_from: str | None = None
    """The folder of the result that this one was rescored from."""
    machine: dict[str, str | int] = {}
    timings_ms: dict[str, float] = {}
    """Milliseconds of each stage; read, decode and resize sum over all reading threads, which run beside the engine."""


class SlideResult(Frozen):
    """Everything that is claimed about one slide, and everything that the claim is based on."""

    schema_version: Literal["3"] = "3"
    id: str
    case_id: str | None = None
    tool: Tool
    slide: SlideOut
    scale: ScaleOut
    geometry: GeometryOut
    patient: PatientOut | None
    stain: str | None
    specimen: str | None
    bundle: BundleOut
    numerics: NumericsOut
    tiles_counted: TileCounts = Field(alias="tiles")
    evaluation: EvaluationOut
    tissue_mm2: float
    ink_mm2: float
    evaluable_fraction: Share
    malignant_score: Share | None
    verdict: Verdict
    outcome: OutcomeState
    outcome_name: str | None
    """What the outcome is, and within what time."""
    outcome_score: Share | None
    reasons: list[Reason]
    """Those about the slide first, then those about its tiles and its score, then those about the model."""
    thickness: Thickness
    regions: list[Region]
    regions_note: str
    warnings: list[str]
    run: RunOut = RunOut()
    """When, where and how long; `comparable` leaves it out."""

    _tiles: TileTable = PrivateAttr()
    _card: ModelCard | None = PrivateAttr(None)
    _view: SlideView | None = PrivateAttr(None)
    _gallery: tuple[GalleryTile, ...] = PrivateAttr(())

    @property
    def tiles(self) -> TileTable:
        """The tiles' results."""
        return self._tiles

    @property
    def view(self) -> SlideView | None:
        """What pictures are drawn from; None if the result was read from a file."""
        return self._view

    @property
    def card(self) -> ModelCard | None:
        """The model's card; None if the result was read from a file."""
        return self._card

    @property
    def gallery(self) -> tuple[GalleryTile, ...]:
        """The tiles that a person should look at."""
        return self._gallery

    def carrying(
        self,
        tiles: TileTable,
        view: SlideView | None = None,
        gallery: tuple[GalleryTile, ...] = (),
        *,
        card: ModelCard | None = None,
    ) -> SlideResult:
        """A copy of this result that carries what its files and pictures are made of."""
        copy = self.model_copy()
        copy._tiles, copy._view, copy._gallery, copy._card = tiles, view, gallery, card
        return copy


def comparable(result: SlideResult) -> dict[str, Any]:
    """The fields of result.json that are the same in every run over the same slide with the same model and settings."""
    return result.model_dump(mode="json", by_alias=True, exclude={"run"})


@dataclass(frozen=True)
class SlideOutcome:
    """How one slide ended: with a result, or with the error that stopped it."""

    id: str
    case_id: str | None
    exit_code: int
    message: str
    stage: str
    """Where it failed; empty for a result."""
    seconds: float
    started: str
    finished: str
    """UTC, as in RunOut; for a slide that was finished before, the times of its result."""
    digest: str | None = None
    """The digest of the slide's bytes, or of some of them if it could not be opened; None if they cannot be read."""
    folder: Path | None = None
    result: SlideResult | None = None
    skipped: bool = False
    """It was finished before."""
    settings: str = ""
    """The options that differ from the card's, of a slide that failed: a result has them itself."""
