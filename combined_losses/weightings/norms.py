"""Rules that balance the lengths of the gradients."""

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.names import quoted
from combined_losses.weightings.adam import adam_step
from combined_losses.weightings.gramian import GramianWeighting
from combined_losses.weightings.live import live_mean, live_softmax, ratio

__all__ = ["GradNorm", "GradientNormBalance", "InverseGradientNorm"]

_MODES = ("norm_sum", "norm_ref", "max_mean", "mean_ref")


@keras.saving.register_keras_serializable("combined_losses")
class InverseGradientNorm(GramianWeighting):
    """Every weighted gradient has the same length: `w_i = mean(n) / n_i`, n the lengths.

    When to use it: components of different units, at no cost beyond the gradients. It promises
    equal lengths, at the model's output by default and with `gradients="parameters"` at the
    parameters; that no component is made worse it promises for two components alone. Other units
    of a component do not change the direction of the step. A component that falls to zero by itself
    gets a large weight: set `max_weight`.

    Args:
        rescale: whether the weights are multiplied by `mean(n)`. Default True; with False,
            `w_i = 1 / n_i`, the length of the step does not depend on the scale of the losses.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.InverseGradientNorm(max_weight=100.0)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    reads_cosines = False

    def __init__(self, rescale=True, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(rescale, bool):
            raise ValueError(
                f"`rescale` of InverseGradientNorm must be True or False. Received: {rescale!r}"
            )
        self.rescale = rescale

    def combine(self, gradients, state):
        size = live_mean(gradients.norms, gradients.live) if self.rescale else 1.0
        return size / gradients.norms


@keras.saving.register_keras_serializable("combined_losses")
class GradientNormBalance(GramianWeighting):
    """Running ratios of the lengths of the gradients, made for physics-informed networks.

    `w = momentum * w + (1 - momentum) * t`, from `w = 1` on, with
    `"norm_sum"`: `t_i = sum(n) / n_i`; `"norm_ref"`: `t_i = n_ref / n_i`;
    `"max_mean"`: `t_i = max |g_ref| / mean |g_i|`; `"mean_ref"`: `t_i = mean |g_ref| / mean |g_i|`.
    n are the lengths, and the magnitudes are those of the entries of a gradient. With a reference
    its weight is 1. When to use it: one component is the equation and the others are its
    conditions. It does not promise that no component is made worse, wherever the gradients are
    taken: at the model's output by default, with `gradients="parameters"` at the parameters.
    `"max_mean"` is the oldest form and can let the conditions take all the weight.

    Args:
        momentum: in `[0, 1)`, default 0.9.
        mode: `"norm_sum"` (default), `"norm_ref"`, `"max_mean"` or `"mean_ref"`.
        reference: the index of the component that the others follow; in every mode but
            `"norm_sum"`. While it has no gradient the weights stay as they are.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

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

    def __init__(self, momentum=0.9, mode="norm_sum", reference=None, **kwargs):
        super().__init__(**kwargs)
        check_number("GradientNormBalance", "momentum", momentum, 0, below=1)
        if mode not in _MODES:
            raise ValueError(
                f"`mode` of GradientNormBalance must be one of {quoted(_MODES, 'or')}. "
                f"Received: {mode!r}"
            )
        if mode == "norm_sum" and reference is not None:
            raise ValueError(
                "`reference` of GradientNormBalance belongs to the other modes than 'norm_sum'. "
                f"Received: {reference!r}"
            )
        if mode != "norm_sum" and (not is_integer(reference) or reference < 0):
            raise ValueError(
                f"`reference` of GradientNormBalance must be the index of a component for "
                f"mode={mode!r}. Received: {reference!r}"
            )
        self.momentum, self.mode, self.reference = momentum, mode, reference
        if mode in ("max_mean", "mean_ref"):
            self.needs = self.needs | {"rows"}

    def build(self, num_components, weights=None):
        if self.reference is not None and self.reference >= num_components:
            raise ValueError(
                f"`reference` of GradientNormBalance must be below {num_components}, the number of "
                f"components. Received: {self.reference!r}"
            )
        super().build(num_components, weights)

    def initial_state(self, k):
        return {"balance": [1.0] * k}

    def combine(self, gradients, state):
        ratio = self._ratios(gradients)
        balance = self.momentum * state["balance"] + (1 - self.momentum) * ratio
        if self.reference is not None:
            known = gradients.live[self.reference] > 0
            balance = ops.where(known, balance, state["balance"])
        return balance, {"balance": balance}

    def _ratios(self, gradients):
        norms, index = gradients.norms, self.reference
        if self.mode == "norm_sum":
            return ops.sum(norms * gradients.live) / norms
        if self.mode == "norm_ref":
            return self._to_reference(norms[index], norms)
        aim = gradients.largest if self.mode == "max_mean" else gradients.mean
        return self._to_reference(aim[index], gradients.mean)

    def _to_reference(self, aim, sizes):
        is_reference = ops.arange(self.num_components) == self.reference
        return ops.where(is_reference, 1.0, aim / sizes)


