"""Rules that remember nothing, and schedules for single weights."""

import keras
import numpy as np
from keras import ops

from combined_losses._internal.checks import LEAST, are_finite, as_array, is_number, shown
from combined_losses._internal.live import live_softmax
from combined_losses._internal.numerics import check_number
from combined_losses.weightings.base import Weighting

__all__ = ["Average", "Cyclical", "LinearRamp", "RandomWeighting", "Sigmoid", "Smoothed", "Worst"]


_MOST = 1e30  # of a number that values are multiplied with, or taken from


@keras.saving.register_keras_serializable("combined_losses")
class Average(Weighting):
    """The weighted mean: fixed weights 7 and 3 act as 0.7 and 0.3.

    `w = 1 / sum(c)`, c the fixed weights.

    Args:
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Average()
    >>> loss = cl.CompositeLoss(["mse", "mae"], weights=[7.0, 3.0], weighting=rule)
    """

    def rule(self, values, state, live):
        total = ops.sum(self.fixed_weights() * live)
        return live / ops.where(ops.equal(total, 0.0), 1.0, total)


@keras.saving.register_keras_serializable("combined_losses")
class Worst(Weighting):
    """Minimises the worst component only, or its smooth form.

    `w` is 1 for the largest `y_i = c_i * (l_i - reference_i)` and 0 for the others. With a
    temperature mu the total is `mu * log(sum(exp(y / mu)))` and `w = softmax(y / mu)`, so that all
    components near the worst one are trained.

    Args:
        temperature: None (default): the worst one alone; or a number above 0.
        weights: factors of the components, a number of at least 0 or one for each, beside the fixed
            weights c of the composite. Default 1.
        reference: the values to be reached, a number or one for each. Default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Lin et al., 2024, Smooth Tchebycheff Scalarization, arXiv:2402.19078.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Worst(temperature=0.1)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    def __init__(self, temperature=None, weights=1, reference=0, **kwargs):
        super().__init__(**kwargs)
        if temperature is not None:
            check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        for name, given, least in (("weights", weights, 0), ("reference", reference, -_MOST)):
            array = as_array(given)
            sound = array.ndim <= 1 and are_finite(array)
            if not sound or np.any(array < least) or np.any(array > _MOST):
                raise ValueError(
                    f"`{name}` of Worst must be finite numbers from {least:g} to {_MOST:g}, one "
                    "for all or a list with one for each component: a weight below 0 would train "
                    "a component to get worse, and the product of a larger number with a value is "
                    f"no float32 number. Received: {shown(given)}"
                )
        self.temperature, self.weights, self.reference = temperature, weights, reference

    def rule(self, values, state, live):
        own = ops.convert_to_tensor(np.asarray(self.weights, "float32"))
        scores = self._scores(values)
        if self.temperature is not None:
            return own * live_softmax(scores, live, self.temperature)
        worst = ops.argmax(ops.where(live > 0, scores, -np.inf))
        return own * ops.one_hot(worst, self.num_components, dtype="float32")

    def build(self, num_components, weights=None):
        for name, given in (("weights", self.weights), ("reference", self.reference)):
            if np.ndim(given) and len(given) != num_components:
                raise ValueError(
                    f"`{name}` of Worst must have one entry for each of the {num_components} "
                    f"components. Received: {given!r}"
                )
        super().build(num_components, weights)

    def term(self, values, weights, state):
        """What is between the total and the sum of the weighted components."""
        finite = ops.isfinite(values)
        scores = self._scores(ops.where(finite, values, 1.0))
        scores = ops.where(finite, scores, -np.inf)
        highest = ops.max(scores)
        total = highest
        if self.temperature is not None:
            temperature = float(self.temperature)
            powers = ops.exp((scores - highest) / temperature)
            total = highest + temperature * ops.log(ops.sum(powers))
        summed = ops.sum(ops.where(finite, self.fixed_weights() * weights * values, 0.0))
        return ops.where(ops.any(finite), total - summed, 0.0)

    def _scores(self, values):
        own = ops.convert_to_tensor(np.asarray(self.weights, "float32"))
        reference = ops.convert_to_tensor(np.asarray(self.reference, "float32"))
        return self.fixed_weights() * own * (values - reference)


@keras.saving.register_keras_serializable("combined_losses")
class RandomWeighting(Weighting):
    """Random weights in every step, `softmax(z)`, z from the normal distribution: a baseline.

    Args:
        seed: None, or an integer for the same draws in every run.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Lin et al., 2022, Reasonable Effectiveness of Random Weighting, arXiv:2111.10603.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.RandomWeighting(seed=0)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs = frozenset()
    sums_to_one = True
    draws = True

    def __init__(self, seed=None, **kwargs):
        self.seed = seed
        super().__init__(**kwargs)

    def rule(self, values, state, live):
        z = keras.random.normal((self.num_components,), seed=self.generator)
        return live_softmax(z, live)


