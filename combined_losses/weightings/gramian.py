"""The base of the rules that read gradients, and a rule that is a function of their Gramian."""

from collections.abc import Callable, Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.base import Weighting, with_state
from combined_losses.weightings.limits import RuleArguments
from combined_losses.weightings.products import (
    Gradients,
    Products,
    describe,
    has_usable_gradient,
    plain_cosines,
)
from combined_losses.weightings.state import RuleOutput, StateTensors

__all__ = ["GramianWeighting"]


class GradientArguments(RuleArguments, total=False):
    """The arguments that every rule has which reads gradients, for the `**kwargs` of rules."""

    gradients: str
    shared_layers: Sequence[str] | None
    log_conflict: bool


@keras.saving.register_keras_serializable("combined_losses")
class GramianWeighting(Weighting):
    """A rule that reads the gradients of the components, through their Gramian `G = J J^T`.

    Pass a function `G -> w` of your own, or use one of the rules of `cl.weightings`.

    Args:
        function: `f(gramian)`, in `keras.ops`, from `(k, k)` to weights `(k,)`. A component without
            a gradient has the mean of the diagonal there and zeros beside it; its weight is 0
            whatever the function returns. Register the function to save the model.
        gradients: where the gradients are taken. `"output"` (default): at the predictions.
            Components act on the network only through these, and the cost is small: k passes
            through the losses. `"<layer name>"`: at the output of that layer of a Functional model,
            for heads that share it; the cost is k passes through the heads. `"parameters"`: exact;
            the cost is k passes through the network.
        shared_layers: for `"parameters"`: names of the layers whose parameters count. Default None:
            all.
        log_conflict: whether the smallest cosine between the gradients of two components is
            logged, as `min_cosine`; in validation that of the last step of training. Default False.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`; but in
            the steps between two updates the state of the rule stays as it is, and no gradients are
            taken at a layer or at the parameters.

    What a rule promises about the weighted sum of the gradients holds where they are taken: two
    components that do not conflict at the output may conflict at the parameters. Fixed weights
    multiply the weights of the rule; if they differ from each other, the promise is about the
    weights of the rule alone.

    A component whose gradient is zero has weight 0, and the rule weighs the others alone. Lengths
    from 1e-18 to 1e18 are told apart, so a short gradient is not taken for zero beside long ones.
    If all gradients are zero, each weight is 1/k. A component whose gradient is not finite keeps
    its last weight above 0, and the rule weighs the others alone; the step is spoilt as it would be
    without a rule, or skipped by a `keras.optimizers.LossScaleOptimizer` if float16 overflowed. A
    component that never had a gradient where gradients are taken cannot be weighed: the layers
    there are frozen or not part of its computation, or, at the output, a function holds a part of
    the network and bypasses the output. It keeps its fixed weight, because the rule gives it 1, and
    a warning names it. Validation uses the last weights of training. Steps that torch compiles
    (`jit_compile=True`) take gradients at the output only.

    A rule with arguments or state is a subclass with `combine(gradients, state)`, which returns
    the weights or the weights and the new state. `gradients` has `norms` `(k,)`, `cosines`
    `(k, k)`, `gramian`, `active` (0.0 for a component that does not count, such as one without a
    gradient) and `values`; with `needs = frozenset({"rows"})` also `largest` and `mean`, the
    largest and mean magnitude of the entries of each gradient.

    Example:

    >>> from keras import ops
    >>> import combined_losses as cl
    >>> def inverse_norm(gramian):
    ...     return 1 / ops.sqrt(ops.diagonal(gramian))
    >>> rule = cl.weightings.GramianWeighting(inverse_norm, total="k")
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs = frozenset({"gramian"})
    reads_cosines = True  # so it can see conflicts, if gradients of several components meet there

    def __init__(
        self,
        function: Callable[[Tensor], Tensor] | None = None,
        gradients: str = "output",
        shared_layers: Sequence[str] | None = None,
        log_conflict: bool = False,
        **kwargs: Unpack[RuleArguments],
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        takes_function = type(self).combine is GramianWeighting.combine
        if takes_function and not callable(function):
            raise ValueError(
                f"`function` of {name} must be a function from the Gramian (k, k) to weights (k,). "
                f"Received: {function!r}"
            )
        if not takes_function and function is not None:
            raise ValueError(
                f"{name} combines the gradients by itself; a `function` is for "
                f"GramianWeighting(function). Received: function={function!r}"
            )
        if not isinstance(gradients, str) or not gradients:
            raise ValueError(
                f"`gradients` of {name} must be 'output', 'parameters' or the name of a layer. "
                f"Received: {gradients!r}"
            )
        _check_layers(name, shared_layers, gradients)
        if not isinstance(log_conflict, bool):
            raise ValueError(
                f"`log_conflict` of {name} must be True or False. Received: {log_conflict!r}"
            )
        self.function = function
        self.gradients = gradients
        self.shared_layers = shared_layers
        self.log_conflict = log_conflict

    def combine(self, gradients: Gradients, state: StateTensors, /) -> RuleOutput:
        """The weights `(k,)`, or the weights and the new state."""
        if self.function is None:
            raise NotImplementedError
        return self.function(gradients.gramian)

    def _initial(self) -> dict[str, ArrayLike]:
        k = self._k
        # `cosines`: of the last step that took gradients, 1 on the diagonal for components that had
        # one. `asked`, `passed`: which components should have had a gradient so far, and which had.
        measured = {"cosines": np.zeros((k, k)), "asked": np.zeros(k), "passed": np.zeros(k)}
        return {**super()._initial(), **measured}

    @property
    def place(self) -> str:
        return self.gradients

    @property
    def logs_conflict(self) -> bool:
        return self.log_conflict

    @property
    def cosines(self) -> Tensor:
        """The cosines between the gradients in the last step that took them, `(k, k)`.

        1 on the diagonal where a component had a gradient, 0 where it had none.
        """
        return ops.convert_to_tensor(self._state["cosines"])

    @property
    def min_cosine(self) -> Tensor:
        """The smallest cosine between two components in the last step that took gradients."""
        k, cosines = self._k, self.cosines
        had_one = ops.diagonal(cosines)
        pairs = ops.where(np.triu(np.ones((k, k)), 1) > 0, had_one[:, None] * had_one[None, :], 0.0)
        return ops.min(ops.where(pairs > 0, cosines, 1.0))

    def _which_are_active(self, present: Tensor, products: Products | None) -> Tensor:
        products = self._checked(products)
        return ops.logical_and(present, has_usable_gradient(products.gramian))

    def _without_gradient(
        self, present: Tensor, values: Tensor, products: Products | None
    ) -> tuple[Tensor | None, StateTensors]:
        products = self._checked(products)
        if products.bypassing is None:
            return None, {}
        present = ops.logical_and(present, products.bypassing)
        # No gradients are taken between two updates, and a value of 0 may rightly have none.
        due = self.is_due(self.step_count)
        asks = ops.logical_and(ops.logical_and(present, due), ops.not_equal(values, 0.0))
        has = ops.logical_and(due, ops.not_equal(ops.diagonal(products.gramian), 0.0))
        state = self._state.read()
        asked = ops.maximum(state["asked"], ops.cast(asks, "float32"))
        passed = ops.maximum(state["passed"], ops.cast(has, "float32"))
        never = ops.logical_and(asked > 0, ops.equal(passed, 0.0))
        return ops.logical_and(present, never), {"asked": asked, "passed": passed}

    def components_without_gradient(self) -> list[int]:
        asked, passed = (
            ops.convert_to_numpy(self._state[name].value) for name in ("asked", "passed")
        )
        return [int(index) for index in np.flatnonzero((asked > 0) & (passed == 0))]

    def _checked(self, products: Products | None) -> Products:
        """The products; raises if the rule was not given what it needs."""
        k = self.num_components
        shape = None if products is None else tuple(products.gramian.shape)
        if products is None or shape != (k, k):
            raise ValueError(
                f"{type(self).__name__} needs the Gramian of the gradients, of shape ({k}, {k}), "
                "or their `rows`. Received: "
                f"gramian={None if shape is None else f'of shape {shape}'}"
            )
        if "rows" in self.needs and products.mean is None:
            raise ValueError(
                f"{type(self).__name__} needs the `rows`, the gradients themselves. Received: None"
            )
        return products

    def _apply(
        self, values: Tensor, state: StateTensors, active: Tensor, products: Products | None
    ) -> tuple[Tensor, StateTensors]:
        gradients = describe(self._checked(products), ops.cast(active, "float32"), values)
        weights, new = with_state(self.combine(gradients, state))
        due = self.is_due(state["steps"])
        new = {"cosines": plain_cosines(gradients), **new}
        return weights, {name: ops.where(due, new[name], state[name]) for name in new}

    def _have_lost_gradient(self, present: Tensor, products: Products | None) -> Tensor:
        finite = ops.isfinite(ops.diagonal(self._checked(products).gramian))
        return ops.logical_and(present, ops.logical_not(finite))

    def _zero_where_inactive(
        self, weights: Tensor, active: Tensor, present: Tensor, lost: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        equal = present / ops.maximum(ops.sum(present), 1.0)
        some = ops.any(active > 0)
        if lost is not None:
            some = ops.logical_or(some, ops.any(lost))
        weights = ops.where(some, ops.where(active > 0, weights, 0.0), equal)
        return weights, ops.where(some, active, present)


def _check_layers(name: str, layers: Sequence[str] | None, gradients: str) -> None:
    if layers is None:
        return
    if gradients != "parameters":
        raise ValueError(
            f"`shared_layers` of {name} belongs to gradients='parameters'. "
            f"Received: gradients={gradients!r}"
        )
    names = isinstance(layers, (list, tuple)) and all(isinstance(each, str) for each in layers)
    if not names or not layers:
        raise ValueError(
            f"`shared_layers` of {name} must be a list of names of layers. Received: {layers!r}"
        )
