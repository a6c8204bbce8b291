"""Callbacks of ours beside those that a user gives to `fit`."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras


def add_callbacks(
    fit: Callable[..., Any],
    model: keras.Model,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    first: Sequence[keras.callbacks.Callback],
    last: Sequence[keras.callbacks.Callback],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `fit` with callbacks before and after those of the user.

    Keras 3.15.1: `fit` has the argument `callbacks`: None, one callback, a list, or a
    `CallbackList`. The latter is used as it is: it keeps its callbacks in a list `callbacks`, and
    has called `set_model` of each already. A copy of it gets ours, so that the user's own has none
    of them in the next `fit`.
    """
    bound = inspect.signature(fit).bind(model, *args, **kwargs)
    callbacks = bound.arguments.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for callback in (*first, *last):
            callback.set_model(model)
        together = copy.copy(callbacks)
        together.callbacks = [*first, *callbacks.callbacks, *last]
        bound.arguments["callbacks"] = together
    else:
        given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        bound.arguments["callbacks"] = [*first, *(c for c in given if c is not None), *last]
    return bound.args[1:], bound.kwargs


def reads_steps(
    fit: Callable[..., Any], model: keras.Model, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Whether anything that `fit` calls after each step of training may read its logs.

    Keras 3.15.1: there is a progress bar unless `verbose` is 0. A method of `Callback` that no
    subclass and no object overrides is marked by an attribute `_is_default`; `on_train_batch_end`
    of `Callback` calls `on_batch_end`.
    """
    given = inspect.signature(fit).bind(model, *args, **kwargs).arguments
    callbacks = given.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    elif given.get("verbose", "auto") != 0:
        return True
    each = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    return any(not _ignores_steps(callback) for callback in each if callback is not None)


def _ignores_steps(callback: Any) -> bool:
    methods = (callback.on_train_batch_end, callback.on_batch_end)
    return all(getattr(method, "_is_default", False) for method in methods)
