"""Values and slopes of losses, compiled once for each loss and shape where that saves minutes.

JAX compiles every operation of a call, and every loop again in each call; one program is faster.
"""

import keras

from tests.composite.children import value
from tests.gradients import gradient

# Of many operations or of loops; the operations of the others are compiled once for all of them.
_LONG = ("CenterlineDice", "HausdorffDistance", "SignedDistanceBoundary")
_PROGRAMS = {}


def values(loss, *data, **arguments):
    """Of the class `loss` with `arguments`: one for each sample of `y_true, y_pred[, weight]`."""
    if keras.backend.backend() == "jax" and loss.__name__ in _LONG:
        return _program(loss, arguments, "values")(*data)
    return value(loss(reduction="none", **arguments), *data)


def slope(loss, y_true, y_pred, *weight, **arguments):
    """The gradient of the sum of the values by `y_pred`: no sample sees another."""
    if keras.backend.backend() == "jax":
        return _program(loss, arguments, "slope")(y_true, y_pred, *weight)
    own = loss(reduction="none", **arguments)
    return gradient(lambda p: own(y_true, p, *weight), y_pred)


def _program(loss, arguments, what):
    """A function of arrays; the same one for the same loss, arguments and question."""
    import jax
    import numpy as np

    key = loss.__name__, repr(sorted(arguments.items())), what
    if key not in _PROGRAMS:
        own = loss(reduction="none", **arguments)
        function = own if what == "values" else jax.grad(lambda *data: own(*data).sum(), argnums=1)
        compiled = jax.jit(lambda *data: function(*data))
        _PROGRAMS[key] = lambda *data: np.asarray(compiled(*map(np.asarray, data)))
    return _PROGRAMS[key]