@keras.saving.register_keras_serializable("combined_losses")
class GradNorm(GramianWeighting):
    """Learned weights that make the components fall at the same rate.

    `w = k * softmax(a)`. The weighted length `w_i n_i` of each gradient is drawn to
    `t_i = mean(w n) * r_i^alpha`, `r_i` the value relative to the first one, divided by the mean of
    these: the sum of `|w_i n_i - t_i| / mean(w n)` is minimised in a by Adam, with t held constant.
    The weights of a step are those before its update, 1 at first. When to use it: values above 0
    that should reach the same fraction of where they began. It does not promise that no component
    is made worse, wherever the gradients are taken: at the model's output by default, with
    `gradients="parameters"` at the parameters. A factor common to all losses changes nothing.
    (The paper moves w itself and rescales it; logits keep it positive without a floor.)

    Args:
        alpha: how strongly slow components are preferred, at least 0, default 1.5.
        learning_rate: of the logits, above 0, default 0.025.
        lower_bound: a number below all values, from which they are measured, default 0. Below it,
            or where the first value was at it, a component counts as one that stays as it is.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Chen et al., 2018, GradNorm, arXiv:1711.02257.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.GradNorm(alpha=0.5))
    """

    needs = frozenset({"values", "gramian", "history"})
    reads_cosines = False

    def __init__(self, alpha=1.5, learning_rate=0.025, lower_bound=0, **kwargs):
        super().__init__(**kwargs)
        check_number("GradNorm", "lower_bound", lower_bound)
        check_number("GradNorm", "alpha", alpha, 0)
        check_number("GradNorm", "learning_rate", learning_rate, 0, exclusive=True)
        self.alpha, self.learning_rate, self.lower_bound = alpha, learning_rate, lower_bound

    def beyond(self, values, state):
        first = ops.where(state["started"] > 0, state["first"], values)
        bound = float(self.lower_bound)
        return ops.logical_or(values < bound, first <= bound)

    def initial_state(self, k):
        names = ("logits", "m", "v", "first", "started")
        return {**{name: [0.0] * k for name in names}, "moves": 0.0}

    def combine(self, gradients, state):
        live, values = gradients.live, gradients.values
        first = ops.where(state["started"] > 0, state["first"], values)
        share = live_softmax(state["logits"], live)
        weights = gradients.count * share
        left = ratio(values - float(self.lower_bound), first - float(self.lower_bound))
        size = live_mean(left, live)
        rate = left / ops.where(size > 0, size, 1.0)
        lengths = weights * gradients.norms
        mean = live_mean(lengths, live)
        mean = ops.where(mean > 0, mean, 1.0)
        pull = ops.sign(lengths / mean - rate ** float(self.alpha)) * (gradients.norms / mean)
        slope = weights * (pull - ops.sum(share * pull))
        started = ops.maximum(state["started"], live)
        return weights, {
            **adam_step(slope, state, self.learning_rate),
            "first": first,
            "started": started,
        }
