"""The suffixes of slide files, in small letters. The search in folders goes by them, readers by the content."""

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".tif", ".tiff", ".svslide", ".bif", ".czi", ".dcm",
)  # fmt: skip
"""Suffixes of the formats that OpenSlide reads."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Suffixes of files that are opened as plain images if OpenSlide does not recognise them."""
