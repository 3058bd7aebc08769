"""Opens the slide that the command line names, and says by its exit code whether that works."""

from __future__ import annotations

import sys

from melanoma_infer.errors import MminferError
from melanoma_infer.slides import open_slide


def main() -> None:
    """Open the slide.

    Raises:
        SystemExit: it does not open; with the error's exit code, and its message on stderr.
    """
    try:
        open_slide(sys.argv[1]).close()
    except MminferError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
