"""TIFFs of every origin: scored whole and in the colours they mean, or refused with what is wrong."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from slides_for_tests import smooth, write_svs

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.refusal import refusal

RGB = smooth(600, 520)
TILED = {"tile": (256, 256)}
MARKS = {
    "aperio": {"description": "Aperio Image Library v11.2.1\r\n600x520 (256x256) Q=95|AppMag = 20|MPP = 0.5"},
    "trestle": {"software": "MedScan", "description": "Background Color=E6E6E6;Objective Power=20"},
}
"""What OpenSlide recognises two scanners by."""


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


UNREAD = {
    "12 of 16 bits": (RGB.astype(np.uint16) * 16, {}, "16-bit integers"),
    "floats": ((RGB / 255).astype(np.float32), {}, "32-bit floating-point numbers"),
    "CMYK": (np.dstack([RGB, RGB[..., :1]]), {"photometric": "separated"}, "CMYK"),
    "CIELab": (RGB, {"photometric": "cielab"}, "CIELab"),
    "a fourth channel": (np.dstack([RGB, RGB[..., :1]]), {"extrasamples": ["unspecified"]}, "4 channels besides alpha"),
    "YCbCr": (RGB, {"photometric": "ycbcr"}, "YCbCr without compression"),
}


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("vendor", MARKS)
def test_a_scanners_mark_does_not_make_pixels_readable(tmp_path, vendor, kind):
    pixels, options, name = UNREAD[kind]
    assert name in refused(write(tmp_path / "s.tif", pixels, **options, **MARKS[vendor], **TILED))
    half = np.ascontiguousarray(pixels[::2, ::2])
    assert name in refused(write(tmp_path / "level.tif", RGB, (half, options), **MARKS[vendor], **TILED))


@pytest.mark.parametrize("bits", [16, 12])
def test_an_svs_in_jpeg_2000_of_more_than_8_bits_is_refused(tmp_path, bits):
    pixels = RGB.astype(np.uint16) << (bits - 8)
    path = write(tmp_path / "s.svs", pixels, compression="aperio_jp2000_rgb", **MARKS["aperio"], **TILED)
    assert "16-bit integers" in refused(path)


@pytest.mark.parametrize("compression", [None, "lzw", "jpeg"])
def test_a_grey_svs_is_read_as_the_grey_that_it_means(tmp_path, compression):
    for name, pixels in (("miniswhite", 255 - RGB[..., 0]), ("minisblack", RGB[..., 0])):
        path = tmp_path / f"{name}.svs"
        write(path, pixels, photometric=name, compression=compression, **MARKS["aperio"], **TILED)
        with open_slide(path) as slide:
            seen = slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels
        assert np.abs(seen.astype(int) - RGB[..., :1]).max() <= (6 if compression == "jpeg" else 0)


def test_labels_thumbnails_and_overview_pictures_of_an_svs_may_hold_anything(tmp_path):
    thumbnail = (RGB, {"compression": "jpeg", "tile": None})
    label = (RGB[..., 0].astype(np.uint16), {"photometric": "minisblack", "tile": None, "subfiletype": 1})
    larger = (np.tile(RGB, (2, 2, 1)), {"compression": "jpeg", "tile": None, "subfiletype": 9})
    path = write(tmp_path / "s.svs", RGB, thumbnail, RGB[::2, ::2], label, larger, **MARKS["aperio"], **TILED)
    with open_slide(path) as slide:
        assert slide.facts.level_sizes == (SizePx(600, 520), SizePx(300, 260))


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_a_palette_in_jpeg_is_refused_since_near_numbers_are_not_near_colours(tmp_path, layout):
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    options = {"photometric": "palette", "colormap": palette, "compression": "jpeg"}
    assert "a palette compressed with JPEG" in refused(write(tmp_path / "s.tif", RGB[..., 0], **options, **layout))


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_ycbcr_is_read_if_compressed_and_refused_if_not(tmp_path, layout):
    ycbcr = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    options = {"photometric": "ycbcr", "subsampling": (1, 1), **layout}
    assert "YCbCr without compression" in refused(write(tmp_path / "none.tif", ycbcr, **options))
    with open_slide(write(tmp_path / "lzw.tif", ycbcr, compression="lzw", **options)) as slide:
        seen = slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels
    assert np.abs(seen.astype(int) - RGB).max() <= 4


def test_a_big_endian_bigtiff_is_read_in_tiles_and_refused_by_name_in_strips(tmp_path):
    for name, layout in (("strips.tif", {}), ("tiles.tif", TILED)):
        with tifffile.TiffWriter(tmp_path / name, bigtiff=True, byteorder=">") as writer:
            writer.write(RGB, photometric="rgb", metadata=None, **layout)
    assert "BigTIFF in big-endian byte order without tiles" in refused(tmp_path / "strips.tif")
    with open_slide(tmp_path / "tiles.tif") as slide:
        np.testing.assert_array_equal(slide.read_rgb(0, RectPx(0, 0, 600, 520)).pixels, RGB)


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


STACK = np.stack([RGB, 255 - RGB, RGB // 2])
"""Three pictures of one size: focal planes, time points or scenes."""


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize("axes", ["ZYXS", "TYXS", "scenes", None])
def test_several_pictures_of_the_slides_size_are_refused(tmp_path, layout, axes):
    path = tmp_path / ("s.tif" if axes is None else "s.ome.tif")
    if axes in (None, "scenes"):
        with tifffile.TiffWriter(path, ome=axes is not None) as writer:
            for picture in STACK:
                writer.write(picture, photometric="rgb", **layout)
    else:
        tifffile.imwrite(path, STACK, ome=True, photometric="rgb", metadata={"axes": axes}, **layout)
    assert "3 pictures of 600 × 520 px" in refused(path)


def test_a_stack_by_another_writer_or_behind_one_page_is_refused(tmp_path):
    first, *others = (Image.fromarray(picture) for picture in STACK)
    first.save(tmp_path / "pillow.tif", save_all=True, append_images=others)
    write(tmp_path / "depth.tif", STACK[:, :512, :512], tile=(16, 256, 256))  # one page, tiles of 16 planes
    write(tmp_path / "imagej.tif", RGB, description="ImageJ=1.54f\nimages=3\nslices=3\nloop=false\n")
    for name in ("pillow.tif", "imagej.tif", "depth.tif"):
        assert "The file holds 3 pictures" in refused(tmp_path / name)


def test_focal_planes_in_other_files_of_an_ome_image_are_missed(tmp_path):
    text = '<OME><Image><Pixels SizeX="600" SizeY="520" SizeC="3" SizeZ="5" SizeT="1"/></Image></OME>'
    assert "5 pictures" in refused(write(tmp_path / "plane.ome.tif", RGB, description=text, **TILED))


def test_colours_in_palettes_of_their_own_are_refused(tmp_path):
    pages = []
    for channel in range(3):
        palette = np.zeros((3, 256), np.uint16)
        palette[channel] = np.arange(256) * 257
        pages.append((RGB[..., channel], {"colormap": palette}))
    assert "3 pictures" in refused(write(tmp_path / "s.tif", *pages, photometric="palette", **TILED))


def test_focal_planes_of_an_svs_are_refused(tmp_path):
    planes = [
        (each, {"description": f"{MARKS['aperio']['description']}|OffsetZ = {z}"}) for z, each in enumerate(STACK)
    ]
    assert "3 pictures of 600 × 520 px" in refused(write(tmp_path / "s.svs", *planes, compression="jpeg", **TILED))


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
def test_one_picture_with_its_mask_its_levels_or_alpha_is_the_slide(tmp_path, layout):
    mask = (RGB[..., 0] > 128, {"photometric": "mask", "subfiletype": 4})
    padded = (RGB, {"subfiletype": 1})  # a level in a tile as large as the slide
    grey = (RGB[..., 0], {"photometric": "minisblack"})
    write(tmp_path / "mask.tif", RGB, mask, **layout)
    write(tmp_path / "grey-mask.tif", RGB, grey, **layout)
    write(tmp_path / "padded.tif", RGB, padded, **layout)
    rgba = np.dstack([RGB, RGB[..., :1] | 255])
    for name, pixels, options in (("rgb", RGB, {}), ("rgba", rgba, {"extrasamples": ["unassalpha"]})):
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif", ome=True) as writer:
            half = np.ascontiguousarray(pixels[::2, ::2])
            writer.write(pixels, photometric="rgb", subifds=1, metadata={"axes": "YXS"}, **options, **layout)
            writer.write(half, photometric="rgb", subfiletype=1, **options, **layout)
    for name in ("mask.tif", "grey-mask.tif", "padded.tif", "rgb.ome.tif", "rgba.ome.tif"):
        with open_slide(tmp_path / name) as slide:
            assert slide.facts.size_l0 == SizePx(600, 520)


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
