"""Callbacks of ours beside those that a user gives to `fit`."""

import inspect

import keras


def add_callbacks(fit, model, args, kwargs, first, last):
    """The arguments of `fit` with callbacks before and after those of the user.

    Keras 3.15.1: `fit` has the argument `callbacks`: None, one, a list, or a `CallbackList`, which
    is taken as it is and keeps its callbacks in a list of that name; it has told them their model.
    """
    bound = inspect.signature(fit).bind(model, *args, **kwargs)
    callbacks = bound.arguments.get("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for callback in (*first, *last):
            callback.set_model(model)
        callbacks.callbacks[:] = [*first, *callbacks.callbacks, *last]
    else:
        given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        bound.arguments["callbacks"] = [*first, *(c for c in given if c is not None), *last]
    return bound.args[1:], bound.kwargs
