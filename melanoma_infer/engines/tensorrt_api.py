"""TensorRT and TensorRT-RTX: one API under two names. Their messages are collected instead of printed."""

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
"""A warning if the calling program has registered its own logger."""
OUT_OF_MEMORY = ("out of memory", "outofmemory", "alloc_failed", "failed_allocation", "bad_alloc", "memoryerror")
"""How CUDA, the libraries and Python report that memory ran out."""
SHOWN_CHARACTERS = 300
"""Longest part of a library's message that is shown: its first sentence has the reason."""
SOURCE_PLACE = re.compile(r"\s*In \w+ at /_src/[^\s)]+")
"""A place in NVIDIA's source code, which messages contain."""


@dataclass(frozen=True)
class Message:
    """A message of the library: an error, or else a warning."""

    text: str
    is_error: bool


@dataclass
class Heard:
    """The warnings and errors that were collected, in order."""

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
    """The API's logger type with the messages it has collected."""

    @property
    def heard(self) -> Heard:
        """The messages since it was last replaced."""
        ...


@dataclass(frozen=True)
class Api:
    """One of the two libraries, imported."""

    name: ApiName
    trt: Any
    """The module, `tensorrt` or `tensorrt_rtx`."""
    logger: Any
    """One for the whole process: the library keeps the first logger that it gets and ignores all others."""

    @property
    def title(self) -> str:
        """The library's name as NVIDIA writes it."""
        return TITLES[self.name]

    @property
    def version(self) -> str:
        """The library's version; an engine only runs with the version that built it."""
        return str(self.trt.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which builds without a GPU and compiles kernels at load time."""
        return self.name == "tensorrt-rtx"

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Context that collects the library's messages."""
        before, self.logger.heard = self.logger.heard, Heard()
        try:
            yield self.logger.heard
        finally:
            self.logger.heard = before


@cache
def import_api(name: ApiName) -> Api:
    """The library with that name, with one logger for the whole process.

    Raises:
        EngineUnavailableError: it is not installed, or does not load.
    """
    try:
        trt: Any = import_module(MODULES[name])
        return Api(name, trt, new_logger(trt))
    except (ImportError, OSError, RuntimeError) as error:  # its package loads its shared libraries itself
        raise EngineUnavailableError(
            f"{TITLES[name]} does not load here ({in_one_line([str(error)])}). "
            f"Install it: pip install 'mminfer[{name}]'."
        ) from error


def new_logger(trt: Any) -> Any:
    """A logger of the API's type that collects warnings and errors and prints nothing."""

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
    """The first text that is not empty, on one line, cut after 300 characters."""
    first = next((" ".join(text.split()) for text in texts if text.strip()), "it gave no reason")
    return SOURCE_PLACE.sub("", first)[:SHOWN_CHARACTERS].rstrip(". ")


def is_out_of_memory(text: str) -> bool:
    """Whether a message reports that memory ran out."""
    return any(words in text.lower() for words in OUT_OF_MEMORY)
