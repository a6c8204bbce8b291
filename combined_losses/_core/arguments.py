"""A component as the user gives it (a loss, a string or a function): its check and its name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from combined_losses._core import checks, names
from combined_losses._core.keras_types import KerasLoss, KerasLossClass
from combined_losses._core.loss import FunctionLoss


def as_child(loss: Any, owner: str, name: str | None) -> KerasLoss:
    """The component as a `keras.losses.Loss`; raises if it cannot be one."""
    where = f"Component '{name}' of '{owner}'" if name else f"A component of '{owner}'"
    if isinstance(loss, str):
        try:
            known = keras.losses.get(loss)
        except ValueError as error:
            raise ValueError(
                f"{where} must be a loss that `keras.losses.get` knows, for example 'mse' or "
                f"'categorical_crossentropy'. Received: {loss!r}"
            ) from error
        return known if isinstance(known, KerasLossClass) else FunctionLoss(loss)
    if isinstance(loss, KerasLossClass):
        checks.check_dtype(f"component '{name or loss.name}'", loss.dtype)
        if type(loss).__call__ is KerasLossClass.__call__:
            _check_takes(loss.call, where, "call")
        return loss
    if isinstance(loss, type) or not callable(loss) or isinstance(_behind(loss), _NO_LOSSES):
        raise ValueError(
            f"{where} must be a keras.losses.Loss, a string, or a function f(y_true, y_pred)"
            f"{_hint(loss)}. Received: {loss!r} of type {type(loss).__name__}"
        )
    _check_takes(loss, where, "function")
    return FunctionLoss(loss)


# Objects that can be called but are no losses.
_NO_LOSSES = (
    keras.metrics.Metric,
    keras.layers.Layer,  # a model is one
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.initializers.Initializer,
)


def _behind(function: Any) -> Any:
    """The object itself, if `function` is a `functools.partial` or a bound `__call__` of it."""
    while isinstance(function, functools.partial):
        function = function.func
    bound = getattr(function, "__name__", "") == "__call__"
    return getattr(function, "__self__", function) if bound else function


def _hint(loss: Any) -> str:
    """What to do instead, for the error about an object that is no loss."""
    loss = _behind(loss)
    if isinstance(loss, type):
        return f"; create it first: {loss.__name__}()"
    if isinstance(loss, keras.metrics.Metric):
        return (
            ": a metric accumulates over batches, so its value is not that of one batch; give the "
            "loss or function of the same name, and the metric to `compile(metrics=...)`"
        )
    if isinstance(loss, keras.layers.Layer):
        return ": write a function that calls it and returns one value for each sample"
    if isinstance(loss, keras.optimizers.schedules.LearningRateSchedule):
        return ": a schedule is a weight; give it in `weights`"
    return ""


def _check_takes(function: Callable[..., Any], where: str, what: str) -> None:
    """Raises unless a function takes targets and predictions, or predictions alone."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return
    for arguments in (("y_true", "y_pred"), ("y_pred",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return
    name = getattr(function, "__name__", type(function).__name__)
    raise ValueError(
        f"{where} must be a loss or a function f(y_true, y_pred), or f(y_pred) of predictions "
        f"alone; give every other argument of its {what} a default, or bind it with "
        f"functools.partial. Received: {name}{signature}"
    )


def component_name(loss: Any) -> tuple[str, bool]:
    """The name for a component that was given without one, and whether the user chose it."""
    if isinstance(loss, FunctionLoss):
        return loss.name, loss.name != names.derive_name(loss.function)[0]
    if hasattr(loss, "name_is_given"):  # a wrapper; by default it has its child's name
        return loss.name, loss.name_is_given
    return names.derive_name(loss)