@keras.saving.register_keras_serializable("combined_losses")
class Smoothed(Weighting):
    """A rule whose weights move slowly: `w = momentum * w(before) + (1 - momentum) * rule`.

    A component that was absent comes back with the weight it had; weights that sum to 1 still do.

    Args:
        weighting: the rule that is smoothed.
        momentum: in `[0, 1)`, default 0.9.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Smoothed(cl.weightings.SoftAdapt(), momentum=0.99)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    def __init__(self, weighting, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(weighting, Weighting) or weighting.learned:
            raise ValueError(
                "Smoothed needs a rule of cl.weightings whose weights are not learned. "
                f"Received: {weighting!r}"
            )
        check_number(type(self).__name__, "momentum", momentum, 0, below=1)
        self.weighting, self.momentum = weighting, momentum
        self.needs = weighting.needs | {"history"}
        self.sums_to_one = weighting.sums_to_one
        if self.needs & {"gramian", "rows"} and self.update_every > 1:
            raise ValueError(
                "Smoothed moves in every step: give `update_every` to the rule inside, which reads "
                f"gradients. Received: update_every={self.update_every!r}"
            )

    @property
    def gradient_rule(self):
        return self.weighting.gradient_rule

    @property
    def has_term(self):
        return self.weighting.has_term

    def initial_state(self, k):
        return {"smooth": [0.0] * k, "started": [0.0] * k}

    def build(self, num_components, weights=None):
        super().build(num_components, weights)
        self.weighting.build(num_components, weights)

    def _apply(self, values, state, live, products):
        seen = ops.where(live > 0, values, np.nan)  # what is not finite is the rule's to leave out
        inner, _ = self.weighting.step(seen, True, products)
        moved = self.momentum * state["smooth"] + (1 - self.momentum) * inner
        smooth = ops.where(state["started"] > 0, moved, inner)
        return self._summed_as(inner, smooth, live), {"smooth": smooth, "started": live}

    def unread(self, there, values, products):
        return self.weighting.unread(there, values, products)[0], {}

    def _summed_as(self, inner, smooth, live):
        """The smooth weights, to the sum of the rule where that is 1, whoever is there."""
        size = ops.sum(smooth * live)
        if not self.sums_to_one:
            return smooth
        return smooth * ops.where(size > 0, ops.sum(inner), 1.0) / ops.where(size > 0, size, 1.0)

    def term(self, values, weights, state):
        return self.weighting.offset(values, weights)

    @property
    def variables(self):
        return [*super().variables, *self.weighting.variables]

    def reset(self):
        super().reset()
        self.weighting.reset()

    def end_epoch(self):
        self.weighting.end_epoch()

    def save(self, store):
        super().save(store)
        inner = {}
        self.weighting.save(inner)
        store.update({f"inner_{name}": value for name, value in inner.items()})

    def load(self, store):
        super().load(store)
        self.weighting.load(
            {name[6:]: value for name, value in store.items() if name.startswith("inner_")}
        )


# Schedules: a function of the step, for one weight.


@keras.saving.register_keras_serializable("combined_losses")
class LinearRamp(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that goes from one value to another in a straight line, and stays there.

    Args:
        steps: the number of steps that it takes, at least 1.
        start, end: the weights before and after, default 0 and 1.
        delay: the number of steps before it begins, default 0.

    Example:

    >>> import combined_losses as cl
    >>> ramp = cl.weightings.LinearRamp(steps=100, end=0.5)
    >>> [float(ramp(step)) for step in (0, 50, 100, 200)]
    [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(self, steps, start=0.0, end=1.0, delay=0):
        self.steps, self.start, self.end, self.delay = steps, start, end, delay
        _check_schedule(self, steps=steps, start=start, end=end, delay=delay)

    def __call__(self, step):
        share = (ops.cast(step, "float32") - float(self.delay)) / float(self.steps)
        return _between(self.start, self.end, ops.clip(share, 0.0, 1.0))

    @property
    def final_weight(self):
        """The weight after the ramp, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "steps", "start", "end", "delay")


