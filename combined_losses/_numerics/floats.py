"""Arithmetic that stays finite, and keeps a slope, where the plain formula does not."""

import math
from collections.abc import Callable, Sequence

import keras
from keras import ops

from combined_losses._numerics.arrays import Dtype, Tensor


def accumulating(dtype: Dtype) -> str:
    """The dtype to accumulate sums in: float32 for half precision, else the dtype itself."""
    name: str = keras.backend.standardize_dtype(dtype)
    return "float32" if name in ("float16", "bfloat16") else name


def in_dtype(numbers: Sequence[Tensor | float], dtype: Dtype) -> list[Tensor]:
    """The numbers in one dtype. Keras's `cast` is slow even where there is nothing to cast."""
    first = ops.cast(numbers[0], dtype)
    return [
        ops.cast(each, dtype) if isinstance(each, float) or each.dtype != first.dtype else each
        for each in numbers
    ]


def magnitude(x: Tensor) -> Tensor:
    """`|x|`, with the derivative 0 at 0 on every backend. (On JAX `ops.abs` has 1 there.)"""
    return ops.relu(x) + ops.relu(-x)


# Two rules for this file. At a tie, `ops.minimum`, `ops.maximum` and `ops.clip` have half the slope
# on some backends and all of it on others; so a `where` chooses, whose slope is that of the branch
# it takes. And both branches of a `where` get inputs for which they are finite: the slope of the
# branch not taken is multiplied by 0, and 0 * inf would be NaN.


def bounded(x: Tensor, limit: float) -> Tensor:
    """`x` limited to `[-limit, limit]`, with the slope 0 beyond; NaN stays NaN."""
    beyond = ops.abs(x) > limit
    return ops.where(beyond, ops.stop_gradient(ops.sign(x)) * limit, x)


def div(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`; 0 with gradient 0 where the denominator is 0 or below.

    The quotient is NaN where the denominator is.
    """
    empty = denominator <= 0
    quotient = numerator / ops.where(empty, 1.0, denominator)
    return ops.where(empty, 0.0, quotient)


def weighted_mean(
    values: Tensor, weight: Tensor | None, axis: int | tuple[int, ...], keepdims: bool = False
) -> Tensor:
    """The weighted mean over one or several axes; 0 where all weights are 0. None: no weights."""
    if weight is None:
        return ops.mean(values, axis=axis, keepdims=keepdims)
    total = ops.sum(weight * values, axis=axis, keepdims=keepdims)
    return div(total, ops.sum(weight, axis=axis, keepdims=keepdims))


def decibels(ratio: Tensor) -> Tensor:
    """`10 log10(ratio)`."""
    return 10 / math.log(10) * ops.log(ratio)


def slog(q: Tensor, steepest: float | None = None) -> Tensor:
    """`log(q)`, continued along its tangent below 1e-7: finite, and with a slope, at `q = 0`.

    `steepest` limits the slope and leaves the values as they are.
    """
    # Below the floor c the tangent is log(c) + (q - c) / c. From c on, relu(c - q) and its
    # derivative are 0. At c itself the tangent and the logarithm have the same slope, 1 / c.
    floor = 1e-7
    log = ops.log(ops.where(q < floor, floor, q)) - ops.relu(floor - q) / floor
    if steepest is None:
        return log
    line = ops.stop_gradient(log) + steepest * (q - ops.stop_gradient(q))
    return ops.where(q < 1 / steepest, line, log)


def linexp(u: Tensor) -> Tensor:
    """`exp(u)`, continued along its tangent above 20, so that it grows without overflow."""
    # The tangent at 20 is exp(20) * (1 + (u - 20)). Up to 20, relu(u - 20) and its derivative are
    # 0. At 20 itself the tangent and the exponential have the same slope, exp(20).
    return ops.exp(ops.where(u > 20, 20.0, u)) * (1 + ops.relu(u - 20))


def em1x(u: Tensor) -> Tensor:
    """`exp(u) - 1 - u`, exact near 0, and linear below -20 and above 20."""
    # expm1(u) - u subtracts two numbers of size u to get one of size u^2 / 2: the relative error is
    # 2 eps / |u|. Near 0 we therefore sum the series of exp without its first two terms. The first
    # term left out, u^9 / 9!, is 6e-13 of the value at |u| = 0.1.
    small = ops.abs(u) < 0.1
    near = ops.where(small, u, 0.0)
    series = 1 / 40320
    for factorial in (5040, 720, 120, 24, 6, 2):
        series = 1 / factorial + near * series
    # Let c be the centre: u limited to [-20, 20]. Within these bounds c = u, so the last term is 0,
    # and the derivative is expm1(c) c' + expm1(c) (1 - c') = expm1(u). Beyond them `tangent` is the
    # tangent at the bound.
    far = ops.where(small, 1.0, u)
    centre = ops.where(far > 20, 20.0, ops.where(far < -20, -20.0, far))
    slope = ops.expm1(centre)
    tangent = slope - centre + slope * (far - centre)
    return ops.where(small, ops.square(near) * series, tangent)


def over_axes(
    function: Callable[..., Tensor],
    x: Tensor,
    axis: int | tuple[int, ...] = -1,
    **options: bool,
) -> Tensor:
    """A maximum, or the like, over axes of each sample, also for an empty batch.

    There Keras raises, and with `initial` it forgets the axes on torch.
    """
    function = ops.sum if x.shape[0] == 0 else function
    return function(x, axis=axis, **options)


# The logit of what does not count: its exponential is 0 beside that of any other.
NOTHING = -1e30


def logsumexp(
    logits: Tensor,
    mask: Tensor,
    nothing: float = NOTHING,
    axis: int = -1,
    keepdims: bool = False,
) -> Tensor:
    """The logsumexp over a mask, also for an empty batch.

    It is about `nothing`, with slope 0, for an empty mask.
    """
    return over_axes(ops.logsumexp, ops.where(mask, logits, nothing), axis, keepdims=keepdims)


def log_softmax(logits: Tensor) -> Tensor:
    """The logarithms of the probabilities over the last axis."""
    return _over_classes(ops.log_softmax, logits)


def softmax(logits: Tensor) -> Tensor:
    """The probabilities over the last axis."""
    return _over_classes(ops.softmax, logits)


def _over_classes(function: Callable[..., Tensor], logits: Tensor) -> Tensor:
    # With few classes torch takes eight times as long on the last axis as on an earlier one (three
    # classes of 8x128x128, with the gradient). From about sixteen classes on, the last is faster.
    if len(logits.shape) < 3 or (logits.shape[-1] or 16) >= 16:
        return function(logits, axis=-1)
    return ops.moveaxis(function(ops.moveaxis(logits, -1, 1), axis=1), 1, -1)
