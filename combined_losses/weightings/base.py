"""The base of every rule that gives the components of a composite their weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._internal.checks import Limited, is_integer, shown
from combined_losses._internal.config import construct, signature_config
from combined_losses._internal.gramian import (
    Products,
    describe,
    live_rows,
    plain_cosines,
    products_of,
)
from combined_losses._internal.numerics import check_number


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
        _check_steps(self, "update_every", update_every, 1)
        _check_steps(self, "warmup", warmup, 0)
        why = "beyond, its product with a value is no float32 number"
        if min_weight is not None:
            check_number(type(self).__name__, "min_weight", min_weight, 0, maximum=1e30, why=why)
        if max_weight is not None:
            check_number(type(self).__name__, "max_weight", max_weight, 0)
        if min_weight is not None and max_weight is not None and min_weight > max_weight:
            raise ValueError(
                f"`min_weight` of {type(self).__name__} must not exceed `max_weight`. "
                f"Received: min_weight={min_weight!r} and max_weight={max_weight!r}"
            )
        if isinstance(total, str) and total != "k":
            raise ValueError(
                f"`total` of {type(self).__name__} must be None, 'k' or a number above 0. "
                f"Received: {total!r}"
            )
        if total is not None and total != "k":
            check_number(type(self).__name__, "total", total, 0, True, maximum=1e30, why=why)
        self.update_every, self.warmup, self.total = update_every, warmup, total
        self.min_weight, self.max_weight = min_weight, max_weight
        if self.draws and not (self.seed is None or is_integer(self.seed)):
            raise ValueError(
                f"`seed` of {type(self).__name__} must be None or an integer below 2**31. "
                f"Received: {shown(self.seed)}"
            )
        self.num_components: Any = None  # until `build`
        self.has_warned = False  # of a value that it is not made for
        self.has_warned_of_epochs = False  # that nobody tells it of their ends

    @property
    def learned(self):
        """Whether the optimizer of the model trains `trainable_variables`."""
        return False

    @property
    def gradient_rule(self) -> Any:
        """The rule that says where gradients are taken: this one, or that inside it."""
        return self

    @property
    def trainable_variables(self):
        """What the model's optimizer trains, without weight decay."""
        return []

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

    # State.

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
        self._state = {name: self._variable(name, value) for name, value in self._initial().items()}
        if self.draws:
            self.generator = keras.random.SeedGenerator(self.seed)
            self._first_draw = ops.convert_to_numpy(self.generator.state)

    def _initial(self):
        k = self.num_components
        equal = np.full(k, self._equal_weight(k))
        state = {"steps": 0.0, "current": equal, "missed": np.zeros(k)}
        if self.beyond is not None:
            # The last value of each component that the rule is not made for, and whether there is.
            state.update(beyond=np.zeros(k), value_beyond=np.zeros(k))
        return {**state, **self.initial_state(k)}

    def _variable(self, name, value, trainable=False):
        return keras.Variable(
            np.asarray(value, "float32"),
            dtype="float32",
            trainable=trainable,
            name=f"weighting_{name}",
            # Every replica computes the same from the values of the whole batch.
            aggregation="mean" if trainable else "only_first_replica",
        )

    def _equal_weight(self, k):
        """The weight of each of k components that count alike."""
        total = 1.0 if self.total is None and self.sums_to_one else self.total
        return 1.0 if total is None or total == "k" else total / k

    @property
    def variables(self):
        """The state, which the composite hands to the model."""
        drawn = [self.generator.state] if self.draws else []
        return [*self._state.values(), *drawn]

    def reset(self):
        """Starts over: the state is again what `build` made."""
        for name, value in self._initial().items():
            self._state[name].assign(np.asarray(value, "float32"))
        if self.draws:
            self.generator.state.assign(self._first_draw)

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

    def end_epoch(self):
        """Called after every epoch of `fit`, for rules that count epochs."""

    @property
    def goes_by_epochs(self):
        """Whether it waits for the ends of epochs."""
        return type(self).end_epoch is not Weighting.end_epoch

    instead_of_epochs = ""  # what else may be done outside `fit`, for a message

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
            products = (products or Products(None))._replace(gramian=_single(gramian), scales=None)
        return self.step(values, training, products)[0]

    def offset(self, values, weights):
        """The term that the rule adds to the total, `()`; default 0."""
        return self.term(_single(values), weights, self._read())

    def step(self, values, training, products=None):
        """`(weights, offset)` of one step; see `weigh`. `products` are those of the gradients."""
        if type(self).weigh is not Weighting.weigh:  # a rule that is all of one's own
            gramian = None if products is None else products.whole
            weights = self.weigh(values=values, gramian=gramian, training=training)
            return weights, self.offset(values, weights)
        state = self._read()
        values = ops.ones((self.num_components,)) if values is None else _single(values)
        # A component that is switched off counts as absent, like one without a finite value.
        values = ops.where(ops.equal(self.fixed_weights(), 0.0), np.nan, values)
        there = ops.isfinite(values)
        if self.keeps_weights and not training:
            weights = state["current"] * ops.cast(there, "float32")
            return weights, self._term(values, weights, state)
        finite = self._are_live(there, products)
        live = ops.cast(finite, "float32")
        result = self._apply(ops.where(there, values, 1.0), state, live, products)
        weights, new = result if isinstance(result, tuple) else (result, {})
        weights = self._finished(weights, state, there, live, products)
        unread, asked = self.unread(there, values, products)
        if unread is not None:
            weights = ops.where(unread, 1.0, weights)
        term = self._term(values, weights, state)
        if training:
            self._write(new, state, None if self.masks_state else finite)
            weighed = finite if unread is None else ops.logical_or(finite, unread)
            self._write({"current": weights}, state, weighed)
            missed = ops.where(finite, 0.0, state["missed"] + 1)
            noted = {**self._noted(values, state, finite), **asked, "missed": missed}
            self._write({**noted, "steps": state["steps"] + 1}, state)
        return weights, term

    def _finished(self, weights, state, there, live, products):
        """What the rule has given, with all that its arguments say of it."""
        lost = self._are_lost(there, products)
        given, live = self._given(weights, live, ops.cast(there, "float32"), lost)
        weights = self._held(self._capped(self._rescaled(given, live), live), state, there)
        if lost is not None:
            weights = ops.where(lost, self.last_weights, weights)
        if self.learned:
            # What is learned learns also while its weights are capped or held.
            weights = given + ops.stop_gradient(weights - given)
        return weights

    def unread(self, there, values, products):
        """Which components have no gradient where the rule reads them; None: that is no question.

        They have the weight 1. And the state of what is known of that.
        """
        return None, {}

    def _noted(self, values, state, finite):
        """The state of what is beyond the rule."""
        if self.beyond is None:
            return {}
        beyond = ops.logical_and(self.beyond(values, state), finite)
        return {
            "beyond": ops.where(beyond, 1.0, state["beyond"]),
            "value_beyond": ops.where(beyond, values, state["value_beyond"]),
        }

    def values_beyond(self):
        """`{index: value}` of components that had a value which the rule is not made for."""
        if "beyond" not in getattr(self, "_state", ()):
            return {}
        found, values = (
            ops.convert_to_numpy(self._state[name].value) for name in ("beyond", "value_beyond")
        )
        return {int(index): float(values[index]) for index in np.flatnonzero(found)}

    def _are_live(self, there, products):
        """Which components count in this step, of those that are there."""
        return there

    def _apply(self, values, state, live, products):
        return self.rule(values, state, live)

    def _are_lost(self, there, products):
        """Which components have a gradient that is not finite; None of rules that read none."""

    def _given(self, weights, live, there, lost):
        """The weights of a rule, 0 for components that do not count; and which count."""
        return weights * live, live

    @property
    def last_weights(self):
        """Those of components that are not finite, `(k,)`: the last ones, or equal ones for 0.

        With the weight 0 the log would deny what spoils the step. In float16 it would hide an
        overflow, so that a `LossScaleOptimizer` does not skip the step: for ever.
        """
        last = ops.convert_to_tensor(self._state["current"])
        equal = self._equal_weight(self.num_components)
        return ops.where(ops.equal(last, 0.0), equal, last)

    def _term(self, values, weights, state):
        if type(self).offset is not Weighting.offset:
            return self.offset(values, weights)
        return self.term(values, weights, state)

    @property
    def has_term(self):
        """Whether it adds a term of its own to the total."""
        return type(self).term is not Weighting.term or type(self).offset is not Weighting.offset

    def _read(self):
        return {name: ops.convert_to_tensor(variable) for name, variable in self._state.items()}

    @property
    def keeps_weights(self):
        """Whether validation gets the last weights of the training, not those of its own values."""
        return "values" not in self.needs or "history" in self.needs

    def _rescaled(self, weights, live):
        if self.total is None:
            return weights
        total = ops.sum(live) if self.total == "k" else float(self.total)
        size = ops.sum(weights)
        return weights / ops.where(ops.equal(size, 0.0), 1.0, size) * total

    def _capped(self, weights, live):
        if self.min_weight is None and self.max_weight is None:
            return weights
        lowest = 0.0 if self.min_weight is None else float(self.min_weight)
        highest = np.inf if self.max_weight is None else float(self.max_weight)
        return ops.clip(weights, lowest, highest) * live

    def is_due(self, steps):
        """Whether the rule gives new weights in the step of this number."""
        return ops.equal(ops.mod(steps - self.warmup, float(self.update_every)), 0.0)

    def _held(self, weights, state, there):
        """New weights every n-th step after the warm-up; until then equal ones."""
        steps, there = state["steps"], ops.cast(there, "float32")
        if self.update_every > 1:
            weights = ops.where(self.is_due(steps), weights, state["current"] * there)
        if self.warmup:
            equal = there * self._equal_weight(ops.maximum(ops.sum(there), 1.0))
            weights = ops.where(steps < self.warmup, equal, weights)
        return weights

    def _write(self, new, state, of=None):
        """Assigns the new state where it is finite; what belongs to components, `of` these."""
        for name, value in new.items():
            value, old = ops.stop_gradient(ops.cast(value, "float32")), state[name]
            sound = ops.isfinite(value)
            of_components = tuple(old.shape) == (self.num_components,)
            if of_components and of is not None:
                sound = ops.logical_and(sound, of)
            self._state[name].assign(ops.where(sound, value, old))

    # Saving.

    def get_config(self):
        return signature_config(self, base=())

    @classmethod
    def from_config(cls, config):
        return construct(cls, config)

    def save(self, store):
        """Writes the state into a dict of arrays."""
        for name, variable in self._state.items():
            store[name] = ops.convert_to_numpy(variable)
        if self.draws:
            store["draw"] = ops.convert_to_numpy(self.generator.state)

    def load(self, store):
        """Reads the state from a dict of arrays."""
        for name, variable in self._state.items():
            if name in store:  # an older version noted less
                variable.assign(np.array(store[name]))
        if self.draws:
            self.generator.state.assign(np.array(store["draw"]))


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

    def _are_live(self, there, products):
        self._check(products)
        return ops.logical_and(there, live_rows(products.gramian))

    def unread(self, there, values, products):
        if products.beside is None:
            return None, {}
        there = ops.logical_and(there, products.beside)
        # In the steps between two updates nothing is asked. A value of 0 may well have no gradient.
        due = self.is_due(self.step_count)
        asks = ops.logical_and(ops.logical_and(there, due), ops.not_equal(values, 0.0))
        has = ops.logical_and(due, ops.not_equal(ops.diagonal(products.gramian), 0.0))
        state = self._read()
        asked = ops.maximum(state["asked"], ops.cast(asks, "float32"))
        passed = ops.maximum(state["passed"], ops.cast(has, "float32"))
        found = ops.logical_and(there, ops.logical_and(asked > 0, ops.equal(passed, 0.0)))
        return found, {"asked": asked, "passed": passed}

    def unread_components(self):
        """The indices of the components that never had a gradient where they are read."""
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
        gradients = describe(products, live, values)
        result = self.combine(gradients, state)
        weights, new = result if isinstance(result, tuple) else (result, {})
        due = self.is_due(state["steps"])
        new = {"cosines": plain_cosines(gradients), **new}
        return weights, {name: ops.where(due, new[name], state[name]) for name in new}

    def _are_lost(self, there, products):
        finite = ops.isfinite(ops.diagonal(products.gramian))
        return ops.logical_and(there, ops.logical_not(finite))

    def _given(self, weights, live, there, lost):
        equal = there / ops.maximum(ops.sum(there), 1.0)
        some = ops.logical_or(ops.any(live > 0), ops.any(lost))
        weights = ops.where(some, ops.where(live > 0, weights, 0.0), equal)
        return weights, ops.where(some, live, there)


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


def _single(values):
    return ops.stop_gradient(ops.cast(ops.convert_to_tensor(values), "float32"))


def _check_steps(rule, name, value, least):
    if not is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` of {type(rule).__name__} must be an integer of at least {least}, below "
            f"2**31. Received: {shown(value)}"
        )
