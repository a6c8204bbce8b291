"""A rule around another one, whose weights it lets change slowly."""

from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.products import Products
from combined_losses.weightings.state import FixedWeights, StateTensors, Store

__all__ = ["Smoothed"]


@keras.saving.register_keras_serializable("combined_losses")
class Smoothed(Weighting):
    """A running mean of the weights of a rule: `w = momentum * w(before) + (1 - momentum) * rule`.

    A component that was absent returns with the smooth weight it had before. Weights that sum to 1
    still do.

    Args:
        weighting: the rule whose weights are smoothed.
        momentum: in `[0, 1)`, default 0.9.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`.

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.Smoothed(cl.weightings.SoftAdapt(), momentum=0.99)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    def __init__(
        self, weighting: Weighting, momentum: float = 0.9, **kwargs: Unpack[RuleArguments]
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(weighting, Weighting) or weighting.learned:
            raise ValueError(
                "Smoothed needs a rule of cl.weightings whose weights are not learned. "
                f"Received: {weighting!r}"
            )
        check_number(type(self).__name__, "momentum", momentum, 0, below=1)
        self.weighting = weighting
        self.momentum = momentum
        self.needs = weighting.needs | {"history"}
        self.sums_to_one = weighting.sums_to_one
        self.shared_layers = weighting.shared_layers
        if self.reads_gradients and self.update_every > 1:
            raise ValueError(
                "Smoothed updates its mean in every step: give `update_every` to the rule inside, "
                f"which reads gradients. Received: update_every={self.update_every!r}"
            )

    @property
    def place(self) -> str | None:
        return self.weighting.place

    @property
    def logs_conflict(self) -> bool:
        return self.weighting.logs_conflict

    @property
    def innermost(self) -> Weighting:
        return self.weighting.innermost

    @property
    def has_term(self) -> bool:
        return self.weighting.has_term

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        return {"smooth": [0.0] * k, "started": [0.0] * k}

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        super().build(num_components, weights)
        self.weighting.build(num_components, weights)

    def _apply(
        self, values: Tensor, state: StateTensors, active: Tensor, products: Products | None
    ) -> tuple[Tensor, StateTensors]:
        values = ops.where(active, values, np.nan)  # so that they do not count for the rule inside
        inner, _ = self.weighting.step(values, True, products)
        mean = self.momentum * state["smooth"] + (1 - self.momentum) * inner
        smooth = ops.where(state["started"] > 0, mean, inner)
        weights = self._summed_as(inner, smooth, ops.cast(active, "float32"))
        return weights, {"smooth": smooth, "started": active}

    def _without_gradient(
        self, present: Tensor, values: Tensor, products: Products | None
    ) -> tuple[Tensor | None, StateTensors]:
        return self.weighting._without_gradient(present, values, products)[0], {}

    def _summed_as(self, inner: Tensor, smooth: Tensor, active: Tensor) -> Tensor:
        """The smooth weights; of a rule whose weights sum to 1, rescaled to that sum.

        The sum is taken over the active components: which these are changes from step to step.
        """
        size = ops.sum(smooth * active)
        if not self.sums_to_one:
            return smooth
        return smooth * ops.where(size > 0, ops.sum(inner), 1.0) / ops.where(size > 0, size, 1.0)

    def term(self, values: Tensor, weights: Tensor, state: StateTensors) -> Tensor:
        return self.weighting.offset(values, weights)

    @property
    def variables(self) -> list[Any]:
        return [*super().variables, *self.weighting.variables]

    def reset(self) -> None:
        super().reset()
        self.weighting.reset()

    def end_epoch(self) -> None:
        self.weighting.end_epoch()

    def save(self, store: Store) -> None:
        super().save(store)
        inner: Store = {}
        self.weighting.save(inner)
        store.update({f"inner_{name}": value for name, value in inner.items()})

    def load(self, store: Store) -> None:
        super().load(store)
        self.weighting.load(
            {name[6:]: value for name, value in store.items() if name.startswith("inner_")}
        )
