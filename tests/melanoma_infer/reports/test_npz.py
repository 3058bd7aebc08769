"""Archives of arrays: what is worth deflating is deflated, and everything comes back as it was."""

import zipfile

import numpy as np

from melanoma_infer.reports.npz import packed, unpacked


def test_masks_are_deflated_and_maps_are_stored_and_both_come_back_the_same(tmp_path):
    noise = np.random.default_rng(0)
    arrays = {
        "mask": noise.random((300, 300)) > 2,
        "maps": noise.random((40, 3, 16, 16), np.float32),
        "picture": noise.integers(0, 256, 50_000, np.uint8),
        "none": np.zeros((0, 4)),
        "scale": np.float64(0.5),
    }
    path = tmp_path / "arrays.npz"
    path.write_bytes(packed(arrays))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        deflated = {entry.filename for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_DEFLATED}
    assert "mask.npy" in deflated
    assert not deflated & {"maps.npy", "picture.npy"}
    again = unpacked(path)
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert (again[name].dtype, again[name].shape) == (np.asarray(array).dtype, np.shape(array))
        np.testing.assert_array_equal(again[name], array)
    assert packed(arrays) == path.read_bytes()
