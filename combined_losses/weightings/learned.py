"""Weights that are trained with the model."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, Unpack

import keras
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.checks import check_number
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.state import (
    FixedWeights,
    RuleOutput,
    StateTensors,
    state_variable,
)

__all__ = ["UncertaintyWeighting"]

Kind: TypeAlias = Literal["regression", "classification", "revised"]

KINDS = ("regression", "classification", "revised")
LIMIT = 10.0  # of the logarithm of a variance, in both directions


@keras.saving.register_keras_serializable("combined_losses")
class UncertaintyWeighting(Weighting):
    """Weights from a learned variance of every component.

    `s_i` is the logarithm of the variance of component i; each component adds a weight and a term:

    - regression: `w_i = exp(-s_i) / 2` and the term `s_i / 2`;
    - classification: `w_i = exp(-s_i)` and the term `s_i / 2`;
    - revised: `w_i = exp(-s_i) / 2` and the term `log(1 + exp(s_i))`.

    The sum of the terms is the `weighting_loss` in the logs. In the first two forms it may be
    negative, and so may the total: watch `base_loss` instead.

    Args:
        kind: `"regression"` (default), `"classification"` or `"revised"`, or a list with one for
            each component.
        initial: the value of s at first, default 0.
        learning_rate: None (default): the optimizer of the model trains s, without weight decay;
            or the size of gradient steps of the rule's own, such as 0.01.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    s is kept between -10 and 10. The units of the values therefore make no difference only for
    values between 1e-4 and 1e4. Values must not be negative.

    References:
        - Kendall et al., 2018, Multi-Task Learning Using Uncertainty, arXiv:1705.07115.
        - Liebel and Koerner, 2018, Auxiliary Tasks in Multi-Task Learning (the revised form),
          arXiv:1805.06334.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.UncertaintyWeighting(["regression", "classification"])
    >>> loss = cl.CompositeLoss(["mse", "binary_crossentropy"], weighting=rule)
    """

    needs = frozenset({"values", "history"})

    def __init__(
        self,
        kind: Kind | Sequence[Kind] = "regression",
        initial: float = 0.0,
        learning_rate: float | None = None,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        kinds = kind if isinstance(kind, (list, tuple)) else [kind]
        if not kinds or any(each not in KINDS for each in kinds):
            raise ValueError(
                f"`kind` of UncertaintyWeighting must be {quoted(KINDS, 'or')}, or "
                f"a list of them. Received: {kind!r}"
            )
        check_number(type(self).__name__, "initial", initial, -LIMIT, maximum=LIMIT)
        if learning_rate is not None:
            check_number(type(self).__name__, "learning_rate", learning_rate, 0, exclusive=True)
        self.kind = kind
        self.initial = initial
        self.learning_rate = learning_rate

    @property
    def learned(self) -> bool:
        return self.learning_rate is None

    @property
    def trainable_variables(self) -> list[Any]:
        return [self._state["log_variances"]] if self.learned else []

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {"log_variances": [self.initial] * k}

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        kinds = self.kind
        if isinstance(kinds, (list, tuple)) and len(kinds) != num_components:
            raise ValueError(
                f"`kind` of UncertaintyWeighting must have one entry for each of the "
                f"{num_components} components. Received: {kinds!r}"
            )
        super().build(num_components, weights)
        if self.learned:
            # A clip in the formula is not enough: beyond the limit its gradient is 0, so that s
            # would never come back.
            keras_private.constrain(self._state["log_variances"], _WithinLimits())

    def _variable(self, name: str, value: ArrayLike) -> Any:
        return state_variable(name, value, self.learned and name == "log_variances")

    def _by_kind(self, kind: Kind, yes: float, no: float) -> Tensor:
        """A constant for each component, `(k,)`: `yes` for those of a kind, `no` for the others."""
        kinds = self.kind if isinstance(self.kind, (list, tuple)) else [self.kind]
        chosen = [yes if each == kind else no for each in kinds]
        return ops.convert_to_tensor(chosen * (self._k // len(chosen)), dtype="float32")

    @property
    def keeps_weights(self) -> bool:
        return False  # in validation too, the weights come from the current s

    def beyond(self, values: Tensor, state: StateTensors) -> Tensor:
        return values < 0

    cure = "give a loss above 0, or take a rule without logarithms, such as MagnitudeBalance"

    def rule(self, values: Tensor, state: StateTensors, active: Tensor) -> RuleOutput:
        s = _clipped(state)
        weights = ops.exp(-s) * self._by_kind("classification", 1.0, 0.5)
        if self.learning_rate is None:  # the optimizer moves s
            return weights
        revised = self._by_kind("revised", 1.0, 0.0)
        slope = revised * ops.sigmoid(s) + (1 - revised) * 0.5 - weights * values
        stepped = ops.clip(s - float(self.learning_rate) * slope, -LIMIT, LIMIT)
        return weights, {"log_variances": stepped}

    def term(self, values: Tensor, weights: Tensor, state: StateTensors) -> Tensor:
        s = _clipped(state)
        revised = self._by_kind("revised", 1.0, 0.0)
        terms = revised * ops.softplus(s) + (1 - revised) * s / 2
        return ops.sum(ops.where(ops.isfinite(values), terms, 0.0))


def _clipped(state: StateTensors) -> Tensor:
    # One beyond the limit: at the limit itself the gradient of a clip would depend on the backend,
    # and s, which is kept within it, would be affected.
    return ops.clip(state["log_variances"], -LIMIT - 1, LIMIT + 1)


class _WithinLimits(keras.constraints.Constraint):
    def __call__(self, w: Tensor) -> Tensor:
        return ops.clip(w, -LIMIT, LIMIT)
