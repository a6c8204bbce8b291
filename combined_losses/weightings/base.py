"""The base of every rule that gives the components of a composite their weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.checks import Limited
from combined_losses._core.config import construct, signature_config
from combined_losses.weightings.limits import check_limits, check_seed, within_limits
from combined_losses.weightings.products import Products, products_of
from combined_losses.weightings.state import State, state_variable

__all__ = ["Weighting"]


class Weighting(Limited):
    """Base class of weighting rules: subclass it, write `rule`.

    A rule turns the values of the components into weights, in every training step. Pass it as
    `CompositeLoss(..., weighting=rule)` and train in `cl.Model`, `cl.Sequential` or `cl.track`; a
    rule belongs to one composite.

    Args:
        update_every: the rule gives new weights in every n-th step. Default 1. What it remembers
            of the values moves in every step.
        warmup: the number of first steps with equal weights. Default 0.
        min_weight, max_weight: None, or caps of the weights, after `total`. A component that can
            fall to zero by itself needs `max_weight` in rules such as 1/value.
        total: None (default): the sum that the paper of the rule has; `"k"`: the weights are
            rescaled to sum to the number of components; a number: to that.

    A subclass implements `rule(values, state, live)`, in `keras.ops`: `values` `(k,)` are the raw
    values of the components, finite; `state` is a dict of what `initial_state(k)` names; `live`
    `(k,)` is 1.0 where the value is finite and 0.0 elsewhere. It returns the weights `(k,)`, or the
    weights and the new state. A value that is not finite never reaches the state, and its
    component has weight 0, like one that is switched off by a fixed weight 0, and like one that is
    absent, because nothing in the batch counts for it: all its labels are missing or masked, or all
    its sample weights are 0. (In a composite that does not skip what is not finite, see its
    `on_nonfinite`, it keeps its last weight above 0 instead: the total is spoilt, and the log says
    so.) `state["missed"]` `(k,)` says for how many steps in a row before this one that was so: a
    change since then is none from step to step. Class attributes tell what is special: `needs`,
    what a rule reads, `"values"`, and `"history"` if it remembers (then
    validation gets the last weights of training); `sums_to_one` where equal weights are 1/k
    instead of 1; `draws` where it draws from `self.generator`. A rule that adds a term to the total
    gives it as `term(values, weights, state)`. One that is not made for every value says of which
    by `beyond(values, state)`, booleans `(k,)`: a warning, once, names the component, and the
    attribute `cure` says what to do.

    Example:

    >>> from keras import ops
    >>> import combined_losses as cl
    >>> class InverseMagnitude(cl.weightings.Weighting):
    ...     needs = frozenset({"values", "history"})
    ...
    ...     def initial_state(self, k):
    ...         return {"mean": [1.0] * k}
    ...
    ...     def rule(self, values, state, live):
    ...         mean = 0.9 * state["mean"] + 0.1 * ops.abs(values)
    ...         return 1 / mean, {"mean": mean}
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=InverseMagnitude(max_weight=100.0))
    """

    needs = frozenset({"values"})
    sums_to_one = False
    masks_state = False  # whether `rule` itself keeps what is not live out of its state
    draws = False  # whether `rule` draws from `self.generator`, seeded by an argument `seed`
    seed: int | None = None

    def __init__(self, update_every=1, warmup=0, min_weight=None, max_weight=None, total=None):
        name = type(self).__name__
        check_limits(name, update_every, warmup, min_weight, max_weight, total)
        if self.draws:
            check_seed(name, self.seed)
        self.update_every, self.warmup, self.total = update_every, warmup, total
        self.min_weight, self.max_weight = min_weight, max_weight
        self.num_components: Any = None  # until `build`
        self.has_warned = False  # of a value that it is not made for
        self.has_warned_of_epochs = False  # that nobody tells it of their ends
        self.has_been_compared = False  # by `reading.warn_of_disjoint`
        self.has_warned_of_missing = False  # of components without a gradient where it reads

    # What a subclass gives.

    def initial_state(self, k):
        """What the rule remembers: a dict from name to an initial array."""
        return {}

    def rule(self, values, state, live):
        """The weights `(k,)`, or the weights and the new state."""
        raise NotImplementedError

    def term(self, values, weights, state):
        """What the rule adds to the total, `()`: default 0."""
        return 0.0

    # A function of the values and the state: where a value is one that the rule is not made for, as
    # booleans `(k,)`. And what is to be done there.
    beyond: Any = None
    cure = "give a `lower_bound` below all of its values"
    lower_bound: Any = 0

    def end_epoch(self):
        """Called after every epoch of `fit`, for rules that count epochs."""

    instead_of_epochs = ""  # what else may be done outside `fit`, for a message

    # What a rule answers.

    @property
    def reads_gradients(self):
        """Whether it is given the gradients of the components."""
        return bool({"gramian", "rows"} & self.needs)

    @property
    def place(self):
        """Where gradients are read: "output", "parameters", the name of a layer; None: nowhere."""
        return getattr(self, "gradients", "output") if self.reads_gradients else None

    # Of `place` "parameters": the names of the layers whose parameters count; None: all.
    shared_layers: Any = None

    reads_cosines = False  # whether it may read more of gradients than their lengths

    @property
    def logs_conflict(self):
        """Whether the smallest cosine between two gradients is logged."""
        return False

    def components_without_gradient(self):
        """The indices of components that never had a gradient where the rule reads them."""
        return []

    @property
    def innermost(self) -> Any:
        """The rule that gives the weights: this one, or the one that it is a wrapper of."""
        return self

    @property
    def learned(self):
        """Whether the optimizer of the model trains `trainable_variables`."""
        return False

    @property
    def trainable_variables(self):
        """What the model's optimizer trains, without weight decay."""
        return []

    @property
    def has_term(self):
        """Whether it adds a term of its own to the total."""
        return type(self).term is not Weighting.term or type(self).offset is not Weighting.offset

    @property
    def keeps_weights(self):
        """Whether validation gets the last weights of the training, not those of its own values."""
        return "values" not in self.needs or "history" in self.needs

    @property
    def goes_by_epochs(self):
        """Whether it waits for the ends of epochs."""
        return type(self).end_epoch is not Weighting.end_epoch

    def values_beyond(self):
        """`{index: value}` of components that had a value which the rule is not made for."""
        if "beyond" not in self._state:
            return {}
        found, values = (
            ops.convert_to_numpy(self._state[name].value) for name in ("beyond", "value_beyond")
        )
        return {int(index): float(values[index]) for index in np.flatnonzero(found)}

    # State.

    _state = State()  # until `build`

    def build(self, num_components, weights=None):
        """Makes the state of the rule.

        Args:
            num_components: k, the number of components.
            weights: the fixed weights of the composite, `(k,)`, or a function that gives their
                current values; default all 1.
        """
        if self.num_components is not None:
            raise ValueError(
                f"This {type(self).__name__} weighs the components of another composite already; "
                f"give each composite a rule of its own. Received: {self!r}"
            )
        self.num_components = num_components
        self._fixed = weights
        variables = {name: self._variable(name, value) for name, value in self._initial().items()}
        self._state = State(variables, num_components)
        if self.draws:
            self.generator = keras.random.SeedGenerator(self.seed)
            self._first_draw = ops.convert_to_numpy(keras_private.seed_state(self.generator))

    def _initial(self):
        k = self.num_components
        equal = np.full(k, self._equal_weight(k))
        state = {"steps": 0.0, "current": equal, "missed": np.zeros(k)}
        if self.beyond is not None:
            # The last value of each component that the rule is not made for, and whether there is.
            state.update(beyond=np.zeros(k), value_beyond=np.zeros(k))
        return {**state, **self.initial_state(k)}

    def _variable(self, name, value):
        return state_variable(name, value)

    @property
    def variables(self):
        """The state, which the composite hands to the model."""
        drawn = [keras_private.seed_state(self.generator)] if self.draws else []
        return [*self._state.values(), *drawn]

    def reset(self):
        """Starts over: the state is again what `build` made."""
        self._state.restart(self._initial())
        if self.draws:
            keras_private.seed_state(self.generator).assign(self._first_draw)

    def save(self, store):
        """Writes the state into a dict of arrays."""
        self._state.save(store)
        if self.draws:
            store["draw"] = ops.convert_to_numpy(keras_private.seed_state(self.generator))

    def load(self, store):
        """Reads the state from a dict of arrays."""
        self._state.load(store)
        if self.draws:
            keras_private.seed_state(self.generator).assign(np.array(store["draw"]))

    @property
    def step_count(self):
        """The number of steps of training so far, `()`."""
        return ops.convert_to_tensor(self._state["steps"])

    def fixed_weights(self):
        """The fixed weights of the composite, `(k,)`."""
        fixed = self._fixed() if callable(self._fixed) else self._fixed
        if fixed is None:
            return ops.ones((self.num_components,))
        return ops.cast(ops.convert_to_tensor(fixed), "float32")

    # The weights.

    def weigh(self, values=None, gramian=None, rows=None, training=True):
        """The weights of the components; moves the state when training.

        Args:
            values: `(k,)`, the raw values of the components.
            gramian: `(k, k)`, the products of their gradients, for rules that read them.
            rows: `(k, n)`, the gradients themselves; in place of `gramian`, and for rules that
                `need` them.
            training: without it nothing moves, and a rule that remembers gives its last weights.

        Returns:
            `(k,)`, float32.
        """
        products = None if rows is None else products_of(rows)
        if gramian is not None:
            products = products or Products(None)
            products = products._replace(gramian=_as_constant(gramian), scales=None)
        return self.step(values, training, products)[0]

    def offset(self, values, weights):
        """The term that the rule adds to the total, `()`; default 0."""
        return self.term(_as_constant(values), weights, self._state.read())

    def step(self, values, training, products=None):
        """`(weights, offset)` of one step; see `weigh`. `products` are those of the gradients."""
        if type(self).weigh is not Weighting.weigh:  # a rule that is all of one's own
            gramian = None if products is None else products.whole
            weights = self.weigh(values=values, gramian=gramian, training=training)
            return weights, self.offset(values, weights)
        state, values = self._state.read(), self._with_nan_where_off(values)
        present = ops.isfinite(values)
        if self.keeps_weights and not training:
            weights = state["current"] * ops.cast(present, "float32")
            return weights, self._term(values, weights, state)
        live = self._are_live(present, products)
        weights, new = self._apply(ops.where(present, values, 1.0), state, live, products)
        weights = self._limited(weights, state, present, live, products)
        # What has no gradient is not the rule's to weigh: its weight is 1.
        without, observed = self._without_gradient(present, values, products)
        if without is not None:
            weights = ops.where(without, 1.0, weights)
        term = self._term(values, weights, state)
        if training:
            self._state.move(new, state, None if self.masks_state else live)
            weighed = live if without is None else ops.logical_or(live, without)
            self._state.move({"current": weights}, state, weighed)
            self._state.move({**self._observed(values, state, live), **observed}, state)
        return weights, term

    def _with_nan_where_off(self, values):
        """The values `(k,)`; a component that is switched off counts as one without a value."""
        values = ops.ones((self.num_components,)) if values is None else _as_constant(values)
        return ops.where(ops.equal(self.fixed_weights(), 0.0), np.nan, values)

    def _apply(self, values, state, live, products):
        """The weights that the rule gives, and its new state."""
        return with_state(self.rule(values, state, ops.cast(live, "float32")))

    def _term(self, values, weights, state):
        if type(self).offset is not Weighting.offset:
            return self.offset(values, weights)
        return self.term(values, weights, state)

    def _observed(self, values, state, live):
        """The new state of what every rule counts."""
        missed = ops.where(live, 0.0, state["missed"] + 1)
        counted = {"missed": missed, "steps": state["steps"] + 1}
        if self.beyond is None:
            return counted
        beyond = ops.logical_and(self.beyond(values, state), live)
        return {
            "beyond": ops.where(beyond, 1.0, state["beyond"]),
            "value_beyond": ops.where(beyond, values, state["value_beyond"]),
            **counted,
        }

    # What a rule that reads gradients does in another way.

    def _are_live(self, present, products):
        """Which of the components that are present count in this step, booleans `(k,)`."""
        return present

    def _have_lost_gradient(self, present, products):
        """Which components have a gradient that is not finite; None of rules that read none."""

    def _where_live(self, weights, live, present, lost):
        """The weights of a rule, 0 for components that do not count; and which count."""
        return weights * live, live

    def _without_gradient(self, present, values, products):
        """Which components never had a gradient where the rule reads it; None: it reads none.

        And the new state of what is known of that.
        """
        return None, {}

    # The limits of the weights.

    def _equal_weight(self, k):
        """The weight of each of k components that count alike."""
        total = 1.0 if self.total is None and self.sums_to_one else self.total
        return 1.0 if total is None or total == "k" else total / k

    def is_due(self, steps):
        """Whether the rule gives new weights in the step of this number."""
        return ops.equal(ops.mod(steps - self.warmup, float(self.update_every)), 0.0)

    def _limited(self, weights, state, present, live, products):
        """What the rule has given, with all that its arguments say of it."""
        lost = self._have_lost_gradient(present, products)
        present, live = (ops.cast(each, "float32") for each in (present, live))
        given, live = self._where_live(weights, live, present, lost)
        weights = within_limits(self, given, state, present, live)
        if lost is not None:
            weights = ops.where(lost, self.last_weights, weights)
        if self.learned:
            # What is learned learns also while its weights are capped or kept.
            weights = given + ops.stop_gradient(weights - given)
        return weights

    @property
    def last_weights(self):
        """Those of components that are not finite, `(k,)`: the last ones, or equal ones for 0.

        With the weight 0 the log would deny what spoils the step. In float16 it would hide an
        overflow, so that a `LossScaleOptimizer` does not skip the step: for ever.
        """
        last = ops.convert_to_tensor(self._state["current"])
        equal = self._equal_weight(self.num_components)
        return ops.where(ops.equal(last, 0.0), equal, last)

    # Saving.

    def get_config(self):
        return signature_config(self, base=())

    @classmethod
    def from_config(cls, config):
        return construct(cls, config)


def with_state(found):
    """`(weights, new state)` of what a rule returns: both, or the weights alone."""
    return found if isinstance(found, tuple) else (found, {})


def _as_constant(values):
    return ops.stop_gradient(ops.cast(ops.convert_to_tensor(values), "float32"))
