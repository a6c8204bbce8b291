"""Softmax, mean, ratio and logarithm over the active components alone.

`active` `(k,)` is 1.0 for each component that counts in this step and 0.0 for the others.
"""

import numpy as np
from keras import ops

from combined_losses._numerics.arrays import Tensor


def active_softmax(x: Tensor, active: Tensor, temperature: float = 1.0) -> Tensor:
    """The softmax of `x / temperature` over the active entries; 0 elsewhere."""
    highest = ops.max(ops.where(active > 0, x, -np.inf))
    highest = ops.where(ops.isfinite(highest), highest, 0.0)
    # The difference is divided, not `x`: the largest entry stays exactly 0 at any temperature, and
    # a difference that overflows becomes -inf, whose power is 0.
    powers = ops.exp(ops.where(active > 0, x - highest, 0.0) / float(temperature)) * active
    return powers / ops.maximum(ops.sum(powers), 1e-30)


def active_mean(x: Tensor, active: Tensor) -> Tensor:
    """The mean over the active entries; 0 if there are none."""
    return ops.sum(ops.where(active > 0, x, 0.0)) / ops.maximum(ops.sum(active), 1.0)


# Nothing here adds a small constant to a value or clips it from below: what is small depends on the
# unit of the component. A component without a ratio or logarithm gets a stand-in instead.


def ratio(now: Tensor, past: Tensor) -> Tensor:
    """`now / past` for each component; 1, "unchanged", where that is no ratio of sizes.

    It is none where `past` is not above 0 or `now` is below 0.
    """
    known = ops.logical_and(past > 0, now >= 0)
    found = ops.where(known, now, 1.0) / ops.where(known, past, 1.0)
    return ops.minimum(found, 1e30)  # the ratio of 1e30 to 1e-30 is infinite in float32


def logarithms(x: Tensor, active: Tensor) -> Tensor:
    """The logarithms of the active entries.

    An entry that is not above 0 counts as 1e-8 times the geometric mean of the others.
    """
    positive = ops.logical_and(active > 0, x > 0)
    logs = ops.log(ops.where(positive, x, 1.0))
    # log(1e-8) = -18.420681
    mean = active_mean(logs, ops.cast(positive, "float32"))
    return ops.where(positive, logs, mean - 18.420681)
