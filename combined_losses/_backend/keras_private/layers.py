"""The `call` and the activation of a layer: replaced for a while, or computed twice."""

import contextlib
from collections.abc import Callable, Iterator
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


def is_rematerialised(layer: keras.Layer) -> bool:
    """Whether a layer computes its `call` again in the backward pass.

    Keras 3.15.1: `Layer.__init__` keeps what `keras.RematScope` says as `_remat_mode`, or None.
    """
    return vars(layer).get("_remat_mode") is not None


@contextlib.contextmanager
def other_activation(layer: keras.layers.Dense, activation: Callable[..., Any]) -> Iterator[None]:
    """In the block a `Dense` layer gives its product, with the bias, to another activation.

    Keras 3.15.1: `Dense.call` ends with `self.activation(x)`, read from the object, where an entry
    of its `__dict__` comes first.
    """
    entries, own = vars(layer), vars(layer).get("activation")
    entries["activation"] = activation
    try:
        yield
    finally:
        if own is None:  # on torch an activation that is a layer has its place elsewhere
            del entries["activation"]
        else:
            entries["activation"] = own
