"""Weights that are trained with the model."""

import keras
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.checks import check_number
from combined_losses._core.names import quoted
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.state import state_variable

__all__ = ["UncertaintyWeighting"]

KINDS = ("regression", "classification", "revised")
LIMIT = 10.0


@keras.saving.register_keras_serializable("combined_losses")
class UncertaintyWeighting(Weighting):
    """Weights from a learned variance of every component.

    `s_i` is the logarithm of the variance. Regression: `w_i = exp(-s_i) / 2` and the term
    `s_i / 2`; classification: `w_i = exp(-s_i)` and `s_i / 2`; revised: `w_i = exp(-s_i) / 2` and
    `log(1 + exp(s_i))`. The terms are the `weighting_loss` in the logs. In the first two forms
    they, and so the total, may be negative: watch `base_loss`.

    Args:
        kind: `"regression"` (default), `"classification"` or `"revised"`, or a list with one for
            each component.
        initial: the first s, default 0.
        learning_rate: None (default): s is trained by the optimizer of the model, without weight
            decay; or the size of gradient steps of its own, such as 0.01.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    s is kept within -10 and 10, so that units matter no more between values of 1e-4 and 1e4 only.
    Values must not be negative.

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

    def __init__(self, kind="regression", initial=0.0, learning_rate=None, **kwargs):
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
        self.kind, self.initial, self.learning_rate = kind, initial, learning_rate

    @property
    def learned(self):
        return self.learning_rate is None

    @property
    def trainable_variables(self):
        return [self._state["log_variances"]] if self.learned else []

    def initial_state(self, k):
        return {"log_variances": [self.initial] * k}

    def build(self, num_components, weights=None):
        kinds = self.kind
        if isinstance(kinds, (list, tuple)) and len(kinds) != num_components:
            raise ValueError(
                f"`kind` of UncertaintyWeighting must have one entry for each of the "
                f"{num_components} components. Received: {kinds!r}"
            )
        super().build(num_components, weights)
        if self.learned:
            # Not a clip alone: beyond it there would be no gradient back.
            keras_private.constrain(self._state["log_variances"], _WithinLimits())

    def _variable(self, name, value):
        return state_variable(name, value, self.learned and name == "log_variances")

    def _where(self, kind, yes, no):
        """A constant of each component, by its kind."""
        kinds = self.kind if isinstance(self.kind, (list, tuple)) else [self.kind]
        chosen = [yes if each == kind else no for each in kinds]
        return ops.convert_to_tensor(chosen * (self.num_components // len(chosen)), dtype="float32")

    keeps_weights = False  # those of s, also in validation

    def beyond(self, values, state):
        return values < 0

    cure = "give a loss above 0, or take a rule without logarithms, such as MagnitudeBalance"

    def rule(self, values, state, live):
        s = _clipped(state)
        weights = ops.exp(-s) * self._where("classification", 1.0, 0.5)
        if self.learned:
            return weights
        revised = self._where("revised", 1.0, 0.0)
        slope = revised * ops.sigmoid(s) + (1 - revised) * 0.5 - weights * values
        moved = ops.clip(s - float(self.learning_rate) * slope, -LIMIT, LIMIT)
        return weights, {"log_variances": moved}

    def term(self, values, weights, state):
        s = _clipped(state)
        revised = self._where("revised", 1.0, 0.0)
        terms = revised * ops.softplus(s) + (1 - revised) * s / 2
        return ops.sum(ops.where(ops.isfinite(values), terms, 0.0))


def _clipped(state):
    # At the limit itself the gradient of a clip depends on the backend; the state stays within.
    return ops.clip(state["log_variances"], -LIMIT - 1, LIMIT + 1)


class _WithinLimits(keras.constraints.Constraint):
    def __call__(self, w):
        return ops.clip(w, -LIMIT, LIMIT)
