"""How a slide is scored, beyond what the model's card fixes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from melanoma_infer.card import AggregatorKind

Micrometres = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen; every field's default is the model card's own choice. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mpp_um: tuple[float, float] | None = None
    """µm per level-0 pixel (x, y) in place of the slide's. None: the slide's, because a scale typed by hand is how a
    wrong millimetre starts. It is written into every output."""
    tile_um: Micrometres | None = None
    """Side of a tile in µm. None: the card's, the only one the model was made for."""
    stride_um: Micrometres | None = None
    """Distance between tiles in µm. None: the tile's side, so that tiles touch and none is counted twice."""
    tissue: str = "auto"
    """"auto": found on the slide. "all": every tile, for tools that bring their own mask. Else the path of a mask."""
    aggregate: AggregatorKind | None = None
    """How tile scores become the slide's. None: the card's; the card's threshold holds for no other."""
    stain: str | None = None
    """As the laboratory says; compared with the card's. None: not compared."""
    specimen: str | None = None
    """As the laboratory says; compared with the card's. None: not compared."""
