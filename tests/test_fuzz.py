"""A stranger's bytes, damaged: every parser gives an answer or a refusal with its own exit code, never another error.

Native libraries that may crash are not given these bytes here: slides damaged for OpenSlide go through the command
line, in `test_prove.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_for_tests import write_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_models_for_tests import linear_onnx
from slides_for_tests import encoded, smooth, write_svs, write_tiff

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.graph_checks import check_graph, self_contained_model
from melanoma_infer.errors import MminferError
from melanoma_infer.geometry import SizePx
from melanoma_infer.patients.manifest import read_manifest
from melanoma_infer.slides.completeness import is_whole_tiff
from melanoma_infer.slides.dicom import dicom_facts, dicom_series
from melanoma_infer.slides.image_description import ome_scale
from melanoma_infer.slides.members import identify, members
from melanoma_infer.slides.tiff_pages import require_known_encoding, require_whole_picture
from melanoma_infer.tiles.mask_image import read_mask
from mminfer_export.card_toml import read_card
from mminfer_export.from_onnx import checked_model

pytestmark = pytest.mark.slow

Edit = tuple[str, float, int, bytes]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("overwrite", "insert", "delete", "repeat", "end")),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from((b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\x7f"))),
    ),
    min_size=1,
    max_size=6,
)
HEAD = 2048
"""Half of the edits are within the first bytes, where the structure of most files is."""
RECT = SizePx(320, 300)


def damaged(content: bytes, edits: list[Edit]) -> bytes:
    """The content after these edits."""
    for number, (kind, where, count, more) in enumerate(edits):
        at = int(where * min(len(content), HEAD if number % 2 else len(content)))
        match kind:
            case "overwrite":
                content = content[:at] + more + content[at + len(more) :]
            case "insert":
                content = content[:at] + more + content[at:]
            case "delete":
                content = content[:at] + content[at + count :]
            case "repeat":
                content = content[:at] + content[at : at + count] * 2 + content[at + count :]
            case "end":
                content = content[: at + 1]
    return content


def examples(count: int) -> settings:
    return settings(
        deadline=None, max_examples=count, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def refused_or_answered(parse, *arguments: object) -> None:
    """Call a parser; a refusal must have an exit code of its own: 1 is a bug."""
    try:
        parse(*arguments)
    except MminferError as error:
        refusal = error
    else:
        return
    assert refusal.exit_code > 1, refusal
    assert str(refusal).endswith((".", ")")), refusal


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory):
    """A scanner's file, a plain one, and both as bytes."""
    folder = tmp_path_factory.mktemp("tiffs")
    pixels = smooth(RECT.width, RECT.height)
    files = [write_svs(folder / "s.svs", pixels), write_tiff(folder / "p.tif", pixels, levels=2)]
    return [file.read_bytes() for file in files]


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    path = tmp_path_factory.mktemp("dicom") / "slide.dcm"
    return write_dicom(path, smooth(256, 256), series="1.2.3", refers="1.2.4").read_bytes()


@pytest.fixture(scope="module")
def card():
    return open_bundle("demo").card


@pytest.mark.parametrize(("which", "vendor"), [(0, "aperio"), (1, "generic-tiff")])
@given(edits=EDITS)
@examples(1200)
def test_tiff_facts(tiffs, tmp_path, which, vendor, edits):
    path = tmp_path / "slide.tif"
    path.write_bytes(damaged(tiffs[which], edits))
    refused_or_answered(is_whole_tiff, path)
    refused_or_answered(require_known_encoding, path, vendor)
    refused_or_answered(require_whole_picture, path, vendor, RECT)


@given(edits=EDITS)
@examples(1500)
def test_dicom_facts(dicom, tmp_path, edits):
    path = tmp_path / "slide.dcm"
    path.write_bytes(damaged(dicom, edits))
    refused_or_answered(dicom_facts, path)
    refused_or_answered(dicom_series, path)
    refused_or_answered(members, path)
    refused_or_answered(lambda: identify(path, None))


MANIFEST = (
    "\ufeffslide;ID;case_id; Age ;sex;site;ulceration;mpp\r\n"
    'a.svs;A-1;C1;63;F;"upper limb";yes;0,25\r\n"deep/b ""two"".svs";B;C2;;male;trunk;;\r\n'
).encode()


@given(edits=EDITS)
@examples(3000)
def test_manifest(tmp_path, card, edits):
    path = tmp_path / "patients.csv"
    path.write_bytes(damaged(MANIFEST, edits))
    refused_or_answered(read_manifest, path, card)


@given(
    header=st.lists(st.sampled_from(("slide", "Slide ", "id", "age", "sex", "mpp", "stain", "x", "")), max_size=6),
    rows=st.lists(st.lists(st.text(max_size=12), max_size=7), max_size=4),
    separator=st.sampled_from(",;\t|"),
)
@examples(2000)
def test_manifest_of_any_cells(tmp_path, card, header, rows, separator):
    path = tmp_path / "patients.csv"
    lines = [separator.join(cells) for cells in (header, *rows)]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    refused_or_answered(read_manifest, path, card)


CARD = Path(__file__).resolve().parents[1] / "melanoma_infer" / "bundle" / "demo.mminfer" / "card.json"
TOML = b"""
name = "ours"
classes = ["none", "melanoma"]
malignant = ["melanoma"]
tile_px = 256
tile_um = 512.0
mean = [0.8, 0.7, 0.8]
std = [0.2, 0.2, 0.2]
resize = "reduce-bilinear"
threshold = 0.5
[[patient_fields]]
name = "sex"
values = ["female", "male"]
"""


@given(edits=EDITS)
@examples(3000)
def test_card_of_the_user(tmp_path, edits):
    path = tmp_path / "card.toml"
    path.write_bytes(damaged(TOML, edits))
    refused_or_answered(read_card, path)


@given(edits=EDITS)
@examples(1500)
def test_onnx_checks(edits, card):
    content = damaged(linear_onnx(ending="Softmax").SerializeToString(), edits)
    refused_or_answered(self_contained_model, content)
    refused_or_answered(check_graph, content, card)
    refused_or_answered(checked_model, content)


MASKS = {kind: encoded((smooth(64, 40) > 128).astype(np.uint8) * 255, kind) for kind in ("PNG", "TIFF", "JPEG")}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of a damaged tag, and reads on
@pytest.mark.parametrize("kind", MASKS)
@given(edits=EDITS)
@examples(1500)
def test_masks(tmp_path, kind, edits):
    path = tmp_path / "mask.png"
    path.write_bytes(damaged(MASKS[kind], edits))
    refused_or_answered(read_mask, path, (40, 64), SizePx(640, 400))


OME = (
    b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    b'<Pixels ID="Pixels:0" SizeX="320" SizeY="300" PhysicalSizeX="0.25" PhysicalSizeXUnit="\xc2\xb5m" '
    b'PhysicalSizeY="250" PhysicalSizeYUnit="nm" DimensionOrder="XYCZT" Type="uint8"/></Image></OME>'
)


@given(edits=EDITS)
@examples(3000)
def test_ome_xml(edits):
    refused_or_answered(ome_scale, damaged(OME, edits).decode("utf-8", "replace"), RECT)
