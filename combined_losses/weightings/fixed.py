"""Rules that remember nothing."""

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import are_finite, as_array, check_number, shown
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.live import live_softmax

__all__ = ["Average", "RandomWeighting", "Worst"]

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
