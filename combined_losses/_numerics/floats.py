"""Arithmetic that is finite, with a slope, where the plain formula is not."""

import math

import keras
from keras import ops


def accumulating(dtype):
    """The dtype to accumulate in: float32, or a wider one that is given."""
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def magnitude(x):
    """`|x|` with the derivative 0 at 0 on every backend; that of `ops.abs` is 1 there on JAX."""
    return ops.relu(x) + ops.relu(-x)


# At a tie `ops.minimum`, `ops.maximum` and `ops.clip` have half the slope on some backends and the
# whole of it on others; a `where` has the slope of the branch that it takes. Each branch is given
# numbers that it is finite for, also where it is not taken: its slope would be 0 * inf = NaN there.


def bounded(x, limit):
    """`x` from `-limit` to `limit`, with the slope 0 beyond; what is not a number stays so."""
    beyond = ops.abs(x) > limit
    return ops.where(beyond, ops.stop_gradient(ops.sign(x)) * limit, x)


def div(numerator, denominator):
    """`numerator / denominator`, and 0 with gradient 0 where the denominator is not above 0.

    A denominator that is not a number stays one.
    """
    empty = denominator <= 0
    quotient = numerator / ops.where(empty, 1.0, denominator)
    return ops.where(empty, 0.0, quotient)


def weighted_mean(values, weight, axis, keepdims=False):
    """The mean over axes, of what counts where there are weights; 0 where nothing does."""
    if weight is None:
        return ops.mean(values, axis=axis, keepdims=keepdims)
    total = ops.sum(weight * values, axis=axis, keepdims=keepdims)
    return div(total, ops.sum(weight, axis=axis, keepdims=keepdims))


def decibels(ratio):
    """`10 log10(ratio)`."""
    return 10 / math.log(10) * ops.log(ratio)


def slog(q, steepest=None):
    """`log(q)`, continued along its tangent below 1e-7: finite and still sloped at `q = 0`.

    With `steepest` its values are the same, and no slope is larger than that.
    """
    # Below the floor c the tangent is log(c) + (q - c) / c; from c on relu(c - q) is 0, and so is
    # its derivative, also at c itself, where the tangent and the logarithm have the slope 1 / c.
    floor = 1e-7
    log = ops.log(ops.where(q < floor, floor, q)) - ops.relu(floor - q) / floor
    if steepest is None:
        return log
    line = ops.stop_gradient(log) + steepest * (q - ops.stop_gradient(q))
    return ops.where(q < 1 / steepest, line, log)


def linexp(u):
    """`exp(u)`, continued along its tangent above 20: it grows, but does not overflow."""
    # The tangent at 20 is exp(20) * (1 + (u - 20)); up to 20 relu(u - 20) is 0, and so is its
    # derivative, also at 20 itself, where the tangent and the exponential have the slope exp(20).
    return ops.exp(ops.where(u > 20, 20.0, u)) * (1 + ops.relu(u - 20))


def em1x(u):
    """`exp(u) - 1 - u`, exact near 0, and linear beyond -20 and 20."""
    # expm1(u) - u subtracts two numbers of the size of u to get one of the size of u^2 / 2, which
    # loses 2 eps / |u|; so near 0 it is the series of exp without its first two terms. The term
    # left out, u^9 / 9!, is 6e-13 of the value at |u| = 0.1.
    small = ops.abs(u) < 0.1
    near = ops.where(small, u, 0.0)
    series = 1 / 40320
    for factorial in (5040, 720, 120, 24, 6, 2):
        series = 1 / factorial + near * series
    # Between -20 and 20 the centre is u itself: the last term is 0, and the derivative is
    # expm1(c) c' + expm1(c) (1 - c') = expm1(u). Beyond, it is the tangent at the centre.
    far = ops.where(small, 1.0, u)
    centre = ops.where(far > 20, 20.0, ops.where(far < -20, -20.0, far))
    slope = ops.expm1(centre)
    tangent = slope - centre + slope * (far - centre)
    return ops.where(small, ops.square(near) * series, tangent)


def log_softmax(logits):
    """The logarithms of the probabilities over the last axis."""
    return _over_classes(ops.log_softmax, logits)


def softmax(logits):
    """The probabilities over the last axis."""
    return _over_classes(ops.softmax, logits)


def _over_classes(function, logits):
    # Torch takes eight times as long over a short last axis as over the same one further left
    # (three classes of 8x128x128, with the gradient); from some sixteen on it is the other way.
    if len(logits.shape) < 3 or (logits.shape[-1] or 16) >= 16:
        return function(logits, axis=-1)
    return ops.moveaxis(function(ops.moveaxis(logits, -1, 1), axis=1), 1, -1)
