"""The `repr` of an object: the call that makes it, without arguments at their default."""

import functools
import inspect
import reprlib
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from combined_losses._backend import keras_private
from combined_losses._core.config import arguments_of
from combined_losses._core.keras_types import KerasLoss, KerasLossClass
from combined_losses._core.names import derive_name


def short_call(instance: object, without: Collection[str] = (), cls: type | None = None) -> str:
    """`Class(argument=value, ...)` on one line, `without` some of the arguments.

    Each argument is read from the attribute of its name. An argument without such an attribute is
    left out, as in an `__init__` that has not ended. `cls` is the class to show, by default that of
    `instance`.
    """
    cls = cls or type(instance)
    stored = {
        name: getattr(instance, name)
        for name in arguments_of(cls)
        if name not in without and hasattr(instance, name)
    }
    return f"{cls.__name__}({', '.join(off_default(cls, stored))})"


def off_default(cls: type, arguments: dict[str, Any]) -> list[str]:
    """`argument=value` for each argument of a class that is not at its default.

    The argument `loss` is shown without its name.
    """
    parameters = arguments_of(cls)
    return [
        short(value) if name == "loss" else f"{name}={short(value)}"
        for name, value in arguments.items()
        if name in parameters and not _is_default(value, parameters[name])
    ]


def short_loss(
    loss: KerasLoss, name_is_given: bool | None = None, child: KerasLoss | None = None
) -> str:
    """`short_call` of a loss, without the arguments that the user did not choose: `unchosen`."""
    return short_call(loss, unchosen(loss, name_is_given, child))


def unchosen(
    loss: KerasLoss, name_is_given: bool | None = None, child: KerasLoss | None = None
) -> set[str]:
    """The arguments that a loss has from Keras's settings or from its child, not from the user."""
    chosen = derive_name(loss)[1] if name_is_given is None else name_is_given
    found = set() if chosen else {"name"}
    if loss.dtype == (keras.config.floatx() if child is None else child.dtype):
        found.add("dtype")
    if child is not None and loss.reduction == child.reduction:
        found.add("reduction")
    if vars(loss).get("data_format") == keras.config.image_data_format():
        found.add("data_format")
    return found


@functools.singledispatch
def short(value: object) -> str:
    """The `repr` of a value on one line: of a function its name, of a long list its beginning."""
    if inspect.isroutine(value):
        return str(getattr(value, "__name__", value))
    text = _SHORT.repr(value) if isinstance(value, (list, tuple, np.ndarray)) else repr(value)
    return " ".join(text.split())


@short.register(KerasLossClass)
def _(loss: KerasLoss) -> str:
    """For losses not of this library: Keras's own `repr` shows the address of a function."""
    shows_itself = next(cls for cls in type(loss).__mro__ if "__repr__" in vars(cls))
    if shows_itself.__module__.partition(".")[0] not in ("keras", "builtins"):
        return " ".join(repr(loss).split())
    config = keras_private.whole_config(loss)
    arguments = {k: v for k, v in config.items() if k not in unchosen(loss)}
    return f"{type(loss).__name__}({', '.join(off_default(type(loss), arguments))})"


def _is_default(value: object, parameter: inspect.Parameter) -> bool:
    if value is parameter.default:
        return True
    given = isinstance(value, (bool, int, float, str, list, tuple, np.ndarray))
    return given and bool(np.array_equal(np.asarray(value), np.asarray(parameter.default)))


class _Short(reprlib.Repr):
    """Shows six entries of a long list, 30 characters of an array, and losses by `short`."""

    def repr_instance(self, x: object, level: int) -> str:
        return super().repr_instance(x, level) if isinstance(x, np.ndarray) else short(x)


_SHORT = _Short()
