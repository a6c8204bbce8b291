"""What the captured steps of the frameworks share."""

import keras
from keras import ops

from combined_losses._backend import keras_private


class Capture:
    """A training step that keeps what gradients at layers and parameters need (abstract).

    A subclass gives `watch(name, tensor)`, called with every output of a layer that is watched,
    which fills `_watched` and gives what goes on, and `rows(rule, values, points, scale)`: for each
    point the k flat gradients of `values`; on the way they are multiplied by `scale`.
    """

    def __init__(self, model):
        self._model = model
        self._watched = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._watched.clear()

    def watched(self, name):
        """What stands for the outputs of a layer in this step."""
        return self._watched.get(name, [])

    def loss_scale(self):
        """The factor of losses that keeps float16 gradients from vanishing; 1.0 without one."""
        return keras_private.loss_scale(self._model.optimizer)


def is_scaled(scale):
    """Whether a loss scale changes anything."""
    return not (isinstance(scale, float) and scale == 1.0)


def float32(tensor):
    """A place of gradients in float32 or more: that of a mean vanishes in float16."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")


def columns(rows, scale=1.0):
    """For each point the k gradients, flat and in float32, of k lists of one for each point."""
    flat = [[ops.reshape(ops.cast(row, "float32"), (-1,)) for row in each] for each in rows]
    if is_scaled(scale):
        flat = [[row / scale for row in each] for each in flat]
    return [list(column) for column in zip(*flat, strict=True)]
