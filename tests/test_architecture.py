"""ARCHITECTURE.md against the tree: every module and every record is where the page says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
ROOMS = dict(re.findall(r"^\| `([a-z_/]+/)` \| ([^|]+) \|", PAGE, re.MULTILINE))
RECORDS = re.findall(r"^\| (`[A-Z][^|]+) \| `([a-z_/]+\.py)` \|$", PAGE, re.MULTILINE)
PACKAGES = ("melanoma_infer", "export/mminfer_export", "kernels/mminfer_kernels", "kernels/mminfer_proofs")
TOP = "melanoma_infer/"


def modules(room: str) -> set[str]:
    """The modules in a room; at the package's top only its own files."""
    folder = ROOT / room
    files = folder.glob("*.py") if room == TOP else folder.rglob("*.py")
    return {str(file.relative_to(folder).with_suffix("")) for file in files if file.name != "__init__.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_names_every_module_of_a_room_and_no_other(room):
    assert set(ROOMS[room].split(", ")) == modules(room)


def test_the_page_names_every_room():
    folders = {
        f"{package}/{part}/"
        for package in PACKAGES
        for part in ({file.relative_to(ROOT / package).parts[0] for file in (ROOT / package).glob("*/*.py")} | {"."})
    }
    rooms = {folder.replace("/./", "/") for folder in folders}
    # Folders inside the exporter and the proofs belong to their one room.
    assert set(ROOMS) == {room for room in rooms if room in ROOMS or not room.startswith(("export/", "kernels/"))}


def test_the_rooms_of_the_page_are_in_the_order_of_the_layers():
    """From top to bottom, as the import contract in pyproject.toml has them."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.split(r"[:|]", layer) for layer in contracts[0]["layers"]]
    # A room in parentheses may exist one day.
    place = {name.strip(): depth for depth, names in enumerate(layers) for name in names if "(" not in name}
    rooms = [room.removeprefix(TOP).rstrip("/") for room in ROOMS if room.startswith(TOP) and room != TOP]
    depths = [place[room] for room in rooms]
    assert depths == sorted(depths)
    assert {*rooms, *modules(TOP)} == set(place)


@pytest.mark.parametrize(("names", "file"), RECORDS)
def test_every_record_is_where_the_page_says(names, file):
    defined = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.ClassDef)}
    assert set(re.findall(r"`(\w+)`", names)) <= defined


def test_the_top_of_the_package_holds_only_what_every_room_uses():
    assert len(list((ROOT / "melanoma_infer").glob("*.py"))) <= 12
