"""The time of day in UTC, as results show it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> str:
    """The time as "2026-11-29T06:23:11Z"."""
    return in_utc(time.time())


def in_utc(seconds: float) -> str:
    """A time in seconds since 1970, in the same form."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_file_name(moment: str) -> str:
    """A time of `utc_now` as file names hold it: "20261129T062311Z"."""
    return moment.replace("-", "").replace(":", "")
