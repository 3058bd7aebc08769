"""The signatures of the installed bindings of TensorRT-RTX and CUDA, to which the calls of fakes are bound."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

REASON = "tensorrt-rtx and cuda-bindings are not installed: pip install 'mminfer[tensorrt-rtx]'"
trt = pytest.importorskip("tensorrt_rtx", reason=REASON)
runtime = pytest.importorskip("cuda.bindings.runtime", reason=REASON)


class WrongCallError(AssertionError):
    """A call that the bindings would refuse."""


def check_cuda_call(name: str, *args: Any) -> None:
    """Raise unless `cuda.bindings.runtime` has a function of this name that takes these arguments."""
    if not hasattr(runtime, name):
        raise WrongCallError(f"cuda.bindings.runtime has no {name}")
    try:
        bound = inspect.signature(getattr(runtime, name)).bind(*args)
    except TypeError as error:
        raise WrongCallError(f"{name}: {error}") from error
    for parameter, value in bound.arguments.items():
        kind = inspect.signature(getattr(runtime, name)).parameters[parameter].annotation
        if kind is not inspect.Parameter.empty and not isinstance(value, getattr(runtime, str(kind).strip("'"))):
            raise WrongCallError(f"{name}: {parameter} is {type(value).__name__}, not {kind}")


def check_trt_call(owner: str, name: str, *args: Any) -> None:
    """Raise unless a class of the bindings has a method of this name with an overload that takes these arguments."""
    method = getattr(getattr(trt, owner, None), name, None)
    if method is None:
        raise WrongCallError(f"{owner} has no {name}")
    overloads = signatures(method.__doc__, name)
    if not any(_fits(parameters, args) for parameters in overloads):
        raise WrongCallError(f"{owner}.{name}{tuple(type(arg).__name__ for arg in args)} fits none of {overloads}")


def check_trt_attribute(owner: str, name: str) -> None:
    """Raise unless a class of the bindings has this property."""
    if not isinstance(getattr(getattr(trt, owner), name, None), property):
        raise WrongCallError(f"{owner} has no attribute {name}")


def signatures(doc: str, name: str) -> list[list[tuple[str, str, bool]]]:
    """(name, type, has a default) of every parameter but `self`, for each overload that pybind11 documents."""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", doc, re.MULTILINE)
    return [_parameters(text) for text in found if text != "*args, **kwargs"]


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    parts = re.split(r", (?=\w+: )", text)
    split = [re.fullmatch(r"(\w+): (.*?)(?: = (.*))?", part) for part in parts]
    return [(match[1], match[2], match[3] is not None) for match in split if match is not None and match[1] != "self"]


def _fits(parameters: list[tuple[str, str, bool]], args: tuple[Any, ...]) -> bool:
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
        case "str" | "bool" | "tuple" | "list":
            return type(value).__name__ == kind
    if kind.endswith(".Dims"):
        return isinstance(value, tuple | list)  # the bindings convert them
    return re.split(r"\.|::", kind)[-1] in {base.__name__ for base in type(value).__mro__}


def like(owner: str) -> Callable[[type], type]:
    """Check a fake class against the bindings' class of that name: it may have no member that theirs lacks."""

    def decorate(kind: type) -> type:
        for name, member in list(vars(kind).items()):
            if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__"):
                setattr(kind, name, _checked(owner, name, member))
            elif isinstance(member, property):
                check_trt_attribute(owner, name)
        kind.__name__ = owner
        return kind

    return decorate


def _checked(owner: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        if not getattr(self, "_unchecked", False):
            check_trt_call(owner, name, *args)
        return method(self, *args)

    return call
