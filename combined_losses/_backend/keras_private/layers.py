"""Replacing the `call` of a layer for a while."""

from collections.abc import Callable
from typing import Any

import keras


def put_call(layer: keras.Layer, call: Callable[..., Any]) -> None:
    """Replaces the `call` of a layer.

    Keras 3.15.1: `Layer.__call__` reads `call` from the object, where an entry of its `__dict__`
    hides the method. `setattr` would not do: it tracks the value, and is refused after the layer
    is built for values that Keras tracks.
    """
    vars(layer)["call"] = call


def restore_call(layer: keras.Layer) -> None:
    """Gives a layer its own `call` back after `put_call`."""
    del vars(layer)["call"]
