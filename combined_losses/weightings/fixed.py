"""Rules that remember nothing from step to step."""

from typing import Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import are_finite, as_array, check_number, shown
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.active import active_softmax
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.state import FixedWeights, RuleOutput, StateTensors

__all__ = ["Average", "RandomWeighting", "Worst"]

_LARGEST = 1e30  # of a factor of values, or of a reference that is subtracted from them


@keras.saving.register_keras_serializable("combined_losses")
class Average(Weighting):
    """The weighted mean: fixed weights of 7 and 3 act as 0.7 and 0.3.

    `w = 1 / sum(c)`, c the fixed weights of the components that count in the step.

    Args:
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Average()
    >>> loss = cl.CompositeLoss(["mse", "mae"], weights=[7.0, 3.0], weighting=rule)
    """

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        total = ops.sum(self.fixed_weights() * active)
        return active / ops.where(ops.equal(total, 0.0), 1.0, total)


@keras.saving.register_keras_serializable("combined_losses")
class Worst(Weighting):
    """Minimises the worst component only, or its smooth form.

    `w` is 1 for the component with the largest `y_i = c_i * (l_i - reference_i)` and 0 for the
    others. With a temperature mu the total is `mu * log(sum(exp(y / mu)))` and
    `w = softmax(y / mu)`, so that all components near the worst one are trained.

    Args:
        temperature: None (default): the worst component alone is trained; or mu, above 0.
        weights: factors of the components, besides the fixed weights of the composite: one number
            of at least 0, or one for each. c is the product of both. Default 1.
        reference: the values to be reached: one number, or one for each. Default 0.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Lin et al., 2024, Smooth Tchebycheff Scalarization, arXiv:2402.19078.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Worst(temperature=0.1)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    def __init__(
        self,
        temperature: float | None = None,
        weights: ArrayLike = 1,
        reference: ArrayLike = 0,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        if temperature is not None:
            check_number(type(self).__name__, "temperature", temperature, 0, exclusive=True)
        for name, given, least in (("weights", weights, 0), ("reference", reference, -_LARGEST)):
            array = as_array(given)
            sound = array.ndim <= 1 and are_finite(array)
            if not sound or np.any(array < least) or np.any(array > _LARGEST):
                raise ValueError(
                    f"`{name}` of Worst must be finite numbers from {least:g} to {_LARGEST:g}, one "
                    "for all or a list with one for each component: a weight below 0 would train "
                    "a component to get worse, and a larger number times a value may be infinite "
                    f"in float32. Received: {shown(given)}"
                )
        self.temperature = temperature
        self.weights = weights
        self.reference = reference

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        factors = ops.convert_to_tensor(np.asarray(self.weights, "float32"))
        scores = self._scores(values)
        if self.temperature is not None:
            return factors * active_softmax(scores, active, self.temperature)
        worst = ops.argmax(ops.where(active > 0, scores, -np.inf))
        return factors * ops.one_hot(worst, self._k, dtype="float32")

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        for name, given in (("weights", self.weights), ("reference", self.reference)):
            if np.ndim(given) and np.size(given) != num_components:
                raise ValueError(
                    f"`{name}` of Worst must have one entry for each of the {num_components} "
                    f"components. Received: {given!r}"
                )
        super().build(num_components, weights)

    def term(self, values: Tensor, weights: Tensor, state: StateTensors) -> Tensor:
        """The difference between the total and the sum of the weighted components."""
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

    def _scores(self, values: Tensor) -> Tensor:
        """`y` of the formula, `(k,)`."""
        factors = ops.convert_to_tensor(np.asarray(self.weights, "float32"))
        reference = ops.convert_to_tensor(np.asarray(self.reference, "float32"))
        return self.fixed_weights() * factors * (values - reference)


@keras.saving.register_keras_serializable("combined_losses")
class RandomWeighting(Weighting):
    """Random weights in every step, `softmax(z)`, z normally distributed: a baseline.

    Args:
        seed: None, or an integer that makes the draws the same in every run.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    References:
        - Lin et al., 2022, Reasonable Effectiveness of Random Weighting, arXiv:2111.10603.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.RandomWeighting(seed=0)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs: frozenset[str] = frozenset()
    sums_to_one = True
    draws = True

    def __init__(self, seed: int | None = None, **kwargs: Unpack[RuleArguments]) -> None:
        self.seed = seed  # first, since the base checks it
        super().__init__(**kwargs)

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        z = keras.random.normal((self._k,), seed=self.generator)
        return active_softmax(z, active)
