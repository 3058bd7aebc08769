"""result.json: everything that is claimed about a slide, and what it rests on. Its JSON Schema is in the package."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from melanoma_infer.result import SlideResult

NAME = "result.json"
SCHEMA = Path(__file__).with_name("result.schema.json")


def render(result: SlideResult) -> bytes:
    """The result as JSON, one field per line."""
    return (result.model_dump_json(by_alias=True, indent=1) + "\n").encode()


def read(path: Path) -> SlideResult | None:
    """The result in a file, without its tiles; None if there is no file that this version wrote."""
    try:
        return SlideResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def schema() -> bytes:
    """The JSON Schema of result.json, generated from the model that writes it."""
    return (json.dumps(SlideResult.model_json_schema(by_alias=True, mode="serialization"), indent=1) + "\n").encode()
