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
