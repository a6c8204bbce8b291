"""The `repr` of an object: the call that makes it, without arguments at their default."""

import inspect
import reprlib
from typing import Any

import numpy as np

from combined_losses._core.config import arguments_of


def short_call(instance: object) -> str:
    """`Class(argument=value, ...)` on one line.

    An argument is read from the attribute of its name; what an `__init__` does not store, or has
    not stored yet, is left out.
    """
    shown = [
        f"{name}={_short(getattr(instance, name))}"
        for name, parameter in arguments_of(type(instance)).items()
        if hasattr(instance, name) and not _is_default(getattr(instance, name), parameter)
    ]
    return f"{type(instance).__name__}({', '.join(shown)})"


def _is_default(value: Any, parameter: inspect.Parameter) -> bool:
    return value is parameter.default or np.array_equal(value, parameter.default)


def _short(value: object) -> str:
    """The `repr` of a value on one line; a function is its name."""
    if inspect.isroutine(value):
        return str(getattr(value, "__name__", value))
    text = _SHORT.repr(value) if isinstance(value, (list, tuple, np.ndarray)) else repr(value)
    return " ".join(text.split())


_SHORT = reprlib.Repr()  # of long lists the first six entries
