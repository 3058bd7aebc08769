"""TIFFs without a scanner's mark: scored whole and in colour, or refused with what is wrong."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
import tifffile
from slides_for_tests import smooth, write_svs

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.refusal import refusal

RGB = smooth(600, 520)
TILED = {"tile": (256, 256)}


def write(path, *pages, **options):
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            pixels, own = page if isinstance(page, tuple) else (page, {})
            writer.write(pixels, **{"photometric": "rgb", "metadata": None, **options, **own})
    return path


def refused(path):
    with pytest.raises(SlideFormatError) as caught, open_slide(path):
        pass
    return str(caught.value)


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("compression", "name"), [("webp", "WebP"), (33005, "JPEG 2000"), (34712, "JPEG 2000"), ("jpegxl", "JPEG XL")]
)
def test_a_compression_that_cannot_be_read_is_named(tmp_path, layout, compression, name):
    message = refused(write(tmp_path / "s.tif", RGB, compression=compression, **layout))
    assert f"compressed with {name}, which cannot be read" in message
    assert "8-bit RGB" in message


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        ((RGB / 255).astype(np.float32), "32-bit floating-point numbers"),
        ((RGB / 255).astype(np.float16), "16-bit floating-point numbers"),
        (RGB.astype(np.uint32), "32-bit integers"),
        (RGB.astype(np.int16), "16-bit signed integers"),
        (RGB.astype(np.uint16) * 16, "16-bit integers"),  # 12 bits, as many cameras write them
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_cannot_be_read_are_named(tmp_path, layout, pixels, name):
    assert f"The slide's pixels are {name}" in refused(write(tmp_path / "s.tif", pixels, **layout))


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_grey_of_more_or_fewer_than_8_bits_is_refused(tmp_path, layout, photometric):
    for name, pixels in (("16-bit", RGB[..., 0].astype(np.uint16) * 16), ("1-bit", RGB[..., 0] > 128)):
        path = write(tmp_path / f"{name}.tif", pixels, photometric=photometric, **layout)
        assert f"{name} integers" in refused(path)


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_grey_and_palettes_of_8_bits_are_read_as_the_colours_they_mean(tmp_path, layout):
    grey = RGB[..., 0]
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    for name, pixels, options, meant in (
        ("white is zero", 255 - grey, {"photometric": "miniswhite"}, np.dstack([grey] * 3)),
        ("black is zero", grey, {"photometric": "minisblack"}, np.dstack([grey] * 3)),
        ("palette", grey, {"photometric": "palette", "colormap": palette}, (palette >> 8).T[grey]),
    ):
        with open_slide(write(tmp_path / f"{name}.tif", pixels, **options, **layout)) as slide:
            np.testing.assert_array_equal(slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels, meant)


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("photometric", "channels", "name"),
    [("cielab", 3, "CIELab"), ("icclab", 3, "ICCLab"), ("separated", 4, "CMYK"), (32844, 3, "colour space 32844")],
)
def test_a_colour_space_that_is_not_read_is_named(tmp_path, layout, photometric, channels, name):
    """OpenSlide reads some of them, in other colours than they mean."""
    pixels = np.dstack([RGB, RGB])[..., :channels]
    assert name in refused(write(tmp_path / "s.tif", pixels, photometric=photometric, **layout))


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_a_fourth_channel_is_alpha_only_where_the_file_says_so(tmp_path, layout):
    """OpenSlide takes it for alpha in any case: a fluorescence channel made the tissue transparent."""
    four = np.dstack([RGB, np.full_like(RGB[..., 0], 128)])
    unstated = write(tmp_path / "unstated.tif", four, extrasamples=["unspecified"], **layout)
    assert "4 channels besides alpha in place of 3" in refused(unstated)
    for kind, colours in (("unassalpha", RGB), ("assocalpha", RGB // 2)):
        four[..., :3] = colours
        with open_slide(write(tmp_path / f"{kind}.tif", four, extrasamples=[kind], **layout)) as slide:
            seen = slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels
        assert np.abs(seen - (RGB * (128 / 255) + 127)).max() < 3  # half of it, over white


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "zstd", "packbits"])
def test_encodings_that_can_be_read_give_the_pixels(tmp_path, compression):
    for name, layout in (("strips.tif", {}), ("tiles.tif", TILED)):
        with open_slide(write(tmp_path / name, RGB, compression=compression, **layout)) as slide:
            np.testing.assert_array_equal(slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels, RGB)


def test_a_scanners_file_in_an_encoding_that_openslide_lacks_is_not_called_damaged(tmp_path):
    slide = write_svs(tmp_path / "s.svs", RGB, compression="jpegxl")
    assert "its compression is JPEG XL" in refused(slide)
    assert "Unsupported transfer syntax 1.2.3" in str(refusal(slide, "Unsupported transfer syntax 1.2.3"))
    assert refusal(slide, "Not a JPEG file").exit_code == 10


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_in_pages_of_their_own_are_refused(tmp_path, layout, channels):
    planes = np.moveaxis(np.dstack([RGB, RGB])[..., :channels], 2, 0)
    pages = write(tmp_path / "pages.tif", *planes, photometric="minisblack", **layout)
    assert f"{channels} grey pages of 600 × 520 px" in refused(pages)
    ome = tmp_path / "planes.ome.tif"
    tifffile.imwrite(ome, planes, ome=True, photometric="minisblack", metadata={"axes": "CYX"}, **layout)
    assert f"{channels} grey pages" in refused(ome)


def test_colours_in_other_files_of_an_ome_image_are_missed(tmp_path):
    text = '<OME><Image><Pixels SizeX="600" SizeY="520" SizeC="3"/></Image></OME>'
    assert "3 grey pages" in refused(
        write(tmp_path / "red.ome.tif", RGB[..., 0], photometric="minisblack", description=text, **TILED)
    )


def test_an_imagej_stack_behind_one_page_is_refused(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.moveaxis(RGB, 2, 0), imagej=True, metadata={"axes": "CYX"})
    assert "3 grey pages" in refused(path)


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_are_no_colours_are_refused(tmp_path, channels):
    pixels = np.dstack([RGB, RGB])[..., :channels]
    path = write(tmp_path / "s.tif", pixels, photometric="minisblack", planarconfig="contig", **TILED)
    assert f"{channels} channels without a colour" in refused(path)


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("where", ["next page", "last page", "SubIFD"])
def test_a_later_page_that_is_larger_is_named(tmp_path, layout, where):
    small = np.ascontiguousarray(RGB[::4, ::4])
    pages = {
        "next page": [small, RGB],
        "last page": [small, np.ascontiguousarray(RGB[::8, ::8]), RGB],
        "SubIFD": [(small, {"subifds": 1}), (RGB, {"subfiletype": 1})],
    }[where]
    message = refused(write(tmp_path / "s.tif", *pages, **layout))
    assert f"page {3 if where == 'last page' else 2} is larger, 600 × 520 px" in message


def test_smaller_pages_and_a_grey_slide_are_no_reason(tmp_path):
    half = np.ascontiguousarray(RGB[::2, ::2])
    grey = np.ascontiguousarray(half[..., 0])
    for name, pages in (
        ("pyramid.tif", [RGB, (half, {"subfiletype": 1})]),
        ("with-masks.tif", [RGB, (grey, {"photometric": "minisblack"}), (grey, {"photometric": "minisblack"})]),
        ("grey.tif", [(RGB[..., 0], {"photometric": "minisblack"}), (grey, {"photometric": "minisblack"})]),
        ("alpha.tif", [(np.dstack([RGB, RGB[..., :1] | 255]), {"extrasamples": ["unassalpha"]})]),
    ):
        with open_slide(write(tmp_path / name, *pages, **TILED)) as slide:
            assert slide.facts.size_l0 == SizePx(600, 520)


@pytest.mark.parametrize("orientation", [2, 3, 6])
@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_a_turned_picture_is_refused(tmp_path, layout, orientation):
    turned = [(274, "H", 1, orientation, True)]
    message = refused(write(tmp_path / "s.tif", RGB, compression="deflate", extratags=turned, **layout))
    assert f"TIFF orientation {orientation}" in message


def test_an_orientation_of_1_is_read(tmp_path):
    upright = [(274, "H", 1, 1, True)]
    with open_slide(write(tmp_path / "s.tif", RGB, compression="deflate", extratags=upright, **TILED)) as slide:
        np.testing.assert_array_equal(slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels, RGB)


def test_pages_that_lead_back_to_an_earlier_page_are_damage(tmp_path):
    path = write(tmp_path / "s.tif", RGB, RGB[::2, ::2], compression="deflate", **TILED)
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    second = struct.unpack_from("<I", content, first + 2 + 12 * struct.unpack_from("<H", content, first)[0])[0]
    struct.pack_into("<I", content, second + 2 + 12 * struct.unpack_from("<H", content, second)[0], first)
    path.write_bytes(content)
    with pytest.raises(SlideUnreadableError, match="damaged"):
        open_slide(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "s.svs")
    assert "no regular file" in refused(tmp_path / "s.svs")
