"""Rules that balance the components by how fast their values fall."""

from typing import Literal, Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer, shown
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.active import active_softmax, ratio
from combined_losses.weightings.adam import adam_step
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.state import RuleOutput, StateTensors

__all__ = ["FAMO", "DynamicWeightAverage", "ReLoBRaLo", "SoftAdapt"]


def _per_step(change: Tensor, state: StateTensors) -> Tensor:
    """The mean change per step, of a change since the component last counted.

    Without the mean, the change over a pause would be taken for that of a single step, and the
    weights would jump when the component returns.
    """
    return change / (state["missed"] + 1)


@keras.saving.register_keras_serializable("combined_losses")
class DynamicWeightAverage(Weighting):
    """More weight for components that fall more slowly from epoch to epoch.

    `w = k * softmax(r / temperature)`, `r_i = m_i(e - 1) / m_i(e - 2)`, `m(e)` the mean of the
    values over epoch e; 1 in the first two epochs.

    Values must be above `lower_bound`. A component has no ratio if its mean was at the bound or is
    below it; it then counts as unchanged, `r = 1`. After epochs in which a component was absent, r
    is the mean ratio from epoch to epoch.

    Args:
        temperature: above 0, default 2; the higher it is, the more equal the weights are.
        period: `"epoch"` (default): an epoch of `fit`, or, in a loop of your own, the steps up to
            `loss.end_epoch()`; or a number of steps to use in place of an epoch.
        lower_bound: a number below all values, from which they are measured, default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Liu et al., 2019, End-to-End Multi-Task Learning with Attention, arXiv:1803.10704.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.DynamicWeightAverage(period=100)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs = frozenset({"values", "history"})
    masks_state = True

    def __init__(
        self,
        temperature: float = 2,
        period: int | Literal["epoch"] = "epoch",
        lower_bound: float = 0,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        if period != "epoch" and (not is_integer(period) or period < 1):
            raise ValueError(
                "`period` of DynamicWeightAverage must be 'epoch' or a number of steps of at least "
                f"1, below 2**31. Received: {shown(period)}"
            )
        self.temperature = temperature
        self.period = period
        self.lower_bound = lower_bound

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        bound = float(self.lower_bound)
        ended = ops.logical_and(state["periods"] > 0, state["last"] <= bound)
        return ops.logical_or(values < bound, ended)

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        names = ("sum", "count", "last", "before", "periods", "span", "pause")
        return {**{name: [0.0] * k for name in names}, "length": 0.0}

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        new = dict(state)
        if self.period != "epoch":
            is_over = ops.equal(state["length"], float(self.period))
            after = _next_period(state)
            new = {name: ops.where(is_over, after[name], state[name]) for name in after}
        bound = float(self.lower_bound)
        ratios = ratio(new["last"] - bound, new["before"] - bound)
        # The mean ratio from period to period, if the component was absent in some between the two.
        ratios = ops.power(ratios, 1 / ops.maximum(new["span"], 1.0))
        known = new["periods"] >= 2
        # A component without two periods counts as unchanged.
        ratios = ops.where(known, ratios, 1.0)
        k = ops.sum(active)
        weights = k * active_softmax(ratios, active, self.temperature)
        weights = ops.where(ops.any(known), weights, ops.ones_like(weights))
        new["sum"], new["count"] = new["sum"] + values * active, new["count"] + active
        new["length"] = new["length"] + 1
        return weights, {name: new[name] for name in _PERIOD}

    @property
    def goes_by_epochs(self) -> bool:
        return self.period == "epoch"

    instead_of_epochs = ", or give the rule `period=`, a number of steps that counts as one"

    def end_epoch(self) -> None:
        if self.period != "epoch":
            return
        state = {name: ops.convert_to_tensor(self._state[name]) for name in _PERIOD}
        for name, value in _next_period(state).items():
            self._state[name].assign(value)


# Of each component: the sum and number of its values in this period, its mean in the last period
# that had a value and in the one before, the number of such periods, the distance between the last
# two of them, and the number of periods without a value since. `length`: the steps of this period.
_PERIOD = ("sum", "count", "last", "before", "periods", "span", "pause", "length")


def _next_period(state: StateTensors) -> StateTensors:
    """The state after the end of a period; a component without a value in it keeps its means."""
    had_value = state["count"] > 0
    had_steps = ops.cast(state["length"] > 0, "float32")  # an epoch without steps is no period
    mean = state["sum"] / ops.maximum(state["count"], 1.0)
    return {
        "before": ops.where(had_value, state["last"], state["before"]),
        "last": ops.where(had_value, mean, state["last"]),
        "periods": state["periods"] + ops.cast(had_value, "float32"),
        "span": ops.where(had_value, state["pause"] + 1, state["span"]),
        "pause": ops.where(had_value, 0.0, state["pause"] + had_steps),
        "sum": ops.zeros_like(mean),
        "count": ops.zeros_like(mean),
        "length": ops.zeros_like(state["length"]),
    }


@keras.saving.register_keras_serializable("combined_losses")
class SoftAdapt(Weighting):
    """More weight for components that rise, or fall more slowly, from step to step.

    `w = softmax(beta * D)`, `D_i = l_i(s) - l_i(s - 1)`; 1/k at first. When a component returns
    after steps in which it was absent, D is its mean change per step.

    Args:
        beta: the sharpness, default 0.1. Its unit is that of 1 / values, unless `normalized`.
        normalized: whether D is divided by the sum of its magnitudes. Default False.
        loss_weighted: whether the exponentials are multiplied by the values, which then must not be
            below 0. Default False.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Heydari et al., 2019, SoftAdapt, arXiv:1912.12355. (The authors' package divides by the
          signed sum of the differences, which can flip their signs; here the magnitudes are added.)

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.SoftAdapt(normalized=True))
    """

    needs = frozenset({"values", "history"})
    sums_to_one = True

    def __init__(
        self,
        beta: float = 0.1,
        normalized: bool = False,
        loss_weighted: bool = False,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "beta", beta)
        for name, given in (("normalized", normalized), ("loss_weighted", loss_weighted)):
            if not isinstance(given, bool):
                raise ValueError(
                    f"`{name}` of SoftAdapt must be True or False. Received: {given!r}"
                )
        self.beta = beta
        self.normalized = normalized
        self.loss_weighted = loss_weighted

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        return ops.logical_and(values < 0, self.loss_weighted)

    cure = "take loss_weighted=False, or a loss above 0"

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {"before": [0.0] * k, "started": [0.0] * k}

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        known = active * state["started"]
        change = ops.where(known > 0, _per_step(values - state["before"], state), 0.0)
        if self.normalized:
            size = ops.sum(ops.abs(change) * active)
            change = change / ops.where(size > 0, size, 1.0)
        # The softmax takes beta (D - max D), which is at most 0 if beta is above 0. For a negative
        # beta it takes -beta and -D, which have the same product and keep that property.
        sign = -1.0 if self.beta < 0 else 1.0
        weights = active_softmax(sign * abs(float(self.beta)) * change, active)
        if self.loss_weighted:
            sizes = ops.maximum(values, 0.0) * active
            weights = weights * sizes / ops.where(ops.any(sizes > 0), ops.max(sizes), 1.0)
        size = ops.sum(weights)
        equal = active / ops.maximum(ops.sum(active), 1.0)
        started = ops.logical_and(ops.any(state["started"] > 0), size > 0)
        weights = ops.where(started, weights / ops.where(size > 0, size, 1.0), equal)
        return weights, {"before": values, "started": active}


@keras.saving.register_keras_serializable("combined_losses")
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random lookback, made for physics-informed networks.

    `balance(a) = k * softmax(l(s) / (temperature * a))`;
    `h = b * w(s - 1) + (1 - b) * balance(l(0))`, `b ~ Bernoulli(rho)`;
    `w = alpha * h + (1 - alpha) * balance(l(s - 1))`; 1 at first. Values must be above
    `lower_bound`. A component whose past value was at the bound, or whose value is below it, counts
    as unchanged, `l / a = 1`. (The paper adds 1e-8 to the past value instead, whose effect depends
    on the unit.) When a component returns after steps in which it was absent, `l(s) / l(s - 1)` is
    its mean ratio per step; the others together keep the share that they had.

    Args:
        alpha: the share of the past, in `[0, 1]`, default 0.999.
        rho: the probability of looking back at the last weights instead of the first values, in
            `[0, 1]`, default 0.999.
        temperature: above 0, default 1.
        seed: None, or an integer that makes the draws the same in every run.
        lower_bound: a number below all values, from which they are measured, default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Bischof and Kraus, 2021, Multi-Objective Loss Balancing for Physics-Informed Deep
          Learning, arXiv:2110.09813.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.ReLoBRaLo(seed=0))
    """

    needs = frozenset({"values", "history"})
    draws = True

    def __init__(
        self,
        alpha: float = 0.999,
        rho: float = 0.999,
        temperature: float = 1.0,
        seed: int | None = None,
        lower_bound: float = 0,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        self.seed = seed  # first, since the base checks it
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        check_number(type(self).__name__, "alpha", alpha, 0, maximum=1)
        check_number(type(self).__name__, "rho", rho, 0, maximum=1)
        check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        self.alpha = alpha
        self.rho = rho
        self.temperature = temperature
        self.lower_bound = lower_bound

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        first = ops.where(state["started"] > 0, state["first"], values)
        bound = float(self.lower_bound)
        return ops.logical_or(values < bound, first <= bound)

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        names = ("before", "first", "started")
        return {"weights": [1.0] * k, **{name: [0.0] * k for name in names}}

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        draw = keras.random.uniform((), seed=self.generator)
        return self._after_draw(values, state, active, ops.cast(draw < self.rho, "float32"))

    def _after_draw(
        self, values: Tensor, state: StateTensors, active: Tensor, keep: Tensor
    ) -> tuple[Tensor, StateTensors]:
        """The rule, given the draw b of the formula: `keep`, 0.0 or 1.0."""
        known, bound = active * state["started"], float(self.lower_bound)

        def balance(past: Tensor, steps: Tensor = 1.0) -> Tensor:
            # A component without a past counts as unchanged.
            ratios = ops.power(ratio(values - bound, past - bound), 1 / steps)
            ratios = ops.where(known > 0, ratios, 1.0)
            return ops.sum(active) * active_softmax(ratios, active, self.temperature)

        # If components are absent now, the last weights of the others are rescaled to the sum k.
        past = state["weights"] * active
        size, k = ops.sum(past), ops.sum(active)
        share = ops.where(ops.abs(size - k) < 1e-3 * k, 1.0, k / ops.maximum(size, 1e-30))
        past = past * share
        history = keep * past + (1 - keep) * balance(state["first"])  # h of the formula
        latest = balance(state["before"], state["missed"] + 1)  # from the mean ratio per step
        weights = self.alpha * history + (1 - self.alpha) * latest
        weights = ops.where(ops.any(state["started"] > 0), weights, ops.ones_like(weights))
        first = ops.where(state["started"] > 0, state["first"], values)
        started = ops.maximum(state["started"], active)
        # The state keeps the weights without the rescaling: the sum of the others is what it was.
        unscaled = weights / ops.where(share > 0, share, 1.0)
        new = {"weights": unscaled, "before": values, "first": first, "started": started}
        return weights, new


@keras.saving.register_keras_serializable("combined_losses")
class FAMO(Weighting):
    """Fast adaptive multitask optimisation: all components fall at the same rate.

    `z = softmax(xi)`, `w_i` proportional to `z_i / l_i`, with the sum 1. Adam moves the logits xi
    towards the components that fell least since the step before. A step needs one forward pass: the
    values of this step serve as those after the last update. The paper adds 1e-8 to every value,
    and so does this rule. For values above about 1e-4 units therefore do not matter, but values
    near 1e-8 cannot be told apart: multiply such losses (`cl.wrappers.Scaled`), or take
    `GeometricMean`. When a component returns after steps in which it was absent, its fall is the
    mean per step.

    Args:
        learning_rate: of the logits, default 0.025.
        weight_decay: of the logits, default 1e-3. With 0 they move further; the results depend on
            it strongly.
        lower_bound: a number below all values, default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Liu et al., 2023, FAMO, arXiv:2306.03792.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.FAMO())
    """

    needs = frozenset({"values", "history"})
    sums_to_one = True

    def __init__(
        self,
        learning_rate: float = 0.025,
        weight_decay: float = 1e-3,
        lower_bound: float = 0,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "learning_rate", learning_rate, 0, exclusive=True)
        check_number(type(self).__name__, "weight_decay", weight_decay, 0)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lower_bound = lower_bound

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        names = ("logits", "m", "v", "before", "started")
        return {**{name: [0.0] * k for name in names}, "moves": 0.0}

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        return values <= float(self.lower_bound)

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        distance = ops.maximum(values - float(self.lower_bound), 0.0) + 1e-8
        started = state["started"] * active
        fall = ops.log(ops.maximum(state["before"], 1e-8)) - ops.log(distance)
        fall = ops.where(started > 0, _per_step(fall, state), 0.0)
        share = active_softmax(state["logits"], active)
        slope = share * (fall - ops.sum(share * fall)) + float(self.weight_decay) * state["logits"]
        stepped = adam_step(slope, state, self.learning_rate)
        any_past = ops.any(started > 0)
        new = {name: ops.where(any_past, stepped[name], state[name]) for name in stepped}
        # z / D by logarithms, because 1 / D may overflow in float32.
        weights = active_softmax(new["logits"] - ops.log(distance), active)
        return weights, {**new, "before": distance, "started": active}
