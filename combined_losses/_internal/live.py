"""Softmax and mean over the components that count; what is not finite is left out."""

import numpy as np
from keras import ops


def live_softmax(x, live):
    """The softmax over the live entries; 0 elsewhere."""
    highest = ops.max(ops.where(live > 0, x, -np.inf))
    highest = ops.where(ops.isfinite(highest), highest, 0.0)
    powers = ops.exp(ops.where(live > 0, x - highest, 0.0)) * live
    return powers / ops.maximum(ops.sum(powers), 1e-30)


def live_mean(x, live):
    """The mean over the live entries; 0 without any."""
    return ops.sum(ops.where(live > 0, x, 0.0)) / ops.maximum(ops.sum(live), 1.0)


def positive(values, lower_bound=0.0):
    """What may be divided by, or have a logarithm: the distance from the bound, at least 1e-8."""
    return ops.maximum(values - lower_bound, 1e-8)
