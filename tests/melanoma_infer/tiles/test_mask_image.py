"""Masks as other programs write them: the same tissue whatever the file's pixels are, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import SizePx
from melanoma_infer.tiles.mask_image import read_mask, require_not_inverted

SHAPE = np.zeros((40, 60), bool)
SHAPE[10:30, 20:50] = True
COLOURED = np.where(SHAPE[..., None], (200, 30, 90), 0).astype(np.uint8)


def read(path):
    return read_mask(path, SHAPE.shape, SizePx(600, 400))


def with_alpha(colours, alpha):
    return np.dstack([colours, alpha]).astype(np.uint8)


def palette(path):
    image = Image.fromarray(SHAPE.astype(np.uint8) * 3)
    image.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 1])
    image.save(path)


WHITE = np.full((*SHAPE.shape, 3), 255)
PNG = {
    "8-bit label": SHAPE.astype(np.uint8),
    "16-bit label": SHAPE.astype(np.uint16),
    "16-bit white": SHAPE * np.uint16(65535),
    "coloured": COLOURED,
    "dark blue": SHAPE[..., None] * np.array((0, 0, 1), np.uint8),
    "white on transparent": with_alpha(WHITE, SHAPE * 255),
    "half transparent": with_alpha(WHITE, SHAPE * 90),
    "coloured, opaque": with_alpha(COLOURED, np.full(SHAPE.shape, 255)),
    "grey with alpha": np.dstack([np.full(SHAPE.shape, 255), SHAPE * 255]).astype(np.uint8),
}
TIFF = {
    "shares": SHAPE * np.float32(0.9),
    "small shares": SHAPE * np.float32(0.004),
    "0 to 255": SHAPE * np.float32(255),
    "16-bit": SHAPE.astype(np.uint16),
    "32-bit label": SHAPE * np.int32(70_000),
}


@pytest.mark.parametrize("pixels", PNG.values(), ids=PNG)
def test_a_png_mask_is_the_tissue(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read(tmp_path / "mask.png"), SHAPE)


@pytest.mark.parametrize("pixels", TIFF.values(), ids=TIFF)
def test_a_tiff_mask_is_the_tissue(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "mask.tif", pixels)
    np.testing.assert_array_equal(read(tmp_path / "mask.tif"), SHAPE)


def test_labels_with_a_palette_and_one_bit_a_pixel_are_the_tissue(tmp_path):
    palette(tmp_path / "palette.png")
    Image.fromarray(SHAPE).save(tmp_path / "bits.png")
    Image.fromarray(np.where(SHAPE, 1, 7).astype(np.uint8)).save(tmp_path / "index.png", transparency=7)
    for name in ("palette.png", "bits.png", "index.png"):
        np.testing.assert_array_equal(read(tmp_path / name), SHAPE)


@pytest.mark.parametrize(
    "pixels",
    [
        with_alpha(np.zeros_like(WHITE), SHAPE * 255),
        with_alpha(WHITE, np.zeros(SHAPE.shape)),
    ],
    ids=["black on transparent", "all transparent"],
)
def test_a_mask_that_is_black_and_transparent_throughout_is_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(UsageError, match="black or transparent"):
        read(tmp_path / "mask.png")


def test_an_opaque_black_mask_says_that_there_is_no_tissue(tmp_path):
    Image.fromarray(np.zeros(SHAPE.shape, np.uint8)).save(tmp_path / "mask.png")
    assert not read(tmp_path / "mask.png").any()


@pytest.mark.parametrize("odd", [np.nan, -1.0, np.inf])
def test_numbers_that_are_no_mask_are_refused(tmp_path, odd):
    tifffile.imwrite(tmp_path / "mask.tif", np.where(SHAPE, 1.0, odd).astype(np.float32))
    with pytest.raises(UsageError, match="NaN"):
        read(tmp_path / "mask.tif")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_labels_in_colours_of_16_bits_are_refused_and_not_lost(tmp_path, channels):
    imagecodecs = pytest.importorskip("imagecodecs")
    labels = np.dstack([SHAPE] * channels).astype(np.uint16)
    labels[..., 3 if channels == 4 else 1] |= 65535 if channels in (2, 4) else 0
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(labels))
    with pytest.raises(UsageError, match="16 bits"):
        read(tmp_path / "mask.png")


def test_a_jpeg_is_refused_since_its_artefacts_would_be_tissue(tmp_path):
    Image.fromarray(SHAPE.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=50)
    with pytest.raises(UsageError, match="is a JPEG"):
        read(tmp_path / "mask.jpg")


def test_a_mask_without_a_background_is_refused(tmp_path):
    white = Image.fromarray(np.where(SHAPE, 1, 0).astype(np.uint8))
    white.putpalette([255, 255, 255, 200, 30, 90])  # a white background
    white.save(tmp_path / "palette.png")
    Image.fromarray(np.where(SHAPE[..., None], (200, 30, 90), 255).astype(np.uint8)).save(tmp_path / "rgb.png")
    for name in ("palette.png", "rgb.png"):
        with pytest.raises(UsageError, match="marks the whole slide"):
            read(tmp_path / name)


def test_a_mask_of_several_pictures_is_refused(tmp_path):
    masks = np.stack([SHAPE, ~SHAPE]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "two.tif", masks, photometric="minisblack")
    first, second = (Image.fromarray(mask * 255) for mask in masks)
    first.save(tmp_path / "two.png", save_all=True, append_images=[second])
    first.save(tmp_path / "larger.tif", save_all=True, append_images=[second.resize((120, 80))])
    first.save(tmp_path / "another.tif", save_all=True, append_images=[second.resize((20, 20))])
    for name in ("two.tif", "two.png", "larger.tif", "another.tif"):
        with pytest.raises(UsageError, match="holds 2 pictures, and number 2"):
            read(tmp_path / name)


def test_a_mask_whose_second_page_has_no_width_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.stack([SHAPE, SHAPE]).astype(np.uint8), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        place = tiff.pages[1].tags["ImageWidth"].offset
    content = bytearray((tmp_path / "mask.tif").read_bytes())
    content[place : place + 2] = (60000).to_bytes(2, "little")
    (tmp_path / "mask.tif").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "mask.tif")


def test_smaller_levels_of_a_mask_are_no_other_pictures(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        for step in (1, 2, 4, 8):
            level = np.ascontiguousarray(SHAPE[::step, ::step].astype(np.uint8))
            writer.write(level, photometric="minisblack", subfiletype=int(step > 1), metadata=None)
    np.testing.assert_array_equal(read(tmp_path / "pyramid.tif"), SHAPE)


RIGHT_HALF = np.arange(60) >= 30
PART_OF_SHAPE = SHAPE & ~RIGHT_HALF


@pytest.mark.parametrize("mask", [~SHAPE, ~SHAPE | PART_OF_SHAPE], ids=["inverted", "of a part, inverted"])
def test_a_mask_of_the_background_is_refused_as_inverted(mask):
    with pytest.raises(UsageError, match="it seems to be inverted"):
        require_not_inverted(mask, SHAPE)


def test_masks_that_mark_tissue_are_not_taken_for_inverted():
    artefact = np.zeros_like(SHAPE)
    artefact[12:16, 22:30] = True
    nothing, right_half = np.zeros_like(SHAPE), np.broadcast_to(RIGHT_HALF, SHAPE.shape)
    for mask in (SHAPE, PART_OF_SHAPE, nothing, right_half, ~right_half, ~artefact, artefact):
        require_not_inverted(mask, SHAPE)
    for found in (nothing, ~nothing):  # fluorescence, or tissue to the edges: there is nothing to compare with
        require_not_inverted(~SHAPE, found)
