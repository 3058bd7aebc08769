"""Pictures of the tiles that differ most with the probabilities of both programs: PNG files and one HTML page."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.files import why_not_written
from melanoma_infer.verification.expected import Comparison

PAGE = "expected.html"
SIDE_MAX = 512
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}
figure{display:flex;gap:1.5rem;margin:1.5rem 0;align-items:flex-start}img{width:224px;border:1px solid #bbb}
td,th{padding:.15rem 1rem .15rem 0;text-align:right}td:first-child,th:first-child{text-align:left}"""


def write_pictures(out: Path, found: Comparison) -> Path:
    """Write the page and each picture, `worst-1.png` first, to this folder; return the page.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures: list[bytes] = []
        for number, each in enumerate(found.worst, start=1):
            image = Image.fromarray(each.pixels)
            image.thumbnail((SIDE_MAX, SIDE_MAX))
            image.save(buffer := io.BytesIO(), "PNG")
            pictures.append(buffer.getvalue())
            (out / f"worst-{number}.png").write_bytes(pictures[-1])
        page = out / PAGE
        page.write_text(_page(found, pictures), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out: the pictures cannot be written: {why_not_written(error)}") from error
    return page


def _page(found: Comparison, pictures: list[bytes]) -> str:
    tried = "".join(f"<tr><td>{escape(each.name)}<td>{each.mean_dp:.2g}" for each in found.tried)
    causes = (
        f"<h2>Likely causes</h2><table><tr><th>if your code had<th>mean |Δp| left of {found.before:.2g}{tried}</table>"
        if found.tried
        else ""
    )
    figures = ""
    for each, picture in zip(found.worst, pictures, strict=True):
        rows = "".join(
            f"<tr><td>{escape(name)}<td>{ours:.4f}<td>{theirs:.4f}"
            for name, ours, theirs in zip(found.classes, each.ours, each.theirs, strict=True)
        )
        rect = each.rect_l0
        encoded = base64.b64encode(picture).decode()
        figures += (
            f'<figure><img alt="the tile at {rect.x}, {rect.y}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>l0 {rect.x}, {rect.y}; {rect.width} × {rect.height} px"
            f"<table><tr><th>class<th>toolkit<th>yours{rows}</table></figcaption></figure>"
        )
    remarks = "".join(f"<p>{escape(remark)}" for remark in found.remarks)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Your numbers and the toolkit</title>'
        f"<style>{STYLE}</style><h1>Your numbers and the toolkit's</h1><p>{escape(found.diagnosis)}"
        f"<p>Tiles compared: {found.matched} of {found.given}. Mean |Δp| {found.mean_dp:.2g}, "
        f"largest {found.max_dp:.2g}.{remarks}"
        f"<h2>The tiles that differ most, as the toolkit reads them</h2>{figures}{causes}</html>\n"
    )
