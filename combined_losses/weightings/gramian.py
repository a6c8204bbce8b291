"""The base of the rules that read gradients, and a rule that is a function of their Gramian."""

import keras
import numpy as np
from keras import ops

from combined_losses.weightings.base import Weighting, with_state
from combined_losses.weightings.products import describe, live_rows, plain_cosines

__all__ = ["GramianWeighting"]


@keras.saving.register_keras_serializable("combined_losses")
class GramianWeighting(Weighting):
    """A rule that reads the gradients of the components, through their Gramian `G = J J^T`.

    Pass a function `G -> w` of your own, or use one of the rules of `cl.weightings`.

    Args:
        function: `f(gramian)`, in `keras.ops`, from `(k, k)` to weights `(k,)`. A component without
            a gradient has the mean of the diagonal there and zeros beside it; its weight is 0
            whatever the function gives. Register the function to save the model.
        gradients: where the gradients are taken. `"output"` (default), at the predictions: what
            components do to them is what they do to the network, and k passes through the losses
            cost little. `"<layer name>"`, at the output of that layer of a Functional model, for
            heads that share it: k passes through the heads. `"parameters"`, exact: k passes through
            the network.
        shared_layers: for `"parameters"`: names of the layers whose parameters count. Default None:
            all.
        log_conflict: whether the smallest cosine between the gradients of two components is
            logged, as `min_cosine`; in validation that of the last step of training. Default False.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.Weighting`; but in
            the steps between two updates the rule remembers nothing, and no gradients are taken at
            a layer or at the parameters.

    What a rule promises of the weighted sum of the gradients, it promises where they are taken:
    two components that do not conflict at the output may do so at the parameters. Fixed weights
    multiply what the rule gives; where they differ, the promise is about the rule's part alone.
    A component whose gradient is zero has weight 0, and the others go on without it (a short one is
    no zero: lengths from 1e-18 to 1e18 are told apart, whatever stands beside them); without any
    each has weight 1/k. A component whose gradient is not finite keeps its last weight above 0,
    and the others go on without it: the step is spoilt as it is without a rule, or skipped by a
    `keras.optimizers.LossScaleOptimizer` where float16 has overflowed. A component that never had a
    gradient at the layers where they are taken, because it reads others or because those are
    frozen, is not the rule's to weigh: it keeps its fixed weight, the rule's being 1, and a warning
    names it; so is, at the output, a function that holds a part of the network and has none there.
    Validation gets the last weights of training. Steps that torch compiles (`jit_compile=True`)
    take gradients at the output only.

    A rule with arguments or state is a subclass with `combine(gradients, state)`, which returns
    the weights or the weights and the new state. `gradients` has `norms` `(k,)`, `cosines`
    `(k, k)`, `gramian`, `live` (0.0 where there is no gradient) and `values`, and with
    `needs = frozenset({"rows"})` also `largest` and `mean`, of the magnitudes of their entries.

    Example:

    >>> from keras import ops
    >>> import combined_losses as cl
    >>> def inverse_norm(gramian):
    ...     return 1 / ops.sqrt(ops.diagonal(gramian))
    >>> rule = cl.weightings.GramianWeighting(inverse_norm, total="k")
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs = frozenset({"gramian"})
    reads_cosines = True  # not only lengths: of use where the gradients of components meet

    def __init__(
        self, function=None, gradients="output", shared_layers=None, log_conflict=False, **kwargs
    ):
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
        self.function, self.gradients, self.shared_layers = function, gradients, shared_layers
        self.log_conflict = log_conflict

    def combine(self, gradients, state):
        """The weights `(k,)`, or the weights and the new state."""
        return self.function(gradients.gramian)

    def _initial(self):
        k = self.num_components
        # The cosines of the last step that took gradients, 1 on the diagonal where there was one;
        # and which components have been asked for a gradient, and which have ever had one.
        asked = {"asked": np.zeros(k), "passed": np.zeros(k)}
        return {**super()._initial(), "cosines": np.zeros((k, k)), **asked}

    @property
    def place(self):
        return self.gradients

    @property
    def logs_conflict(self):
        return self.log_conflict

    @property
    def cosines(self):
        """The cosines between the gradients in the last step that took them, `(k, k)`.

        1 on the diagonal where a component had a gradient, 0 where it had none.
        """
        return ops.convert_to_tensor(self._state["cosines"])

    @property
    def min_cosine(self):
        """The smallest cosine between two components in the last step that took gradients."""
        k, cosines = self.num_components, self.cosines
        live = ops.diagonal(cosines)
        pairs = ops.where(np.triu(np.ones((k, k)), 1) > 0, live[:, None] * live[None, :], 0.0)
        return ops.min(ops.where(pairs > 0, cosines, 1.0))

    def _are_live(self, present, products):
        self._check(products)
        return ops.logical_and(present, live_rows(products.gramian))

    def _without_gradient(self, present, values, products):
        if products.beside is None:
            return None, {}
        present = ops.logical_and(present, products.beside)
        # In the steps between two updates nothing is asked. A value of 0 may well have no gradient.
        due = self.is_due(self.step_count)
        asks = ops.logical_and(ops.logical_and(present, due), ops.not_equal(values, 0.0))
        has = ops.logical_and(due, ops.not_equal(ops.diagonal(products.gramian), 0.0))
        state = self._state.read()
        asked = ops.maximum(state["asked"], ops.cast(asks, "float32"))
        passed = ops.maximum(state["passed"], ops.cast(has, "float32"))
        never = ops.logical_and(asked > 0, ops.equal(passed, 0.0))
        return ops.logical_and(present, never), {"asked": asked, "passed": passed}

    def components_without_gradient(self):
        asked, passed = (
            ops.convert_to_numpy(self._state[name].value) for name in ("asked", "passed")
        )
        return np.flatnonzero((asked > 0) & (passed == 0)).tolist()

    def _check(self, products):
        k = self.num_components
        shape = None if products is None else tuple(products.gramian.shape)
        if shape != (k, k):
            raise ValueError(
                f"{type(self).__name__} needs the Gramian of the gradients, of shape ({k}, {k}), "
                "or their `rows`. Received: "
                f"gramian={None if shape is None else f'of shape {shape}'}"
            )
        if "rows" in self.needs and products.mean is None:
            raise ValueError(
                f"{type(self).__name__} needs the `rows`, the gradients themselves. Received: None"
            )

    def _apply(self, values, state, live, products):
        gradients = describe(products, ops.cast(live, "float32"), values)
        weights, new = with_state(self.combine(gradients, state))
        due = self.is_due(state["steps"])
        new = {"cosines": plain_cosines(gradients), **new}
        return weights, {name: ops.where(due, new[name], state[name]) for name in new}

    def _have_lost_gradient(self, present, products):
        finite = ops.isfinite(ops.diagonal(products.gramian))
        return ops.logical_and(present, ops.logical_not(finite))

    def _where_live(self, weights, live, present, lost):
        equal = present / ops.maximum(ops.sum(present), 1.0)
        some = ops.logical_or(ops.any(live > 0), ops.any(lost))
        weights = ops.where(some, ops.where(live > 0, weights, 0.0), equal)
        return weights, ops.where(some, live, present)


def _check_layers(name, layers, gradients):
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
