"""Predictions as probabilities, even if they lie outside of [0, 1]."""

from keras import ops

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor


def as_probability(p: Tensor, y: Tensor) -> Tensor:
    """The probability nearest to `p`, for a loss that compares it with `y` in [0, 1].

    Outside of [0, 1] the result is 0 or 1. Its slope is 1, so that the gradient of the loss leads
    back into the range, for example from -0.5 to a target of 1. The slope is 0 if the result equals
    the target, as for 1.5 and a target of 1.
    """
    if backend.lies_within(p, 0.0, 1.0):  # nearly always true; the rest takes three times as long
        return p
    # The clip acts on a constant, so its own slope does not matter. The slope comes from
    # `p - given`, whose value is 0.
    given = ops.stop_gradient(p)
    nearest = ops.clip(given, 0.0, 1.0)
    # Not `!=` and `==`: with unknown sizes TensorFlow does not know the rank of their results.
    beyond = ops.logical_and(ops.not_equal(given, nearest), ops.equal(nearest, y))
    return nearest + ops.where(beyond, 0.0, p - given)
