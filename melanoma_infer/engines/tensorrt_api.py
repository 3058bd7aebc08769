"""TensorRT and TensorRT-RTX: one API under two names, and what each has to say, kept instead of printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal, Protocol

from melanoma_infer.errors import EngineUnavailableError

ApiName = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[ApiName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES: dict[ApiName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
HARMLESS = ("differs from one already registered",)
"""Said where the program around us has a logger of its own."""
LONGEST = 300
"""Characters of a message that are shown: the first sentence says it."""
PLACE = re.compile(r"\s*In \w+ at /_src/[^\s)]+")
"""Where in NVIDIA's sources it was said."""


@dataclass(frozen=True)
class Message:
    """What the runtime said; an error, or else a warning."""

    text: str
    is_error: bool


@dataclass
class Heard:
    """Warnings and errors, in their order."""

    messages: list[Message] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """The errors' texts."""
        return [message.text for message in self.messages if message.is_error]

    @property
    def warnings(self) -> list[str]:
        """The warnings' texts."""
        return [message.text for message in self.messages if not message.is_error]


class Logger(Protocol):
    """The API's own logger type, whose warnings and errors can be collected."""

    @property
    def heard(self) -> Heard:
        """All that was said since it was last emptied."""
        ...


@dataclass(frozen=True)
class Api:
    """One of the two libraries, imported."""

    name: ApiName
    trt: Any
    """The module: `tensorrt` or `tensorrt_rtx`."""
    logger: Any
    """One for the whole process: the library keeps the first that it is given, and ignores others."""

    @property
    def title(self) -> str:
        """The library's name as its maker writes it."""
        return TITLES[self.name]

    @property
    def version(self) -> str:
        """The library's version: an engine runs on the one that built it."""
        return str(self.trt.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which compiles kernels where they run, and builds without a GPU."""
        return self.name == "tensorrt-rtx"

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Within it, what the library says is collected."""
        before, self.logger.heard = self.logger.heard, Heard()
        try:
            yield self.logger.heard
        finally:
            self.logger.heard = before


def import_api(name: ApiName) -> Api:
    """The library of that name.

    Raises:
        EngineUnavailableError: it is not installed, or does not load.
    """
    try:
        return _imported(name)
    except (ImportError, OSError, RuntimeError) as error:  # its package opens the libraries beside it by hand
        raise EngineUnavailableError(
            f"{TITLES[name]} does not load here ({in_one_line([str(error)])}). "
            f"Install it: pip install 'mminfer[{name}]'."
        ) from error


@cache
def _imported(name: ApiName) -> Api:
    trt: Any = import_module(MODULES[name])
    return Api(name, trt, new_logger(trt))


def new_logger(trt: Any) -> Any:
    """A logger of the API's type that keeps warnings and errors and prints nothing."""

    class Collecting(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.heard = Heard()

        def log(self, severity: Any, text: str) -> None:
            is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            is_warning = severity == trt.ILogger.WARNING and not any(words in text for words in HARMLESS)
            if is_error or is_warning:
                self.heard.messages.append(Message(text, is_error))

    return Collecting()


def in_one_line(texts: Sequence[str]) -> str:
    """The first text that is not empty, on one line, without what follows its first 300 characters."""
    first = next((" ".join(text.split()) for text in texts if text.strip()), "it gave no reason")
    return PLACE.sub("", first)[:LONGEST].rstrip(". ")
