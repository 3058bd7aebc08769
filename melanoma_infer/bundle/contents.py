"""The files of a bundle, every byte of which has been hashed. What parses them comes after.

This imports little, so that a program can read a bundle in a thread while it imports the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from melanoma_infer.errors import BundleError

PACKAGED = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"

READERS = 2
"""Files of a bundle that are read and hashed in parallel."""

_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)\n")


@dataclass(frozen=True)
class Contents:
    """The verified files of a bundle by name, without SHA256SUMS."""

    name: str
    digest: str
    """SHA-256 of SHA256SUMS: it names every byte of the bundle."""
    files: Mapping[str, bytes] = field(repr=False)


def bundle_contents(name_or_path: str | Path) -> Contents:
    """The files of the bundle of that name (packaged, such as "demo") or at that path.

    Raises:
        BundleError: it does not exist, a byte differs from SHA256SUMS, or a file is missing or not listed in it.
    """
    if isinstance(name_or_path, str) and name_or_path in packaged_bundles():
        folder = PACKAGED / f"{name_or_path}.mminfer"
    elif not (folder := Path(name_or_path)).is_dir():
        names = ", ".join(packaged_bundles()) or "none"
        raise BundleError(
            f"There is no bundle {folder.name!r}. Give the path of a NAME.mminfer folder, or the name of a packaged "
            f"one ({names})."
        )
    files = _verified(folder)
    return Contents(folder.stem, hashlib.sha256(files.pop(CHECKSUMS)).hexdigest(), files)


@contextmanager
def contents_ahead(name_or_path: str | Path) -> Iterator[Future[Contents]]:
    """`bundle_contents`, begun in a thread, which has ended after the block."""
    with ThreadPoolExecutor(1, "mminfer-bundle") as thread:
        yield thread.submit(bundle_contents, name_or_path)


def packaged_bundles() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.stem for path in PACKAGED.glob("*.mminfer"))


def checksum_lines(contents: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS of these files, in its only accepted form: sorted, lower case, two spaces."""
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)]
    return "".join(lines).encode("ascii")


def _verified(folder: Path) -> dict[str, bytes]:
    """Every file of the bundle by name, after its bytes were compared with SHA256SUMS."""
    try:
        paths = sorted(folder.iterdir())
        for path in paths:
            if path.is_symlink() or not path.is_file():
                raise BundleError(
                    f"Bundle {folder.stem}: {path.name!r} is a link or a folder. A bundle holds plain files."
                )
        paths.sort(key=lambda path: -path.stat().st_size)  # the largest first, so that all threads end together
        with ThreadPoolExecutor(READERS) as pool:
            contents, digests = {}, {}
            for path, (content, digest) in zip(paths, pool.map(_read_and_hash, paths), strict=True):
                contents[path.name], digests[path.name] = content, digest
    except OSError as error:
        raise BundleError(f"Bundle {folder.stem} cannot be read ({error.strerror}). Check its permissions.") from error
    if CHECKSUMS not in contents:
        raise BundleError(f"Bundle {folder.stem} has no {CHECKSUMS}. Export the bundle again.")
    text = contents[CHECKSUMS].decode("ascii", errors="replace")
    listed = {file: digest for digest, file in _CHECKSUM_LINE.findall(text)}
    # Only one form is accepted, so that no byte of it can change unnoticed.
    if "".join(f"{digest}  {file}\n" for file, digest in sorted(listed.items())) != text:
        raise BundleError(
            f"Bundle {folder.stem}: {CHECKSUMS} is damaged. Copy the bundle again from a source you trust."
        )
    if unlisted := sorted(contents.keys() - {CHECKSUMS} - listed.keys()):
        raise foreign_file(folder.stem, unlisted[0])
    for name, digest in listed.items():
        if digests.get(name) != digest:
            raise BundleError(
                f"Bundle {folder.stem}: {name} is missing or differs from {CHECKSUMS}. Copy the bundle again from a "
                "source you trust; do not repair it by hand."
            )
    return contents


def foreign_file(bundle: str, name: str) -> BundleError:
    """The error of a file that is not a bundle's."""
    return BundleError(f"Bundle {bundle} holds a file that does not belong to it: {name!r}. Remove it.")


def _read_and_hash(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()
