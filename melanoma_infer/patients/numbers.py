"""Numbers as people and spreadsheets write them, and scales."""

from __future__ import annotations

import math
import re

from melanoma_infer.errors import UsageError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"(\d+),(\d+)", re.ASCII)
_THOUSANDS = re.compile(r"([+-]?[1-9]\d{0,2})[.,](\d{3})", re.ASCII)
_DATE = re.compile(r"\d{1,4}([-./])\d{1,2}\1\d{1,4}([T ].*)?|(18|19|20)\d{6}", re.ASCII | re.IGNORECASE)


def number(text: str) -> float:
    """The number that a text states, with a decimal point or comma; NaN if it states none, or could state two."""
    return math.nan if two_readings(text) else decimal(text)


def two_readings(text: str) -> tuple[str, str] | None:
    """The two numbers that a text such as "1.031" or "1,031" may state; None for all others.

    One person's decimal separator is another's separator of thousands.
    """
    found = _THOUSANDS.fullmatch(text.strip())
    return (".".join(found.groups()), "".join(found.groups())) if found else None


def decimal(text: str) -> float:
    """The number that a text states if its only separator is of decimals; NaN if it states none.

    For quantities that are never a thousand or more: 1.031 and 1,031 have one meaning.
    """
    plain = text.strip()
    if comma := _COMMA.fullmatch(plain):
        plain = ".".join(comma.groups())
    return float(plain) if _NUMBER.fullmatch(plain) else math.nan


def is_date(text: str) -> bool:
    """Whether a text looks like a calendar date, such as 1953-04-01, 1.4.1953 or 19530401."""
    return _DATE.fullmatch(text.strip()) is not None


def parse_scale(text: str, *, decimal_comma: bool = False) -> tuple[float, float]:
    """µm per pixel (x, y) of "X", "X,Y" or "XxY". No scale is a thousand, so 1.031 has one meaning.

    Args:
        text: as typed.
        decimal_comma: the text may be one number with a decimal comma, as in files separated by semicolons.

    Raises:
        UsageError: it has none of the forms, or could mean two scales.
    """
    parts = re.split("[x×]", text.casefold())
    if len(parts) == 1:
        comma = _COMMA.fullmatch(text.strip()) if decimal_comma else None
        parts = text.split(",") if comma is None else [text]
        if comma is not None and all(int(part) for part in comma.groups()):
            raise UsageError(f"{text!r} may mean {text.replace(',', '.')} or two scales. Write the one that is meant: "
                             f"{text.replace(',', '.')} or {text.replace(',', 'x')}.")  # fmt: skip
    numbers = [decimal(part) for part in parts]
    if len(numbers) not in (1, 2) or not all(0 < each < 1e6 for each in numbers):
        raise UsageError(f"{text!r} is no scale. Give X or X,Y in µm per pixel, for example 0.25 or 0.25,0.25.")
    return numbers[0], numbers[-1]
