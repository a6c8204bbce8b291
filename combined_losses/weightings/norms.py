"""Rules that balance the lengths of the gradients."""

from typing import Literal, Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.active import active_mean, active_softmax, ratio
from combined_losses.weightings.adam import adam_step
from combined_losses.weightings.gramian import GradientArguments, GramianWeighting
from combined_losses.weightings.products import Gradients
from combined_losses.weightings.state import FixedWeights, RuleOutput, StateTensors

__all__ = ["GradNorm", "GradientNormBalance", "InverseGradientNorm"]

_MODES = ("norm_sum", "norm_ref", "max_mean", "mean_ref")


@keras.saving.register_keras_serializable("combined_losses")
class InverseGradientNorm(GramianWeighting):
    """Every weighted gradient has the same length: `w_i = mean(n) / n_i`, n the lengths.

    When to use it: components of different units, at no cost beyond the gradients. It promises
    equal lengths, at the model's output by default and with `gradients="parameters"` at the
    parameters. Only for two components does it also promise that none is made worse. The units of
    the components do not change the direction of the step. A component that falls to zero by itself
    gets a large weight: set `max_weight`.

    Args:
        rescale: whether the weights are multiplied by `mean(n)`. Default True. With False,
            `w_i = 1 / n_i`: the length of the step does not depend on the scale of the losses.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.InverseGradientNorm(max_weight=100.0)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    reads_cosines = False

    def __init__(self, rescale: bool = True, **kwargs: Unpack[GradientArguments]) -> None:
        super().__init__(**kwargs)
        if not isinstance(rescale, bool):
            raise ValueError(
                f"`rescale` of InverseGradientNorm must be True or False. Received: {rescale!r}"
            )
        self.rescale = rescale

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        size = active_mean(gradients.norms, gradients.active) if self.rescale else 1.0
        return size / gradients.norms


@keras.saving.register_keras_serializable("combined_losses")
class GradientNormBalance(GramianWeighting):
    """Running ratios of the lengths of the gradients, made for physics-informed networks.

    `w = momentum * w + (1 - momentum) * t`, beginning with `w = 1`. The target t depends on `mode`:
    `"norm_sum"`: `t_i = sum(n) / n_i`; `"norm_ref"`: `t_i = n_ref / n_i`;
    `"max_mean"`: `t_i = max |g_ref| / mean |g_i|`; `"mean_ref"`: `t_i = mean |g_ref| / mean |g_i|`.
    n are the lengths of the gradients; the maxima and means are over the entries of a gradient. The
    weight of a reference is 1. When to use it: one component is the equation and the others are its
    conditions. It does not promise that no component is made worse, wherever the gradients are
    taken: at the model's output by default, with `gradients="parameters"` at the parameters.
    `"max_mean"` is the oldest form and can let the conditions take all the weight.

    Args:
        momentum: in `[0, 1)`, default 0.9.
        mode: `"norm_sum"` (default), `"norm_ref"`, `"max_mean"` or `"mean_ref"`.
        reference: the index of the component that the others follow, for every mode but
            `"norm_sum"`. While it has no gradient, the weights stay as they are.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Wang, Teng and Perdikaris, 2021, arXiv:2001.04536 (`"max_mean"`, with the momentum of the
          authors' code).
        - Wang et al., 2023, An Expert's Guide to Training Physics-informed Neural Networks,
          arXiv:2308.08468 (`"norm_sum"`).

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.GradientNormBalance(mode="norm_ref", reference=0, update_every=10)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs = frozenset({"gramian", "history"})
    reads_cosines = False

    def __init__(
        self,
        momentum: float = 0.9,
        mode: Literal["norm_sum", "norm_ref", "max_mean", "mean_ref"] = "norm_sum",
        reference: int | None = None,
        **kwargs: Unpack[GradientArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("GradientNormBalance", "momentum", momentum, 0, below=1)
        if mode not in _MODES:
            raise ValueError(
                f"`mode` of GradientNormBalance must be one of {quoted(_MODES, 'or')}. "
                f"Received: {mode!r}"
            )
        if mode == "norm_sum" and reference is not None:
            raise ValueError(
                "`reference` of GradientNormBalance belongs to modes other than 'norm_sum'. "
                f"Received: {reference!r}"
            )
        is_index = reference is not None and is_integer(reference) and reference >= 0
        if mode != "norm_sum" and not is_index:
            raise ValueError(
                f"`reference` of GradientNormBalance must be the index of a component for "
                f"mode={mode!r}. Received: {reference!r}"
            )
        self.momentum = momentum
        self.mode = mode
        self.reference = reference
        if mode in ("max_mean", "mean_ref"):
            self.needs = self.needs | {"rows"}

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        if self.reference is not None and self.reference >= num_components:
            raise ValueError(
                f"`reference` of GradientNormBalance must be below {num_components}, the number of "
                f"components. Received: {self.reference!r}"
            )
        super().build(num_components, weights)

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {"balance": [1.0] * k}

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        targets = self._targets(gradients)
        balance = self.momentum * state["balance"] + (1 - self.momentum) * targets
        if self.reference is not None:
            known = gradients.active[self.reference] > 0
            balance = ops.where(known, balance, state["balance"])
        return balance, {"balance": balance}

    def _targets(self, gradients: Gradients) -> Tensor:
        """t of the formula, `(k,)`."""
        norms, index = gradients.norms, self.reference
        if index is None:
            return ops.sum(norms * gradients.active) / norms
        if self.mode == "norm_ref":
            return self._to_reference(norms[index], norms)
        sizes = gradients.largest if self.mode == "max_mean" else gradients.mean
        return self._to_reference(sizes[index], gradients.mean)

    def _to_reference(self, size: Tensor, sizes: Tensor) -> Tensor:
        """The size `()` of the reference, divided by those of all components; 1 for itself."""
        is_reference = ops.arange(self._k) == self.reference
        return ops.where(is_reference, 1.0, size / sizes)


@keras.saving.register_keras_serializable("combined_losses")
class GradNorm(GramianWeighting):
    """Learned weights that make the components fall at the same rate.

    `w = k * softmax(a)`. The weighted length `w_i n_i` of each gradient is drawn towards
    `t_i = mean(w n) * r_i^alpha`. `r_i` is the value divided by the first value of the component,
    and by the mean of these ratios. Adam minimises the sum of `|w_i n_i - t_i| / mean(w n)` over
    the logits a, with t held constant. The weights of a step are those before its update, 1 at
    first. When to use it: values above 0 that should reach the same fraction of where they began.
    It does not promise that no component is made worse, wherever the gradients are taken: at the
    model's output by default, with `gradients="parameters"` at the parameters. A factor common to
    all losses changes nothing. (The paper updates w itself and rescales it; logits keep it positive
    without a lower limit.)

    Args:
        alpha: how strongly slow components are preferred, at least 0, default 1.5.
        learning_rate: of the logits, above 0, default 0.025.
        lower_bound: a number below all values, from which they are measured, default 0. A component
            whose value is below it, or whose first value was at it, counts as unchanged.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Chen et al., 2018, GradNorm, arXiv:1711.02257.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.GradNorm(alpha=0.5))
    """

    needs = frozenset({"values", "gramian", "history"})
    reads_cosines = False

    def __init__(
        self,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        lower_bound: float = 0,
        **kwargs: Unpack[GradientArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("GradNorm", "lower_bound", lower_bound)
        check_number("GradNorm", "alpha", alpha, 0)
        check_number("GradNorm", "learning_rate", learning_rate, 0, exclusive=True)
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.lower_bound = lower_bound

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        first = ops.where(state["started"] > 0, state["first"], values)
        bound = float(self.lower_bound)
        return ops.logical_or(values < bound, first <= bound)

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        names = ("logits", "m", "v", "first", "started")
        return {**{name: [0.0] * k for name in names}, "moves": 0.0}

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        active, values = gradients.active, gradients.values
        first = ops.where(state["started"] > 0, state["first"], values)
        share = active_softmax(state["logits"], active)
        weights = gradients.count * share
        remaining = ratio(values - float(self.lower_bound), first - float(self.lower_bound))
        size = active_mean(remaining, active)
        rate = remaining / ops.where(size > 0, size, 1.0)
        lengths = weights * gradients.norms
        mean = active_mean(lengths, active)
        mean = ops.where(mean > 0, mean, 1.0)
        pull = ops.sign(lengths / mean - rate ** float(self.alpha)) * (gradients.norms / mean)
        slope = weights * (pull - ops.sum(share * pull))
        started = ops.maximum(state["started"], active)
        return weights, {
            **adam_step(slope, state, self.learning_rate),
            "first": first,
            "started": started,
        }
