"""Boundaries: edges and contours of fields. Values of shape `(batch,)`."""

import keras
from keras import ops

from combined_losses._internal.numerics import magnitude
from combined_losses.losses.base import Loss

__all__ = ["BoundaryDisagreement"]


@keras.saving.register_keras_serializable("combined_losses")
class BoundaryDisagreement(Loss):
    """How far the edge strengths of two fields differ, along given axes.

    For each axis the mean of `| |d y_true| - |d y_pred| |`, `d` the difference of neighbours along
    that axis; then the mean over the axes. It sees edge strength only: a constant offset and an
    inverted contrast cost nothing, and a flat prediction is stationary (gradient 0). Add it to a
    pixel or region loss, do not train on it alone.

    Args:
        axes: the spatial axes, a sequence of integers, never the batch axis 0. Default `(1, 2)`:
            height and width of `(batch, height, width, channels)`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; values `(batch,)`, in units of the field.
    An axis of length 1 contributes 0.

    Raises:
        ValueError: if `axes` is empty, holds 0 or an axis that the arrays do not have, or if the
            shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> step = np.array([0.0, 0.0, 1.0, 1.0]).reshape(1, 4, 1)
    >>> loss = cl.losses.BoundaryDisagreement(axes=(1,))
    >>> round(float(loss(step, np.zeros((1, 4, 1)))), 4)
    0.3333
    >>> float(loss(step, 1.0 - step))
    0.0

    Limit: against a flat truth with two axes it is half the mean total variation of `y_pred`
    (Rudin, Osher & Fatemi 1992).
    """

    def __init__(self, axes=(1, 2), **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axes, (tuple, list)) or not axes or any(_not_spatial(a) for a in axes):
            raise ValueError(
                "The argument `axes` of BoundaryDisagreement must be a non-empty sequence of "
                "integers other than the batch axis 0, for example (1, 2) for images. "
                f"Received: {axes!r}"
            )
        self.axes = axes

    def call(self, y_true, y_pred):
        rank = len(y_pred.shape)
        axes = [axis + rank if axis < 0 else axis for axis in self.axes]
        if any(not 0 < axis < rank for axis in axes):
            raise ValueError(
                f"The argument `axes` of BoundaryDisagreement must name axes of arrays of rank "
                f"{rank}. Received: axes={self.axes!r} and y_pred of shape {tuple(y_pred.shape)}"
            )
        others = tuple(range(1, rank))
        total = 0.0
        for axis in axes:
            difference = magnitude(_edges(y_true, axis) - _edges(y_pred, axis))
            if y_pred.shape[axis] != 1:
                total = total + ops.mean(difference, axis=others)
            else:
                total = total + ops.zeros_like(y_pred[(slice(None), *([0] * (rank - 1)))])
        return total / len(axes)


def _not_spatial(axis):
    return isinstance(axis, bool) or not isinstance(axis, int) or axis == 0


def _edges(field, axis):
    """The absolute differences of neighbours along `axis`."""
    ahead = [slice(None)] * len(field.shape)
    behind = list(ahead)
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    return magnitude(field[tuple(ahead)] - field[tuple(behind)])
