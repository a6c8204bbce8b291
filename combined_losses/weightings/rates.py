"""Rules that balance the components by how fast their values fall."""

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer, shown
from combined_losses.weightings.adam import adam_step
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.live import live_softmax, ratio

__all__ = ["FAMO", "DynamicWeightAverage", "ReLoBRaLo", "SoftAdapt"]


def _per_step(change, state):
    """A change since a component was last there, as one from step to step.

    A pause would make it another one, and throw the weights around when the component is back.
    """
    return change / (state["missed"] + 1)


@keras.saving.register_keras_serializable("combined_losses")
class DynamicWeightAverage(Weighting):
    """More weight for components that fall more slowly from epoch to epoch.

    `w = k * softmax(r / temperature)`, `r_i = m_i(e - 1) / m_i(e - 2)`, `m(e)` the mean of the
    values over epoch e; 1 in the first two epochs.

    Values must be above `lower_bound`; a component without a ratio, because its mean was at the
    bound or is below it, counts as one that stays as it is, `r = 1`. After epochs in which a
    component was absent r is the mean ratio from epoch to epoch.

    Args:
        temperature: above 0, default 2; the higher, the more equal.
        period: `"epoch"` (default), an epoch of `fit`, or what `loss.end_epoch()` ends in a loop of
            one's own; or a number of steps that counts as one.
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

    def __init__(self, temperature=2, period="epoch", lower_bound=0, **kwargs):
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        if period != "epoch" and (not is_integer(period) or period < 1):
            raise ValueError(
                "`period` of DynamicWeightAverage must be 'epoch' or a number of steps of at least "
                f"1, below 2**31. Received: {shown(period)}"
            )
        self.temperature, self.period, self.lower_bound = temperature, period, lower_bound

    def beyond(self, values, state):
        bound = float(self.lower_bound)
        ended = ops.logical_and(state["periods"] > 0, state["last"] <= bound)
        return ops.logical_or(values < bound, ended)

    def initial_state(self, k):
        names = ("sum", "count", "last", "before", "periods", "span", "pause")
        return {**{name: [0.0] * k for name in names}, "length": 0.0}

    def rule(self, values, state, live):
        moved = dict(state)
        if self.period != "epoch":
            full = ops.equal(state["length"], float(self.period))
            swapped = _next_period(state)
            moved = {name: ops.where(full, swapped[name], state[name]) for name in swapped}
        bound = float(self.lower_bound)
        ratios = ratio(moved["last"] - bound, moved["before"] - bound)
        # From one period to the next, also where it was away for some between them.
        ratios = ops.power(ratios, 1 / ops.maximum(moved["span"], 1.0))
        known = moved["periods"] >= 2
        # A component without two periods counts as one that stays as it is.
        ratios = ops.where(known, ratios, 1.0)
        k = ops.sum(live)
        weights = k * live_softmax(ratios, live, self.temperature)
        weights = ops.where(ops.any(known), weights, ops.ones_like(weights))
        moved["sum"], moved["count"] = moved["sum"] + values * live, moved["count"] + live
        moved["length"] = moved["length"] + 1
        return weights, {name: moved[name] for name in _PERIOD}

    @property
    def goes_by_epochs(self):
        return self.period == "epoch"

    instead_of_epochs = ", or give the rule `period=`, a number of steps that counts as one"

    def end_epoch(self):
        if self.period != "epoch":
            return
        state = {name: ops.convert_to_tensor(self._state[name]) for name in _PERIOD}
        for name, value in _next_period(state).items():
            self._state[name].assign(value)


_PERIOD = ("sum", "count", "last", "before", "periods", "span", "pause", "length")


def _next_period(state):
    """The state after a period; a component without a value in it keeps its means."""
    had_value = state["count"] > 0
    some = ops.cast(state["length"] > 0, "float32")  # an epoch without steps is no period
    mean = state["sum"] / ops.maximum(state["count"], 1.0)
    return {
        "before": ops.where(had_value, state["last"], state["before"]),
        "last": ops.where(had_value, mean, state["last"]),
        "periods": state["periods"] + ops.cast(had_value, "float32"),
        "span": ops.where(had_value, state["pause"] + 1, state["span"]),
        "pause": ops.where(had_value, 0.0, state["pause"] + some),
        "sum": ops.zeros_like(mean),
        "count": ops.zeros_like(mean),
        "length": ops.zeros_like(state["length"]),
    }


@keras.saving.register_keras_serializable("combined_losses")
class SoftAdapt(Weighting):
    """More weight for components that rise, or fall more slowly, from step to step.

    `w = softmax(beta * D)`, `D_i = l_i(s) - l_i(s - 1)`; 1/k at first. After a pause of a component
    its D is the mean change from step to step.

    Args:
        beta: the sharpness, default 0.1. It has a unit, that of 1 / values, unless `normalized`.
        normalized: whether D is divided by the sum of its magnitudes. Default False.
        loss_weighted: whether the exponentials are multiplied by the values, which must not be
            below 0 then. Default False.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Heydari et al., 2019, SoftAdapt, arXiv:1912.12355. (The authors' package divides by the
          signed sum of the differences, which can flip their signs; here it is that of magnitudes.)

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.SoftAdapt(normalized=True))
    """

    needs = frozenset({"values", "history"})
    sums_to_one = True

    def __init__(self, beta=0.1, normalized=False, loss_weighted=False, **kwargs):
        super().__init__(**kwargs)
        check_number(type(self).__name__, "beta", beta)
        for name, given in (("normalized", normalized), ("loss_weighted", loss_weighted)):
            if not isinstance(given, bool):
                raise ValueError(
                    f"`{name}` of SoftAdapt must be True or False. Received: {given!r}"
                )
        self.beta, self.normalized, self.loss_weighted = beta, normalized, loss_weighted

    def beyond(self, values, state):
        return ops.logical_and(values < 0, self.loss_weighted)

    cure = "take loss_weighted=False, or a loss above 0"

    def initial_state(self, k):
        return {"before": [0.0] * k, "started": [0.0] * k}

    def rule(self, values, state, live):
        known = live * state["started"]
        change = ops.where(known > 0, _per_step(values - state["before"], state), 0.0)
        if self.normalized:
            size = ops.sum(ops.abs(change) * live)
            change = change / ops.where(size > 0, size, 1.0)
        # beta (D - max D), or of a beta below 0 that of -beta and -D: of any size, at most 0.
        sign = -1.0 if self.beta < 0 else 1.0
        weights = live_softmax(sign * abs(float(self.beta)) * change, live)
        if self.loss_weighted:
            sizes = ops.maximum(values, 0.0) * live
            weights = weights * sizes / ops.where(ops.any(sizes > 0), ops.max(sizes), 1.0)
        size = ops.sum(weights)
        equal = live / ops.maximum(ops.sum(live), 1.0)
        started = ops.logical_and(ops.any(state["started"] > 0), size > 0)
        weights = ops.where(started, weights / ops.where(size > 0, size, 1.0), equal)
        return weights, {"before": values, "started": live}


@keras.saving.register_keras_serializable("combined_losses")
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random lookback, made for physics-informed networks.

    `balance(a) = k * softmax(l(s) / (temperature * a))`;
    `h = b * w(s - 1) + (1 - b) * balance(l(0))`, `b ~ Bernoulli(rho)`;
    `w = alpha * h + (1 - alpha) * balance(l(s - 1))`; 1 at first. Values must be above
    `lower_bound`; where the past of a component was at the bound, or its value is below it, it
    counts as one that stays as it is, `l / a = 1`. (The paper adds 1e-8 to the past instead, which
    is another number in other units.) After a pause of a component `l(s) / l(s - 1)` is the mean
    ratio from step to step; together the others keep the share that they had.

    Args:
        alpha: the share of the past, in `[0, 1]`, default 0.999.
        rho: the probability of looking back at the last weights instead of the first values, in
            `[0, 1]`, default 0.999.
        temperature: above 0, default 1.
        seed: None, or an integer for the same draws in every run.
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

    def __init__(self, alpha=0.999, rho=0.999, temperature=1.0, seed=None, lower_bound=0, **kwargs):
        self.seed = seed
        super().__init__(**kwargs)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        check_number(type(self).__name__, "alpha", alpha, 0, maximum=1)
        check_number(type(self).__name__, "rho", rho, 0, maximum=1)
        check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        self.alpha, self.rho, self.temperature = alpha, rho, temperature
        self.lower_bound = lower_bound

    def beyond(self, values, state):
        first = ops.where(state["started"] > 0, state["first"], values)
        bound = float(self.lower_bound)
        return ops.logical_or(values < bound, first <= bound)

    def initial_state(self, k):
        names = ("before", "first", "started")
        return {"weights": [1.0] * k, **{name: [0.0] * k for name in names}}

    def rule(self, values, state, live):
        draw = keras.random.uniform((), seed=self.generator)
        return self._after(values, state, live, ops.cast(draw < self.rho, "float32"))

    def _after(self, values, state, live, keep):
        """The rule with the draw `keep`, 0.0 or 1.0."""
        known, bound = live * state["started"], float(self.lower_bound)

        def balance(past, steps=1.0):
            # A component without a past has the ratio 1 to it.
            ratios = ops.power(ratio(values - bound, past - bound), 1 / steps)
            ratios = ops.where(known > 0, ratios, 1.0)
            return ops.sum(live) * live_softmax(ratios, live, self.temperature)

        # To the sum k, where components are missing now.
        past = state["weights"] * live
        size, k = ops.sum(past), ops.sum(live)
        share = ops.where(ops.abs(size - k) < 1e-3 * k, 1.0, k / ops.maximum(size, 1e-30))
        past = past * share
        looked = keep * past + (1 - keep) * balance(state["first"])
        latest = balance(state["before"], state["missed"] + 1)  # the change from step to step
        weights = self.alpha * looked + (1 - self.alpha) * latest
        weights = ops.where(ops.any(state["started"] > 0), weights, ops.ones_like(weights))
        first = ops.where(state["started"] > 0, state["first"], values)
        started = ops.maximum(state["started"], live)
        # Without those that are missing now the rest have together what they had.
        unscaled = weights / ops.where(share > 0, share, 1.0)
        new = {"weights": unscaled, "before": values, "first": first, "started": started}
        return weights, new


@keras.saving.register_keras_serializable("combined_losses")
class FAMO(Weighting):
    """Fast adaptive multitask optimisation: all components fall at the same rate.

    `z = softmax(xi)`, `w_i` proportional to `z_i / l_i`, sum 1. The logits xi move by Adam towards
    the components that fell least from the step before. One forward pass a step: the values of this
    step are those after the last one. To every value the paper adds 1e-8, which is kept here: of
    values above some 1e-4 units do not matter, and of values near 1e-8 none is told from another.
    Multiply such losses (`cl.wrappers.Scaled`), or take `GeometricMean`. After a pause a component
    has fallen by the mean from step to step.

    Args:
        learning_rate: of the logits, default 0.025.
        weight_decay: of the logits, default 1e-3. 0 lets them go further; it decides much.
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

    def __init__(self, learning_rate=0.025, weight_decay=1e-3, lower_bound=0, **kwargs):
        super().__init__(**kwargs)
        check_number(type(self).__name__, "learning_rate", learning_rate, 0, exclusive=True)
        check_number(type(self).__name__, "weight_decay", weight_decay, 0)
        check_number(type(self).__name__, "lower_bound", lower_bound)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.lower_bound = lower_bound

    def initial_state(self, k):
        names = ("logits", "m", "v", "before", "started")
        return {**{name: [0.0] * k for name in names}, "moves": 0.0}

    def beyond(self, values, state):
        return values <= float(self.lower_bound)

    def rule(self, values, state, live):
        distance = ops.maximum(values - float(self.lower_bound), 0.0) + 1e-8
        started = state["started"] * live
        fall = ops.log(ops.maximum(state["before"], 1e-8)) - ops.log(distance)
        fall = ops.where(started > 0, _per_step(fall, state), 0.0)
        share = live_softmax(state["logits"], live)
        slope = share * (fall - ops.sum(share * fall)) + float(self.weight_decay) * state["logits"]
        moved = adam_step(slope, state, self.learning_rate)
        any_past = ops.any(started > 0)
        moved = {name: ops.where(any_past, moved[name], state[name]) for name in moved}
        # z / D in logarithms: 1 / D may be no float32 number.
        weights = live_softmax(moved["logits"] - ops.log(distance), live)
        return weights, {**moved, "before": distance, "started": live}
