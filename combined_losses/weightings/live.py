"""Softmax and mean over the components that count; what is not finite is left out."""

import numpy as np
from keras import ops


def live_softmax(x, live, temperature=1.0):
    """The softmax of `x / temperature` over the live entries; 0 elsewhere."""
    highest = ops.max(ops.where(live > 0, x, -np.inf))
    highest = ops.where(ops.isfinite(highest), highest, 0.0)
    # Divided after the difference: 0 stays 0, and what is not finite is -inf, whatever the
    # temperature.
    powers = ops.exp(ops.where(live > 0, x - highest, 0.0) / float(temperature)) * live
    return powers / ops.maximum(ops.sum(powers), 1e-30)


def live_mean(x, live):
    """The mean over the live entries; 0 without any."""
    return ops.sum(ops.where(live > 0, x, 0.0)) / ops.maximum(ops.sum(live), 1.0)


# No number may be added to a value, or be its floor: it would be another one in other units. What
# has no ratio or logarithm counts as something that has one.


def ratio(now, past):
    """`now / past` for each component; 1, as of one that stays as it is, where there is none.

    There is none to a past that is not above 0, and none of what is below 0 now.
    """
    known = ops.logical_and(past > 0, now >= 0)
    found = ops.where(known, now, 1.0) / ops.where(known, past, 1.0)
    return ops.minimum(found, 1e30)  # of 1e30 to 1e-30 it is infinite


def logarithms(x, live):
    """Those of the live entries; of one not above 0 that of 1e-8 times their geometric mean."""
    there = ops.logical_and(live > 0, x > 0)
    logs = ops.log(ops.where(there, x, 1.0))
    return ops.where(there, logs, live_mean(logs, ops.cast(there, "float32")) - 18.420681)
