"""How a slide is scored, where that may differ from the model's card."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from melanoma_infer.card import AggregatorKind

Micrometres = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen. The default of every field is the model card's choice; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mpp_um: tuple[float, float] | None = None
    """µm per level-0 pixel (x, y) in place of the slide's. None: the slide's own, because a mistyped scale makes every
    millimetre wrong. An override is shown in every output."""
    tile_um: Micrometres | None = None
    """Side of a tile in µm. None: the card's, the only size that the model was made for."""
    stride_um: Micrometres | None = None
    """Distance between tiles in µm. None: the tile's side, so that tiles touch without overlapping."""
    tissue: str = "auto"
    """"auto": found by colour. "all": every tile, for tools that bring their own mask. Else the path of a mask."""
    aggregate: AggregatorKind | None = None
    """How tile scores become the slide's. None: the card's; its threshold is valid for no other aggregator."""
    stain: str | None = None
    """As stated by the laboratory, compared with the card's. None: not compared."""
    specimen: str | None = None
    """As stated by the laboratory, compared with the card's. None: not compared."""

    def options(self) -> str:
        """The fields that are not the card's choice, such as "tile-um=256 tissue=MASK": paths are never shown."""
        stated = self.model_dump(exclude_defaults=True)
        if self.tissue not in ("auto", "all"):
            stated["tissue"] = "MASK"
        if self.mpp_um is not None:
            stated["mpp"] = ",".join(f"{um:g}" for um in stated.pop("mpp_um"))
        shown = {
            name.replace("_", "-"): f"{each:g}" if isinstance(each, float) else each for name, each in stated.items()
        }
        return " ".join(f"{name}={each}" for name, each in shown.items())
