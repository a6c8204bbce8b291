"""A rule around a rule: its weights, moving slowly."""

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses.weightings.base import Weighting

__all__ = ["Smoothed"]


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
        self.shared_layers = weighting.shared_layers
        if self.reads_gradients and self.update_every > 1:
            raise ValueError(
                "Smoothed moves in every step: give `update_every` to the rule inside, which reads "
                f"gradients. Received: update_every={self.update_every!r}"
            )

    @property
    def place(self):
        return self.weighting.place

    @property
    def logs_conflict(self):
        return self.weighting.logs_conflict

    @property
    def innermost(self):
        return self.weighting.innermost

    @property
    def has_term(self):
        return self.weighting.has_term

    def initial_state(self, k):
        return {"smooth": [0.0] * k, "started": [0.0] * k}

    def build(self, num_components, weights=None):
        super().build(num_components, weights)
        self.weighting.build(num_components, weights)

    def _apply(self, values, state, live, products):
        values = ops.where(live, values, np.nan)  # the rule leaves out what is not finite
        inner, _ = self.weighting.step(values, True, products)
        moved = self.momentum * state["smooth"] + (1 - self.momentum) * inner
        smooth = ops.where(state["started"] > 0, moved, inner)
        weights = self._summed_as(inner, smooth, ops.cast(live, "float32"))
        return weights, {"smooth": smooth, "started": live}

    def _without_gradient(self, present, values, products):
        return self.weighting._without_gradient(present, values, products)[0], {}

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
