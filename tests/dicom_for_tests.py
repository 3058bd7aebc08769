"""DICOM files written by pydicom: whole-slide images that OpenSlide opens, and files of other kinds."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MediaStorageDirectoryStorage,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)
from slides_for_tests import Rgb, encoded

SIDE_PX = 256
RESAMPLED = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
"""ImageType of a level that was made from one of higher resolution."""


def write_dicom(
    path: Path,
    rgb: Rgb,
    *,
    series: str,
    study: str = "1.2.826.0.1.3680043.8.498.1",
    shows: str = "VOLUME",
    um_per_px: float = 0.5,
    refers: str | None = None,
    **tags: object,
) -> Path:
    """A whole-slide image with one JPEG frame for each 256 px.

    Args:
        path: where to.
        rgb: uint8 (h, w, 3); whole frames.
        series: its SeriesInstanceUID.
        study: its StudyInstanceUID.
        shows: VOLUME, LABEL, OVERVIEW, …
        um_per_px: the scale.
        refers: a series named in a sequence that comes before the file's own in the bytes.
        tags: other values than the usual ones, by keyword.
    """
    height, width = rgb.shape[:2]
    corners = [(x, y) for y in range(0, height, SIDE_PX) for x in range(0, width, SIDE_PX)]
    frames = [encoded(rgb[y : y + SIDE_PX, x : x + SIDE_PX], "JPEG") for x, y in corners]
    data = _identified(VLWholeSlideMicroscopyImageStorage, series, study)
    data.ImageType = ["ORIGINAL", "PRIMARY", shows, "NONE"]
    if refers:
        data.ReferencedSeriesSequence = _items(SeriesInstanceUID=refers)
    data.Modality, data.Manufacturer, data.PatientID, data.ContainerIdentifier = "SM", "x", "P", "C"
    data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.2"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL_422", 0
    data.Rows = data.Columns = SIDE_PX
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.NumberOfFrames, data.NumberOfOpticalPaths = len(frames), 1
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows, data.TotalPixelMatrixFocalPlanes = width, height, 1
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * um_per_px / 1000, height * um_per_px / 1000
    data.ImagedVolumeDepth, data.ImageOrientationSlide = 0.001, [0, -1, 0, -1, 0, 0]
    data.DimensionOrganizationType = "TILED_FULL"
    data.OpticalPathSequence = _items(OpticalPathIdentifier="1")
    measures = _items(PixelSpacing=[um_per_px / 1000] * 2, SliceThickness=0.001)
    data.SharedFunctionalGroupsSequence = _items(PixelMeasuresSequence=measures)
    data.TotalPixelMatrixOriginSequence = _items(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
    return path


def with_tags(path: Path, **tags: object) -> Path:
    """A DICOM file, in which some tags get other values."""
    data = dcmread(path)
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def write_header(
    path: Path,
    series: str,
    *,
    kind: UID = VLWholeSlideMicroscopyImageStorage,
    refers: tuple[str, str] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """A DICOM file without pixels; `refers` is a sequence, and the series that it names."""
    data = _identified(kind, series, "1.2.826.0.1.3680043.8.498.1")
    data.file_meta.TransferSyntaxUID = syntax
    if refers:
        setattr(data, refers[0], _items(SeriesInstanceUID=refers[1]))
    data.save_as(path, enforce_file_format=True)
    return path


def write_ct(path: Path) -> Path:
    """A DICOM file of another kind."""
    return write_header(path, "1.2.3.77", kind=CTImageStorage)


def write_directory(path: Path) -> Path:
    """The index of a medium, DICOMDIR, as exports carry it beside the images: its kind is in the file's meta header."""
    data = _identified(MediaStorageDirectoryStorage, "", "")
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        delattr(data, name)
    data.FileSetID = "DISK"
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def _identified(kind: UID, series: str, study: str) -> Dataset:
    data, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.file_meta = meta
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    return data


def _items(**tags: object) -> Sequence:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])
