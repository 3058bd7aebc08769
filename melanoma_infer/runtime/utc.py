"""The time of day in UTC, as results show it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    """The time as "2026-11-29T06:23:11Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_file_name(moment: str) -> str:
    """A time of `utc_now` as file names hold it: "20261129T062311Z"."""
    return moment.replace("-", "").replace(":", "")
