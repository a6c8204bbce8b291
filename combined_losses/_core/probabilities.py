"""Predictions that are to be probabilities, wherever they lie."""

from keras import ops

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor


def as_probability(p: Tensor, y: Tensor) -> Tensor:
    """The probability nearest to `p`, for a loss that compares it with `y` in [0, 1].

    Outside [0, 1] it is 0 or 1, with the slope 1, so that a loss leads back: from -0.5 for a truth
    of 1. One of 1.5 is right as far as a probability can be, and has the slope 0.
    """
    if backend.lies_within(p, 0.0, 1.0):  # as nearly always; the rest takes three times as long
        return p
    # Without ties: the clip is of a constant. The slope comes from a difference, which is 0.
    given = ops.stop_gradient(p)
    nearest = ops.clip(given, 0.0, 1.0)
    # Not `!=` and `==`: TensorFlow does not know the rank of these where it does not know sizes.
    beyond = ops.logical_and(ops.not_equal(given, nearest), ops.equal(nearest, y))
    return nearest + ops.where(beyond, 0.0, p - given)
