"""The signatures that pybind11 documents, and whether arguments fit them; imports no bindings."""

from __future__ import annotations

import re
from typing import Any


def signatures(doc: str, name: str) -> list[list[tuple[str, str, bool]]]:
    """(name, type, has a default) of every parameter but `self`, for each overload that pybind11 documents."""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", doc, re.MULTILINE)
    return [_parameters(text) for text in found if text != "*args, **kwargs"]


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    parts = re.split(r", (?=\w+: )", text)
    split = [re.fullmatch(r"(\w+): (.*?)(?: = (.*))?", part) for part in parts]
    return [(match[1], match[2], match[3] is not None) for match in split if match is not None and match[1] != "self"]


def fits(parameters: list[tuple[str, str, bool]], args: tuple[Any, ...]) -> bool:
    """Whether these arguments fit an overload with these parameters."""
    required = sum(not has_default for _, _, has_default in parameters)
    if not required <= len(args) <= len(parameters):
        return False
    return all(_is_a(value, kind) for value, (_, kind, _) in zip(args, parameters, strict=False))


def _is_a(value: Any, kind: str) -> bool:
    match kind:
        case "typing.SupportsInt":
            return hasattr(value, "__int__") and not isinstance(value, str)
        case "typing_extensions.Buffer":
            return isinstance(value, bytes | bytearray | memoryview)
        case "collections.abc.Callable":
            return callable(value)
        case "str" | "bool" | "tuple" | "list":
            return type(value).__name__ == kind
    if kind.endswith(".Dims"):
        return isinstance(value, tuple | list)  # the bindings convert them
    return re.split(r"\.|::", kind)[-1] in {base.__name__ for base in type(value).__mro__}
