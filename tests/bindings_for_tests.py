"""The signatures of the installed bindings of TensorRT-RTX and CUDA, to which the calls of fakes are bound."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from bindings_signatures_for_tests import fits, signatures

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
    if not any(fits(parameters, args) for parameters in overloads):
        raise WrongCallError(f"{owner}.{name}{tuple(type(arg).__name__ for arg in args)} fits none of {overloads}")


def check_trt_attribute(owner: str, name: str) -> None:
    """Raise unless a class of the bindings has this property."""
    if not isinstance(getattr(getattr(trt, owner), name, None), property):
        raise WrongCallError(f"{owner} has no attribute {name}")


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