@keras.saving.register_keras_serializable("combined_losses")
class Sigmoid(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that goes from one value to another along a logistic curve.

    Args:
        steps: the number of steps in which it goes from 5 % to 95 % of the way, at least 1.
        start, end: the weights before and after, default 0 and 1.
        midpoint: the step at which it is half way; default `steps`.

    Example:

    >>> import combined_losses as cl
    >>> curve = cl.weightings.Sigmoid(steps=100, midpoint=200)
    >>> [round(float(curve(step)), 3) for step in (0, 150, 200, 250)]
    [0.0, 0.05, 0.5, 0.95]
    """

    def __init__(self, steps, start=0.0, end=1.0, midpoint=None):
        self.steps, self.start, self.end, self.midpoint = steps, start, end, midpoint
        _check_schedule(self, steps=steps, start=start, end=end, midpoint=midpoint)

    def __call__(self, step):
        middle, steps = (
            float(self.steps if self.midpoint is None else self.midpoint),
            float(self.steps),
        )
        # sigmoid(log 19) = 0.95.
        share = ops.sigmoid(2 * np.log(19.0) * (ops.cast(step, "float32") - middle) / steps)
        return _between(self.start, self.end, share)

    @property
    def final_weight(self):
        """The weight at the end of the curve, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "steps", "start", "end", "midpoint")


@keras.saving.register_keras_serializable("combined_losses")
class Cyclical(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that rises again and again: a ramp in the first part of every cycle, then constant.

    Args:
        cycle: the number of steps of a cycle, at least 1.
        ratio: the part of a cycle in which it rises, in (0, 1]. Default 0.5.
        start, end: the weights at the beginning of a cycle and after the ramp, default 0 and 1.
        cycles: None: for ever; or the number of cycles after which it stays at `end`.

    References:
        - Fu et al., 2019, Cyclical Annealing Schedule, arXiv:1903.10145.

    Example:

    >>> import combined_losses as cl
    >>> beta = cl.weightings.Cyclical(cycle=100)
    >>> [float(beta(step)) for step in (0, 25, 50, 99, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    def __init__(self, cycle, ratio=0.5, start=0.0, end=1.0, cycles=None):
        self.cycle, self.ratio, self.start, self.end = cycle, ratio, start, end
        self.cycles = cycles
        _check_schedule(self, cycle=cycle, start=start, end=end, cycles=cycles)
        if not is_number(ratio) or not 0 < ratio <= 1:
            raise ValueError(
                f"`ratio` of Cyclical must be a finite number above 0 and at most 1. "
                f"Received: {shown(ratio)}"
            )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rise = max(float(self.cycle) * self.ratio, LEAST)
        share = ops.minimum(ops.mod(step, float(self.cycle)) / rise, 1.0)
        if self.cycles is not None:
            share = ops.where(step < float(self.cycle) * self.cycles, share, 1.0)
        return _between(self.start, self.end, share)

    @property
    def final_weight(self):
        """The weight at the end of each cycle, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "cycle", "ratio", "start", "end", "cycles")


def _between(start, end, share):
    # Floats: no backend adds a whole number above 2**63 to a tensor. Each by its own share: the
    # difference of the two may be no float32 number.
    return float(start) * (1 - share) + float(end) * share


def _check_schedule(schedule, **arguments):
    for name, value in arguments.items():
        if value is None and name in ("midpoint", "cycles"):
            continue
        counts = name in ("steps", "cycle", "cycles")
        if not is_number(value) or (counts and value < 1):
            allowed = "a number of at least 1" if counts else "a finite number"
            raise ValueError(
                f"`{name}` of {type(schedule).__name__} must be {allowed}. Received: {shown(value)}"
            )


def _config(schedule, *names):
    return {name: getattr(schedule, name) for name in names}
