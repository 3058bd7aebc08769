"""Frames of every kind become the same pixels."""

import sys

import numpy as np
import pytest

from melanoma_infer.errors import UsageError
from melanoma_infer.scan.frames import host_pixels

FRAME = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)


class OfDlpack:
    """An array that offers DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **named):
        return self._array.__dlpack__(**named)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnGpu:
    """An array that says that it is in GPU memory."""

    def __init__(self):
        self.__cuda_array_interface__ = {
            "version": 3, "shape": FRAME.shape, "typestr": "|u1", "data": (4096, False), "stream": None,
        }  # fmt: skip


@pytest.mark.parametrize("kind", [np.asarray, OfDlpack, memoryview], ids=["numpy", "dlpack", "buffer"])
def test_every_kind_of_array_gives_its_pixels(kind):
    assert np.array_equal(host_pixels(kind(FRAME), "RGB"), FRAME)


def test_blue_first_channels_are_turned_and_alpha_stays_last():
    assert np.array_equal(host_pixels(FRAME, "BGR"), FRAME[..., ::-1])
    four = np.concatenate([FRAME, FRAME[..., :1]], axis=2)
    assert np.array_equal(host_pixels(four, "BGRA"), four[..., [2, 1, 0, 3]])


def test_what_is_no_array_is_refused():
    with pytest.raises(UsageError, match="object"):
        host_pixels(object(), "RGB")


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's name is Linux's")
def test_a_frame_on_a_gpu_without_a_driver_says_what_to_do():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    with pytest.raises(UsageError, match="no NVIDIA driver here"):
        host_pixels(OnGpu(), "RGB")


@pytest.mark.gpu
def test_a_frame_on_a_gpu_is_copied_after_its_stream():
    import torch

    frame = torch.from_numpy(FRAME).cuda()
    assert np.array_equal(host_pixels(frame, "RGB"), FRAME)
    assert np.array_equal(host_pixels(OfDlpack(frame), "RGB"), FRAME)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        later = frame + 1
        pixels = host_pixels(later, "RGB")
    assert np.array_equal(pixels, FRAME + 1)
