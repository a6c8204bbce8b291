"""Configs with every argument, also of Keras's losses, whose own configs leave some out."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.limited import MOST_ENTRIES, check_entries
from combined_losses._core.names import quoted
from combined_losses._core.packed import is_packed, pack, unpack

Made = TypeVar("Made")

_BASE_ARGUMENTS = ("reduction", "name", "dtype")


def signature_config(
    loss: object, without: Iterable[str] = (), base: Sequence[str] = _BASE_ARGUMENTS
) -> dict[str, Any]:
    """The config of a loss: every argument of its `__init__`, `without` some that it adds itself.

    Each argument is read from the attribute of its name. No hyper-parameter can be forgotten,
    because nobody keeps a list of them.
    """
    others = (*base, *without)
    names = [name for name in arguments_of(type(loss)) if name not in others]
    missing = [name for name in names if not hasattr(loss, name)]
    if missing:
        raise ValueError(
            f"{type(loss).__name__} cannot be saved: its `__init__` must store every argument "
            "under its own name, for example `self.cost = cost` for an argument `cost`. "
            f"Received: no attribute for {', '.join(missing)}"
        )
    config = {name: getattr(loss, name) for name in (*names, *base)}
    with deeply():
        return {key: _serialize(value) for key, value in config.items()}


def _serialize(value: Any) -> Any:
    """A value as Keras stores it; losses in it keep all their arguments."""
    if isinstance(value, keras.losses.Loss):
        return serialize_loss(value)
    if isinstance(value, list):
        return [_serialize(item) for item in value]
    if isinstance(value, dict):
        return {key: _serialize(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.size > MOST_ENTRIES and value.dtype.kind in "fiu":
        return pack(value)  # Keras would write lists, which are too long to be read
    return keras.saving.serialize_keras_object(value)


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of `cls`, also those that it passes to its bases through `**kwargs`."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


@contextlib.contextmanager
def deeply() -> Iterator[None]:
    """A block with a higher recursion limit: Keras needs 2,000 nested calls for 200 nested losses.

    Python's default limit is 1,000.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


_DEEPEST = 6_000


def construct(cls: type[Made], config: dict[str, Any]) -> Made:
    """The inverse of `signature_config`."""
    check_config(cls, config)
    with deeply():
        return made(cls, {key: read_entry(cls, key, value) for key, value in config.items()})


def made(cls: type[Made], arguments: dict[str, Any]) -> Made:
    """An object of a class; errors name the class, because the file may have been changed."""
    make: Callable[..., Made] = cls
    try:
        return make(**arguments)
    except (TypeError, ValueError):
        raise  # these errors name the class already
    except Exception as error:
        raise ValueError(
            f"{cls.__name__} cannot be made from its config: {type(error).__name__}: {error}. "
            f"Received: the keys {quoted(arguments)}"
        ) from error


def read_entry(cls: type, key: str, value: Any) -> Any:
    """A stored entry of a config as an object; an error names the class and the key."""
    try:
        return _deserialize(value)
    except Exception as error:
        raise ValueError(
            f"The entry {key!r} of the config of {cls.__name__} cannot be read: {error}"
        ) from error


def check_config(cls: type, config: object) -> None:
    """Raises if a config, perhaps from a changed file, does not have the arguments of a class."""
    if not isinstance(config, dict):
        raise ValueError(
            f"The config of {cls.__name__} must be a dict. Received: {type(config).__name__}"
        )
    parameters: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            of_base = dict(list(inspect.signature(vars(base)["__init__"]).parameters.items())[1:])
            parameters = {**of_base, **parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in of_base.values()):
                break
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = [n for n, p in named.items() if p.default is p.empty and n not in config]
    unknown = [key for key in config if key not in named]
    for what, keys in (("lacks", missing), ("has the unknown entry", unknown)):
        if keys:
            raise ValueError(
                f"The config of {cls.__name__} {what} {keys[0]!r}: the file was changed, or was "
                f"written by another version. Received: the keys {quoted(config)}"
            )


def _deserialize(value: Any) -> Any:
    if is_packed(value):
        return unpack(value)
    if isinstance(value, (dict, list)):
        _check_stored(value)
        return keras.saving.deserialize_keras_object(value)
    return value


def _check_stored(value: Any) -> None:
    """Raises if a list or dict in a stored value is too long: Keras would read it slowly."""
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, (dict, list)):
            check_entries("It", len(value))
            open_values.extend(value.values() if isinstance(value, dict) else value)


def serialize_loss(loss: KerasLoss) -> dict[str, Any]:
    """A loss object as Keras stores it, plus the arguments that Keras's own `get_config` drops.

    Keras's classes do not store their `dtype`; for other arguments see
    `keras_private.whole_config`.
    """
    serialized: dict[str, Any] = keras.saving.serialize_keras_object(loss)
    parameters = inspect.signature(type(loss).__init__).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    complete = keras_private.whole_config(loss)
    if isinstance(loss, keras.losses.Loss):
        complete["dtype"] = loss.dtype
    for key, value in complete.items():
        is_dtype = key == "dtype" and takes_any and value != keras.config.floatx()
        if key in parameters or is_dtype:
            keras_private.complete_config(serialized, key, value)
    return serialized


def serialize_losses(losses: Any) -> Any:
    """What was compiled as `loss`, in any structure, as Keras stores it, with all arguments."""
    if isinstance(losses, (list, tuple)):
        return [serialize_losses(loss) for loss in losses]
    if isinstance(losses, dict):
        return {name: serialize_losses(loss) for name, loss in losses.items()}
    return _serialize(losses)


class LambdaError(ValueError):
    """Raised because a lambda cannot be saved: it has no name by which loading could find it."""


def check_no_lambda(function: object, name: str, signature: str = "y_true, y_pred") -> None:
    """Raises a `LambdaError` on a function that cannot be saved because it is a lambda."""
    if getattr(function, "__name__", None) == "<lambda>":
        raise LambdaError(
            f"Component '{name}' is a lambda: it trains, but it cannot be saved, because a lambda "
            "has no name to be found by when loading. Write it as a function and register it:\n"
            '    @keras.saving.register_keras_serializable("my_package")\n'
            f"    def {name if name != 'lambda' else 'my_function'}({signature}): ...\n"
            f"Received: {function!r}"
        )


def serialize_function(
    function: Callable[..., Any], name: str, signature: str = "y_true, y_pred"
) -> Any:
    """A function as Keras stores it; a lambda raises a `LambdaError`."""
    check_no_lambda(function, name, signature)
    try:
        return keras.saving.serialize_keras_object(function)
    except Exception as error:
        raise ValueError(
            f"Component '{name}' cannot be saved. Write it as a function and register it with "
            f'@keras.saving.register_keras_serializable("my_package"). Received: {function!r}'
        ) from error


def serialize_child(name: str, loss: KerasLoss) -> dict[str, Any]:
    """A component as Keras stores it; if it cannot be stored, the error names it."""
    if hasattr(loss, "serialized_function"):
        loss.serialized_function(name)  # for its error, which names the component
    return serialize_loss(loss)


def deserialize_child(name: str, child: Any) -> Any:
    """The inverse of `serialize_child`."""
    try:
        _check_stored(child)
        return keras.saving.deserialize_keras_object(child)
    except Exception as error:
        # A note (`add_note`) would be lost: Keras makes a new exception from the text of this one.
        raise ValueError(
            f"Component '{name}' of a CompositeLoss cannot be loaded. Register its function or "
            'class with @keras.saving.register_keras_serializable("my_package") before saving, '
            f"and import it before loading, or pass it in custom_objects. {error}"
        ) from error
