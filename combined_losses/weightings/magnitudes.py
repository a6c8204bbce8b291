"""Rules that balance the components by the size of their values, or by how much it varies."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.active import active_mean, logarithms
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.state import RuleOutput, StateTensors

__all__ = ["CoVWeighting", "GeometricMean", "MagnitudeBalance"]


@keras.saving.register_keras_serializable("combined_losses")
class MagnitudeBalance(Weighting):
    """Every component counts 1: its value divided by the running mean of its magnitude.

    `w_i = 1 / max(m_i, eps)`, `m_i = momentum * m_i + (1 - momentum) * |l_i|`; the mean begins with
    the first value that is not 0. When to use it: components of different units, none of which
    vanishes. A component that falls to zero by itself takes all the weight: set `max_weight`. The
    unit of a component that has been 0 so far is unknown: its weight is the geometric mean of the
    weights of the others. When a component returns after steps in which it was absent, its mean is
    updated as if its new value had been there in each of these steps.

    Args:
        momentum: in `[0, 1)`, default 0.99.
        eps: the smallest mean that a value is divided by, default 1e-30, below any usual unit.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.MagnitudeBalance())
    """

    needs = frozenset({"values", "history"})

    def __init__(
        self, momentum: float = 0.99, eps: float = 1e-30, **kwargs: Unpack[RuleArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "momentum", momentum, 0, below=1)
        check_number(type(self).__name__, "eps", eps, 0, exclusive=True)
        self.momentum = momentum
        self.eps = eps

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {"mean": [0.0] * k}

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        size = ops.abs(values)
        # The steps that a component has missed count as if its value had been that of this step.
        past = ops.power(float(self.momentum), state["missed"] + 1)
        updated = past * state["mean"] + (1 - past) * size
        mean = ops.where(state["mean"] > 0, updated, size)
        known = active * ops.cast(mean > 0, "float32")
        logs = ops.log(ops.where(known > 0, mean, 1.0))
        size = ops.where(known > 0, mean, ops.exp(active_mean(logs, known)))
        return 1 / ops.maximum(size, float(self.eps)), {"mean": mean}


@keras.saving.register_keras_serializable("combined_losses")
class GeometricMean(Weighting):
    """Minimises the geometric mean of the components, whatever their scales.

    `T = exp(mean(log l))`, `w_i = T / (k * l_i)`, the derivative of `T` with respect to `l_i`; the
    total is `T`. Values are measured from `lower_bound` and must be above it. A component that
    falls to it takes all the weight: set `max_weight`. A value at the bound or below it counts as
    1e-8 times the geometric mean of the others.

    Args:
        lower_bound: a number below all values, default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Chennupati et al., 2019, MultiNet++, arXiv:1904.08492.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.GeometricMean())
    """

    def __init__(self, lower_bound: float = 0, **kwargs: Unpack[RuleArguments]) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        self.lower_bound = lower_bound

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        return values <= float(self.lower_bound)

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        logs = logarithms(values - float(self.lower_bound), active)
        powers = ops.minimum(active_mean(logs, active) - logs, 85.0)
        return ops.exp(powers) / ops.maximum(ops.sum(active), 1.0)


@keras.saving.register_keras_serializable("combined_losses")
class CoVWeighting(Weighting):
    """Weights by the coefficient of variation of each component's relative decrease.

    `w_i` is proportional to `std(r_i) / mean(r_i)`, `r_i` the value divided by the running mean of
    the values before it; 1/k in the first two steps. The more the ratio of a component varies, the
    larger its weight. Values should keep their sign. When a component returns after steps in which
    it was absent, its running mean is updated as if its new value had been there in each of these
    steps.

    Args:
        decay: None (default): all steps count alike; or the share of the past in each mean, in
            `(0, 1)`.
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

    def __init__(self, decay: float | None = None, **kwargs: Unpack[RuleArguments]) -> None:
        super().__init__(**kwargs)
        if decay is not None:
            check_number(type(self).__name__, "decay", decay, 0, exclusive=True, below=1)
        self.decay = decay

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {name: [0.0] * k for name in ("value", "ratio", "squares", "deviation", "seen")}

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        steps = state["seen"]  # the number of steps in which each component counted
        past = 1 - 1 / (steps + 1) if self.decay is None else ops.where(steps > 0, self.decay, 0.0)
        # The steps that a component has missed count as if its value had been that of this step.
        share = ops.where(state["missed"] > 0, ops.power(past, state["missed"]), 1.0)
        mean = share * state["value"] + (1 - share) * values
        known = ops.logical_and(steps > 0, ops.not_equal(mean, 0.0))
        ratio = ops.where(known, values / ops.where(known, mean, 1.0), 1.0)
        spread = active * state["deviation"] / ops.maximum(ops.abs(state["ratio"]), 1e-8)
        # A component that has no spread yet gets the mean spread of the others.
        has_spread = ops.cast(steps > 1, "float32")
        spread = ops.where(steps > 1, spread, active * active_mean(spread, active * has_spread))
        weights = spread / ops.maximum(ops.sum(spread), 1e-30)
        equal = active / ops.maximum(ops.sum(active), 1.0)
        weights = ops.where(ops.max(steps * active) <= 1, equal, weights)
        # Welford's update of the mean and the sum of squares.
        mean_ratio = past * state["ratio"] + (1 - past) * ratio
        squares = state["squares"] + (ratio - state["ratio"]) * (ratio - mean_ratio)
        return weights, {
            "value": past * mean + (1 - past) * values,
            "ratio": mean_ratio,
            "squares": squares,
            "deviation": ops.sqrt(squares / (steps + 1) + 1e-8),
            "seen": steps + active,
        }
