"""The base of every rule that gives the components of a composite their weights."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from keras import ops

from combined_losses._core.config import construct, signature_config
from combined_losses._core.short_call import short_call
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.weightings.limits import Total, WithLimits, check_seed
from combined_losses.weightings.products import Products, products_of
from combined_losses.weightings.state import RuleOutput, StateTensors, WithState

__all__ = ["Weighting"]


class Weighting(WithLimits, WithState):
    """Base class of weighting rules: subclass it and write `rule`.

    In every training step a rule turns the values of the components into their weights. Pass it as
    `CompositeLoss(..., weighting=rule)` and train in `cl.Model`, `cl.Sequential` or `cl.track`. A
    rule belongs to one composite.

    Args:
        update_every: the rule gives new weights in every n-th step. Default 1. What it remembers
            of the values is updated in every step.
        warmup: the number of first steps with equal weights. Default 0.
        min_weight, max_weight: None, or limits of the weights, applied after `total`. Rules such as
            1/value need `max_weight` if a component can fall to zero by itself.
        total: None (default): the weights have the sum that the paper of the rule gives them;
            `"k"`: they are rescaled to sum to the number of components; a number: to that number.

    A subclass implements `rule(values, state, active)` in `keras.ops`. `values` `(k,)` are the raw
    values of the components, all finite; `state` is a dict with the names of `initial_state(k)`;
    `active` `(k,)` is 1.0 for each component that counts in this step and 0.0 for the others. The
    method returns the weights `(k,)`, or the weights and the new state.

    A component does not count if its value is not finite, if its fixed weight is 0 (it is switched
    off), or if nothing in the batch counts for it (it is absent): all its labels are missing or
    masked, or all its sample weights are 0. Its weight is then 0, and its value never reaches the
    state. (One exception: if the composite does not skip what is not finite, see `on_nonfinite`
    there, a component that is not finite keeps its last weight above 0, so that the log shows what
    spoils the total.) `state["missed"]` `(k,)` is for how many steps in a row before this one a
    component did not count; divide what has changed since then by `missed + 1`.

    Class attributes describe the rule. `needs` is what it reads: `"values"`, and `"history"` if it
    remembers (validation then uses the last weights of training). `sums_to_one` is True if equal
    weights are 1/k instead of 1. `draws` is True if it draws from `self.generator`. A rule that
    adds a term to the total returns it from `term(values, weights, state)`. A rule that is not made
    for all values says for which it is not in `beyond(values, state)`, booleans `(k,)`: a warning,
    once, names these components and gives the advice in the attribute `cure`.

    Example:

    >>> from keras import ops
    >>> import combined_losses as cl
    >>> class InverseMagnitude(cl.weightings.Weighting):
    ...     needs = frozenset({"values", "history"})
    ...
    ...     def initial_state(self, k):
    ...         return {"mean": [1.0] * k}
    ...
    ...     def rule(self, values, state, active):
    ...         mean = 0.9 * state["mean"] + 0.1 * ops.abs(values)
    ...         return 1 / mean, {"mean": mean}
    >>> rule = InverseMagnitude(max_weight=100.0)
    >>> rule
    InverseMagnitude(max_weight=100.0)
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    needs: frozenset[str] = frozenset({"values"})
    masks_state: bool = False  # whether `rule` keeps inactive components out of the state by itself
    # The warnings about this rule that were given, or that cannot be needed any more.
    settled_warnings: frozenset[str] = frozenset()

    def __init__(
        self,
        update_every: int = 1,
        warmup: int = 0,
        min_weight: float | None = None,
        max_weight: float | None = None,
        total: Total = None,
    ) -> None:
        super().__init__(update_every, warmup, min_weight, max_weight, total)
        if self.draws:
            check_seed(type(self).__name__, self.seed)

    def __repr__(self) -> str:
        return short_call(self)

    # What a subclass may implement, besides `initial_state`.

    def rule(self, values: Tensor, state: StateTensors, active: Tensor, /) -> RuleOutput:
        """The weights `(k,)`, or the weights and the new state."""
        raise NotImplementedError

    def term(self, values: Tensor, weights: Tensor, state: StateTensors, /) -> Tensor:
        """What the rule adds to the total, `()`: default 0."""
        return 0.0

    def beyond(self, values: Tensor, state: StateTensors, /) -> Tensor:
        """Which values the rule is not made for, booleans `(k,)`: default none."""
        return ops.zeros_like(values) > 0

    # What a message advises for such values, and above which number values should be.
    cure: str = "give a `lower_bound` below all of its values"
    lower_bound: float = 0

    def end_epoch(self) -> None:
        """Called after every epoch of `fit`, for rules that count epochs."""

    instead_of_epochs: str = ""  # what a message advises where nobody calls `end_epoch`

    # What a rule tells about itself.

    @property
    def reads_gradients(self) -> bool:
        """Whether it is given the gradients of the components."""
        return bool({"gramian", "rows"} & self.needs)

    @property
    def place(self) -> str | None:
        """Where gradients are read, "output", "parameters" or the name of a layer, or None."""
        return getattr(self, "gradients", "output") if self.reads_gradients else None

    # For the place "parameters": the names of the layers whose parameters count; None: all layers.
    shared_layers: Sequence[str] | None = None

    reads_cosines: bool = False  # whether it may read more of the gradients than their lengths

    @property
    def logs_conflict(self) -> bool:
        """Whether `min_cosine` is logged."""
        return False

    @property
    def cosines(self) -> Tensor:
        """The cosines between the gradients, `(k, k)`, of a rule with `reads_cosines`."""
        raise NotImplementedError

    @property
    def min_cosine(self) -> Tensor:
        """The smallest cosine between two gradients, `()`, of a rule that reads them."""
        raise NotImplementedError

    def components_without_gradient(self) -> list[int]:
        """The indices of components that never had a gradient where the rule reads them."""
        return []

    @property
    def innermost(self) -> "Weighting":
        """The rule that computes the weights, which is this one or the one that it wraps."""
        return self

    @property
    def learned(self) -> bool:
        """Whether the optimizer of the model trains `trainable_variables`."""
        return False

    @property
    def trainable_variables(self) -> list[Any]:
        """What the model's optimizer trains, without weight decay."""
        return []

    @property
    def has_term(self) -> bool:
        """Whether it adds a term of its own to the total."""
        return type(self).term is not Weighting.term or type(self).offset is not Weighting.offset

    @property
    def keeps_weights(self) -> bool:
        """Whether validation uses the last weights of training, not weights of its own values."""
        return "values" not in self.needs or "history" in self.needs

    @property
    def goes_by_epochs(self) -> bool:
        """Whether it waits for the ends of epochs."""
        return type(self).end_epoch is not Weighting.end_epoch

    @property
    def _has_beyond(self) -> bool:
        return type(self).beyond is not Weighting.beyond

    def values_beyond(self) -> dict[int, float]:
        """`{index: value}` of components that had a value which the rule is not made for."""
        if "beyond" not in self._state:
            return {}
        found, values = (
            ops.convert_to_numpy(self._state[name].value) for name in ("beyond", "value_beyond")
        )
        return {int(index): float(values[index]) for index in np.flatnonzero(found)}

    # State.

    def _initial(self) -> dict[str, ArrayLike]:
        """The initial state: that of the rule, and what every rule keeps."""
        k = self._k
        equal = np.full(k, self._equal_weight(k))
        state = {"steps": 0.0, "current": equal, "missed": np.zeros(k)}
        if self._has_beyond:
            # Whether each component had a value that the rule is not made for; the last of these.
            state.update(beyond=np.zeros(k), value_beyond=np.zeros(k))
        return {**state, **self.initial_state(k)}

    @property
    def step_count(self) -> Tensor:
        """The number of training steps so far, `()`."""
        return ops.convert_to_tensor(self._state["steps"])

    # The weights.

    def weigh(
        self,
        values: ArrayLike | None = None,
        gramian: ArrayLike | None = None,
        rows: ArrayLike | None = None,
        training: bool = True,
    ) -> Tensor:
        """The weights of the components; updates the state when training.

        Args:
            values: `(k,)`, the raw values of the components.
            gramian: `(k, k)`, the products of their gradients, for rules that read them.
            rows: `(k, n)`, the gradients themselves: in place of `gramian`, and for rules whose
                `needs` has `"rows"`.
            training: with False the state stays, and a rule that remembers gives its last weights.

        Returns:
            `(k,)`, float32.
        """
        products = None if rows is None else products_of(rows)
        if gramian is not None:
            products = products or Products(None)
            products = products._replace(gramian=_as_constant(gramian), scales=None)
        return self.step(values, training, products)[0]

    def offset(self, values: ArrayLike, weights: Tensor) -> Tensor:
        """The term that the rule adds to the total, `()`; default 0."""
        return self.term(_as_constant(values), weights, self._state.read())

    def step(
        self, values: ArrayLike | None, training: bool, products: Products | None = None
    ) -> tuple[Tensor, Tensor]:
        """`(weights, offset)` of one step, see `weigh`; `products` describe the gradients."""
        if type(self).weigh is not Weighting.weigh:  # the user has replaced all of this
            gramian = None if products is None else products.whole
            weights = self.weigh(values=values, gramian=gramian, training=training)
            return weights, self.offset(values, weights)
        state, values = self._state.read(), self._with_nan_where_off(values)
        present = ops.isfinite(values)
        if self.keeps_weights and not training:
            weights = state["current"] * ops.cast(present, "float32")
            return weights, self._term(values, weights, state)
        active = self._which_are_active(present, products)
        weights, new = self._apply(ops.where(present, values, 1.0), state, active, products)
        weights = self._limited(weights, state, present, active, products)
        # A component that never has a gradient cannot be weighed by the rule: its weight is 1.
        without, observed = self._without_gradient(present, values, products)
        if without is not None:
            weights = ops.where(without, 1.0, weights)
        term = self._term(values, weights, state)
        if training:
            self._state.move(new, state, None if self.masks_state else active)
            weighed = active if without is None else ops.logical_or(active, without)
            self._state.move({"current": weights}, state, weighed)
            self._state.move({**self._observed(values, state, active), **observed}, state)
        return weights, term

    def _with_nan_where_off(self, values: ArrayLike | None) -> Tensor:
        """The values `(k,)`; NaN for a component that is switched off, as if it had no value."""
        values = ops.ones((self._k,)) if values is None else _as_constant(values)
        return ops.where(ops.equal(self.fixed_weights(), 0.0), np.nan, values)

    def _apply(
        self, values: Tensor, state: StateTensors, active: Tensor, products: Products | None
    ) -> tuple[Tensor, StateTensors]:
        """The weights that the rule gives, and its new state; `active` are booleans `(k,)`."""
        return with_state(self.rule(values, state, ops.cast(active, "float32")))

    def _term(self, values: Tensor, weights: Tensor, state: StateTensors) -> Tensor:
        if type(self).offset is not Weighting.offset:
            return self.offset(values, weights)
        return self.term(values, weights, state)

    def _observed(self, values: Tensor, state: StateTensors, active: Tensor) -> StateTensors:
        """The new state of what every rule counts."""
        missed = ops.where(active, 0.0, state["missed"] + 1)
        counted = {"missed": missed, "steps": state["steps"] + 1}
        if not self._has_beyond:
            return counted
        beyond = ops.logical_and(self.beyond(values, state), active)
        return {
            "beyond": ops.where(beyond, 1.0, state["beyond"]),
            "value_beyond": ops.where(beyond, values, state["value_beyond"]),
            **counted,
        }

    # What a rule that reads gradients answers in another way.

    def _which_are_active(self, present: Tensor, products: Products | None) -> Tensor:
        """Which of the components that have a value count in this step, booleans `(k,)`."""
        return present

    def _have_lost_gradient(self, present: Tensor, products: Products | None) -> Tensor | None:
        """Which components have a gradient that is not finite; None: the rule reads none."""
        return None

    def _zero_where_inactive(
        self, weights: Tensor, active: Tensor, present: Tensor, lost: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The weights, 0 for components that do not count; and which components count."""
        return weights * active, active

    def _without_gradient(
        self, present: Tensor, values: Tensor, products: Products | None
    ) -> tuple[Tensor | None, StateTensors]:
        """Which components never had a gradient where the rule reads it; None: it reads none.

        The second result is the new state of what is known about that.
        """
        return None, {}

    # The limits of the weights.

    def _limited(
        self,
        weights: Tensor,
        state: StateTensors,
        present: Tensor,
        active: Tensor,
        products: Products | None,
    ) -> Tensor:
        """The weights of the rule, 0 where inactive, within the limits that its arguments set."""
        lost = self._have_lost_gradient(present, products)
        present, active = (ops.cast(each, "float32") for each in (present, active))
        unlimited, active = self._zero_where_inactive(weights, active, present, lost)
        weights = self._within_limits(unlimited, state, present, active)
        if lost is not None:
            weights = ops.where(lost, self.last_weights, weights)
        if self.learned:
            # The gradient passes by the limits: what is learned goes on learning while its weights
            # are capped or held.
            weights = unlimited + ops.stop_gradient(weights - unlimited)
        return weights

    @property
    def last_weights(self) -> Tensor:
        """The weights for components that are not finite, `(k,)`: the last ones above 0.

        A component whose last weight is 0 gets the equal weight. With the weight 0 the log would
        hide what spoils the step, and a `LossScaleOptimizer` would not see an overflow of float16:
        it would never skip the step nor lower its scale.
        """
        last = ops.convert_to_tensor(self._state["current"])
        return ops.where(ops.equal(last, 0.0), self._equal_weight(self._k), last)

    # Saving.

    def get_config(self) -> dict[str, Any]:
        return signature_config(self, base=())

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return construct(cls, config)


def with_state(output: RuleOutput) -> tuple[Tensor, StateTensors]:
    """`(weights, new state)` of what a rule returns: both, or the weights alone."""
    return output if isinstance(output, tuple) else (output, {})


def _as_constant(values: ArrayLike) -> Tensor:
    return ops.stop_gradient(ops.cast(ops.convert_to_tensor(values), "float32"))
