"""Slides that hold the same bytes."""

import os

from melanoma_infer.slides.duplicates import same_bytes
from melanoma_infer.slides.members import MEBIBYTE


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_copies_are_found_whatever_they_are_called(tmp_path):
    one, two, three = (write(tmp_path / name / "1.svs", b"slide") for name in ("a", "b", "c"))
    other = write(tmp_path / "other.svs", b"Slide")
    longer = write(tmp_path / "longer.svs", b"slide ")
    assert same_bytes([one, other, two, longer, three]) == [[one, two, three]]


def test_one_byte_in_the_middle_makes_another_slide(tmp_path):
    content = bytearray(os.urandom(3 * MEBIBYTE))
    one, same = (write(tmp_path / name, bytes(content)) for name in ("one.svs", "same.svs"))
    content[len(content) // 2] ^= 1
    other = write(tmp_path / "other.svs", bytes(content))
    assert same_bytes([one, other, same]) == [[one, same]]


def test_slides_that_cannot_be_read_are_left_to_scoring(tmp_path):
    assert same_bytes([tmp_path / "none.svs", tmp_path / "neither.svs"]) == []
