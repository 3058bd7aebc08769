"""The folder of a data set: written aside, then renamed into its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_infer.datasets.checks import SLIDES, TILES
from melanoma_infer.datasets.table import FACTS
from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.runtime.files import why_not_written

SHEET = "contact-sheet.png"
OURS = frozenset({FACTS, TILES, SLIDES, SHEET, "tiles"})
"""What `mminfer dataset` writes, and so may replace."""


@contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside `out`; on success it is renamed to `out`, otherwise it is removed.

    Relative paths from it are the same as from `out`.

    Raises:
        UsageError: `out` exists, and is not a data set or may not be replaced.
        OutputError: something cannot be written.
    """
    out = out.absolute()
    aside, old = (out.with_name(f".{out.name}.{kind}") for kind in ("part", "old"))
    try:
        if old.exists() and not out.exists():  # a run was killed while it put the new one into its place
            old.rename(out)
        require_free(out, overwrite=overwrite)
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if out.exists():
            out.rename(old)
        aside.rename(out)
    except OSError as error:
        raise OutputError(f"The data set cannot be written: {why_not_written(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def require_free(out: Path, *, overwrite: bool) -> None:
    """Require that a data set may be written there.

    Raises:
        UsageError: it is a file, or a folder with something in it that is no data set, or --overwrite is missing.
    """
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / FACTS).is_file()):
        raise UsageError(f"--out {out.name} exists and is no data set. Choose another name; it will not be replaced.")
    if (out / FACTS).is_file() and not overwrite:
        raise UsageError(f"{out.name} is a data set already. Give --overwrite to replace it, or choose another --out.")
    if others := sorted(path.name for path in out.iterdir() if path.name not in OURS):
        raise UsageError(
            f"--overwrite would remove {others[0]} from {out.name}, which is not from `mminfer dataset`. Move it away, "
            "or choose another --out."
        )
