"""Plain images as slides: their pixels, the modes that are refused, and what damaged ones raise."""

import os
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from slides_for_tests import encoded, noise, smooth, solid, write_image

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.slides.image_reader import ImageReader

WHOLE = RectPx(0, 0, 31, 23)


def pixels_of(path, rect=WHOLE):
    with ImageReader(path) as slide:
        return slide.read_region(0, rect)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_images_give_their_pixels(tmp_path, suffix):
    rgb = noise(31, 23)
    path = write_image(tmp_path / f"image{suffix}", rgb)
    assert (pixels_of(path)[..., 3] == 255).all()
    np.testing.assert_array_equal(pixels_of(path)[..., :3], rgb)
    np.testing.assert_array_equal(pixels_of(path, RectPx(4, 7, 9, 5))[..., :3], rgb[7:12, 4:13])


def test_an_image_is_read_whatever_its_suffix_says(tmp_path):
    Image.fromarray(noise(31, 23)).save(tmp_path / "a.tif", "WEBP", lossless=True)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif")[..., :3], noise(31, 23))


def test_facts_are_the_size_one_level_and_no_scale(tmp_path):
    with ImageReader(write_image(tmp_path / "image.png", solid(31, 23))) as slide:
        facts = slide.facts
    assert (facts.size_l0, facts.level_sizes, facts.level_downsamples) == (SizePx(31, 23), (SizePx(31, 23),), (1.0,))
    assert (facts.scale, facts.objective_power, facts.quickhash, facts.is_phantom) == (None, None, None, False)


def test_a_resolution_tag_of_an_image_is_never_a_scale(tmp_path):
    Image.fromarray(solid(31, 23)).save(tmp_path / "image.png", dpi=(50800, 50800))
    with ImageReader(tmp_path / "image.png") as slide:
        assert slide.facts.scale is None


def test_grey_palette_and_transparent_images_become_rgba(tmp_path):
    grey = noise(31, 23)[..., 0]
    np.testing.assert_array_equal(pixels_of(write_image(tmp_path / "grey.png", grey))[..., 1], grey)
    rgba = np.random.default_rng(0).integers(0, 256, (23, 31, 4), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(write_image(tmp_path / "rgba.png", rgba)), rgba)
    Image.fromarray(solid(31, 23, (12, 200, 7))).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert np.unique(pixels_of(tmp_path / "p.png").reshape(-1, 4), axis=0).tolist() == [[12, 200, 7, 255]]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "I;16"), ("a.tif", "I;16"), ("a.tif", "F"), ("a.jpg", "CMYK"), ("a.png", "1")]
)
def test_images_that_are_not_8_bit_rgb_are_refused_by_mode(tmp_path, name, mode):
    Image.new(mode, (31, 23)).save(tmp_path / name)
    with pytest.raises(SlideFormatError, match="8-bit"):
        ImageReader(tmp_path / name)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_refused_although_pillow_reads_its_upper_8(tmp_path, channels):
    deep = noise(31, 23)[..., [0, 1, 2, 0]][..., :channels].astype(np.uint16) * 16
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(np.squeeze(deep))))
    with pytest.raises(SlideFormatError, match="are 16-bit"):
        ImageReader(tmp_path / "deep.png")


def test_the_colour_space_of_a_refused_image_is_named(tmp_path):
    Image.new("CMYK", (31, 23)).save(tmp_path / "a.jpg")
    with pytest.raises(SlideFormatError, match=r"8-bit grey or RGB.* are CMYK"):
        ImageReader(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", [1, 6, 77])
def test_an_image_that_exif_turns_is_refused(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(solid(31, 23)).save(tmp_path / name, exif=exif)
    if orientation == 6:
        with pytest.raises(SlideFormatError, match="EXIF orientation 6"):
            ImageReader(tmp_path / name)
    else:
        assert pixels_of(tmp_path / name).shape == (23, 31, 4)


def test_exif_that_makes_no_sense_turns_nothing(tmp_path):
    Image.fromarray(solid(31, 23)).save(tmp_path / "a.jpg", exif=b"Exif\0\0XX*\0junk")
    assert pixels_of(tmp_path / "a.jpg").shape == (23, 31, 4)


def test_transparent_palettes_and_grey_with_alpha_keep_their_alpha(tmp_path):
    grey = Image.fromarray(noise(31, 23)[..., :2].copy(), "LA")
    grey.save(tmp_path / "la.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "la.png")[..., [0, 3]], noise(31, 23)[..., :2])
    palette = Image.fromarray(noise(31, 23)).quantize(4)
    palette.save(tmp_path / "p.png", transparency=bytes([0, 128, 255, 255]))
    np.testing.assert_array_equal(
        pixels_of(tmp_path / "p.png")[..., 3], np.array([0, 128, 255, 255], np.uint8)[np.asarray(palette)]
    )


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = write_image(tmp_path / "large.png", solid(200, 100))
    for most in (19_999, 9_000):  # Pillow warns beyond the first, and refuses at twice as many
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(SlideFormatError, match=f"more than {most} pixels"):
            ImageReader(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused_and_never_half_read(tmp_path, kind, share):
    whole = encoded(smooth(131, 123), kind)
    path = tmp_path / "image.png"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises((SlideUnreadableError, SlideFormatError)):
        ImageReader(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_flipped_bytes_give_pixels_or_an_error_of_ours_and_no_warning(tmp_path, kind):
    whole, rng = encoded(smooth(48, 40), kind), np.random.default_rng(1)
    refused = 0
    for i in range(100):
        content = bytearray(whole)
        for _ in range(3):
            content[rng.integers(0, min(300, len(content)))] = rng.integers(0, 256)
        path = tmp_path / f"{i}.png"
        path.write_bytes(content)
        try:
            assert pixels_of(path, RectPx(0, 0, 1, 1)).dtype == np.uint8
        except (SlideUnreadableError, SlideFormatError):
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "error", [OSError, EOFError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error]
)
def test_whatever_pillow_raises_on_a_damaged_image_becomes_ours(tmp_path, monkeypatch, error):
    """Seen on flipped bytes: OSError, SyntaxError, ValueError, and OverflowError from a TIFF's strip offsets."""
    path = write_image(tmp_path / "image.png", solid(31, 23))

    def fails(*_args, **_kwargs):
        raise error("broken")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(SlideUnreadableError, match="damaged or incomplete"):
        ImageReader(path)


def test_an_image_that_has_changed_is_read_again(tmp_path):
    path = write_image(tmp_path / "image.png", solid(31, 23, (1, 2, 3)))
    assert pixels_of(path)[0, 0].tolist() == [1, 2, 3, 255]
    write_image(path, solid(31, 23, (9, 8, 7)))
    os.utime(path, ns=(1, 1))
    assert pixels_of(path)[0, 0].tolist() == [9, 8, 7, 255]
