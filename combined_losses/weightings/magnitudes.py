"""Rules that balance the components by the size of their values, and how much it varies."""

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.live import live_mean, logarithms

__all__ = ["CoVWeighting", "GeometricMean", "MagnitudeBalance"]


@keras.saving.register_keras_serializable("combined_losses")
class MagnitudeBalance(Weighting):
    """Every component counts 1: its value divided by the running mean of its magnitude.

    `w_i = 1 / max(m_i, eps)`, `m_i = momentum * m_i + (1 - momentum) * |l_i|`, which begins with
    the first value that is not 0. When to use it: parts of different units, of which none vanishes.
    A component that falls to zero by itself takes all the weight: set `max_weight`. One that has
    been 0 so far has no unit yet: it has the geometric mean of the others' weights. After a pause
    of a component the mean moves as if the steps it has missed had brought its new value.

    Args:
        momentum: in `[0, 1)`, default 0.99.
        eps: the least mean that is divided by, default 1e-30, which is of no unit in use.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.MagnitudeBalance())
    """

    needs = frozenset({"values", "history"})

    def __init__(self, momentum=0.99, eps=1e-30, **kwargs):
        super().__init__(**kwargs)
        check_number(type(self).__name__, "momentum", momentum, 0, below=1)
        check_number(type(self).__name__, "eps", eps, 0, exclusive=True)
        self.momentum, self.eps = momentum, eps

    def initial_state(self, k):
        return {"mean": [0.0] * k}

    def rule(self, values, state, live):
        size = ops.abs(values)
        # The steps that it has missed count as if they had brought the value of this one.
        past = ops.power(float(self.momentum), state["missed"] + 1)
        moved = past * state["mean"] + (1 - past) * size
        mean = ops.where(state["mean"] > 0, moved, size)
        known = live * ops.cast(mean > 0, "float32")
        logs = ops.log(ops.where(known > 0, mean, 1.0))
        size = ops.where(known > 0, mean, ops.exp(live_mean(logs, known)))
        return 1 / ops.maximum(size, float(self.eps)), {"mean": mean}


@keras.saving.register_keras_serializable("combined_losses")
class GeometricMean(Weighting):
    """Minimises the geometric mean of the components, whatever their scales.

    `T = exp(mean(log l))`, `w_i = T / (k * l_i)`, the derivative of `T` by `l_i`; the total is `T`.
    Components must be above `lower_bound`; one that falls to it takes all the weight: set
    `max_weight`. At the bound and below, a value counts as 1e-8 of the geometric mean of the rest.

    Args:
        lower_bound: a number below all values, default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Chennupati et al., 2019, MultiNet++, arXiv:1904.08492.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.GeometricMean())
    """

    def __init__(self, lower_bound=0, **kwargs):
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        self.lower_bound = lower_bound

    def beyond(self, values, state):
        return values <= float(self.lower_bound)

    def rule(self, values, state, live):
        logs = logarithms(values - float(self.lower_bound), live)
        powers = ops.minimum(live_mean(logs, live) - logs, 85.0)
        return ops.exp(powers) / ops.maximum(ops.sum(live), 1.0)


@keras.saving.register_keras_serializable("combined_losses")
class CoVWeighting(Weighting):
    """Weights by the coefficient of variation of each component's relative decrease.

    `w_i` is proportional to `std(r_i) / mean(r_i)`, `r_i` the value divided by the running mean of
    the values before; 1/k in the first two steps. A component whose ratio moves much, relative to
    its size, is learned. Values should keep their sign. After a pause of a component the running
    mean moves as if the steps it has missed had brought its new value.

    Args:
        decay: None (default): all steps count alike; or the share of the past, in `(0, 1)`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Groenendijk et al., 2021, Multi-Loss Weighting with Coefficient of Variations,
          arXiv:2009.01717.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.CoVWeighting())
    """

    needs = frozenset({"values", "history"})
    sums_to_one = True

    def __init__(self, decay=None, **kwargs):
        super().__init__(**kwargs)
        if decay is not None:
            check_number(type(self).__name__, "decay", decay, 0, exclusive=True, below=1)
        self.decay = decay

    def initial_state(self, k):
        return {name: [0.0] * k for name in ("value", "ratio", "squares", "deviation", "seen")}

    def rule(self, values, state, live):
        steps = state["seen"]  # in which it was there
        past = 1 - 1 / (steps + 1) if self.decay is None else ops.where(steps > 0, self.decay, 0.0)
        # The steps that it has missed count as if they had brought the value of this one.
        share = ops.where(state["missed"] > 0, ops.power(past, state["missed"]), 1.0)
        mean = share * state["value"] + (1 - share) * values
        known = ops.logical_and(steps > 0, ops.not_equal(mean, 0.0))
        ratio = ops.where(known, values / ops.where(known, mean, 1.0), 1.0)
        spread = live * state["deviation"] / ops.maximum(ops.abs(state["ratio"]), 1e-8)
        # A component that has no spread yet counts as the others do in the mean.
        has_spread = ops.cast(steps > 1, "float32")
        spread = ops.where(steps > 1, spread, live * live_mean(spread, live * has_spread))
        weights = spread / ops.maximum(ops.sum(spread), 1e-30)
        equal = live / ops.maximum(ops.sum(live), 1.0)
        weights = ops.where(ops.max(steps * live) <= 1, equal, weights)
        # Welford's update of the mean and the sum of squares.
        moved = past * state["ratio"] + (1 - past) * ratio
        squares = state["squares"] + (ratio - state["ratio"]) * (ratio - moved)
        return weights, {
            "value": past * mean + (1 - past) * values,
            "ratio": moved,
            "squares": squares,
            "deviation": ops.sqrt(squares / (steps + 1) + 1e-8),
            "seen": steps + live,
        }
