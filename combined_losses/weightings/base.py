"""The base of every rule that gives the components of a composite their weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._internal.checks import is_integer
from combined_losses._internal.config import construct, signature_config
from combined_losses._internal.numerics import check_number


class Weighting:
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
    component has weight 0, like one that is switched off by a fixed weight 0. Class attributes tell
    what is special: `needs`, what a rule reads, `"values"`, and `"history"` if it remembers (then
    validation gets the last weights of training); `sums_to_one` where equal weights are 1/k
    instead of 1; `draws` where it draws from `self.generator`. A rule that adds a term to the total
    gives it as `term(values, weights, state)`.

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
        for name, cap in (("min_weight", min_weight), ("max_weight", max_weight)):
            if cap is not None:
                check_number(type(self).__name__, name, cap, 0)
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
            check_number(type(self).__name__, "total", total, 0, exclusive=True)
        self.update_every, self.warmup, self.total = update_every, warmup, total
        self.min_weight, self.max_weight = min_weight, max_weight
        if self.draws and not (self.seed is None or is_integer(self.seed)):
            raise ValueError(
                f"`seed` of {type(self).__name__} must be None or an integer. "
                f"Received: {self.seed!r}"
            )
        self.num_components: Any = None  # until `build`

    @property
    def learned(self):
        """Whether the optimizer of the model trains `trainable_variables`."""
        return False

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
        current = np.full(k, self._equal_weight(k))
        return {"steps": 0.0, "current": current, **self.initial_state(k)}

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

    def fixed_weights(self):
        """The fixed weights of the composite, `(k,)`."""
        fixed = self._fixed() if callable(self._fixed) else self._fixed
        if fixed is None:
            return ops.ones((self.num_components,))
        return ops.cast(ops.convert_to_tensor(fixed), "float32")

    def end_epoch(self):
        """Called after every epoch of `fit`, for rules that count epochs."""

    # The weights.

    def weigh(self, values=None, gramian=None, rows=None, training=True):
        """The weights of the components; moves the state when training.

        Args:
            values: `(k,)`, the raw values of the components.
            gramian, rows: for rules that read gradients.
            training: without it nothing moves, and a rule that remembers gives its last weights.

        Returns:
            `(k,)`, float32.
        """
        return self.step(values, training)[0]

    def offset(self, values, weights):
        """The term that the rule adds to the total, `()`; default 0."""
        return self.term(_single(values), weights, self._read())

    def step(self, values, training):
        """`(weights, offset)` of one step; see `weigh`."""
        if type(self).weigh is not Weighting.weigh:  # a rule that is all of one's own
            weights = self.weigh(values=values, training=training)
            return weights, self.offset(values, weights)
        state = self._read()
        # A component that is switched off counts as absent, like one without a finite value.
        values = ops.where(ops.equal(self.fixed_weights(), 0.0), np.nan, _single(values))
        finite = ops.isfinite(values)
        live = ops.cast(finite, "float32")
        if self.keeps_weights and not training:
            weights = state["current"] * live
            return weights, self._term(values, weights, state)
        result = self.rule(ops.where(finite, values, 1.0), state, live)
        weights, new = result if isinstance(result, tuple) else (result, {})
        given = weights * live
        weights = self._held(self._capped(self._rescaled(given, live), live), state, live)
        if self.learned:
            # What is learned learns also while its weights are capped or held.
            weights = given + ops.stop_gradient(weights - given)
        term = self._term(values, weights, state)
        if training:
            self._write({**new, "current": weights, "steps": state["steps"] + 1}, state, finite)
        return weights, term

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
        total = ops.sum(live) if self.total == "k" else self.total
        size = ops.sum(weights)
        return weights * total / ops.where(ops.equal(size, 0.0), 1.0, size)

    def _capped(self, weights, live):
        if self.min_weight is None and self.max_weight is None:
            return weights
        lowest = 0.0 if self.min_weight is None else self.min_weight
        highest = np.inf if self.max_weight is None else self.max_weight
        return ops.clip(weights, lowest, highest) * live

    def _held(self, weights, state, live):
        """New weights every n-th step after the warm-up; until then equal ones."""
        steps = state["steps"]
        if self.update_every > 1:
            since = steps - self.warmup
            due = ops.equal(ops.mod(since, float(self.update_every)), 0.0)
            weights = ops.where(due, weights, state["current"] * live)
        if self.warmup:
            equal = live * self._equal_weight(ops.maximum(ops.sum(live), 1.0))
            weights = ops.where(steps < self.warmup, equal, weights)
        return weights

    def _write(self, new, state, finite):
        """Assigns the new state, entry by entry of what belongs to a component, if finite."""
        for name, value in new.items():
            value, old = ops.stop_gradient(ops.cast(value, "float32")), state[name]
            sound = ops.isfinite(value)
            of_components = tuple(old.shape) == (self.num_components,)
            if of_components and (name == "current" or not self.masks_state):
                sound = ops.logical_and(sound, finite)
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
            variable.assign(np.array(store[name]))
        if self.draws:
            self.generator.state.assign(np.array(store["draw"]))


def _single(values):
    return ops.stop_gradient(ops.cast(ops.convert_to_tensor(values), "float32"))


# For rules: what is summed or averaged leaves out components that are not live.


def live_softmax(x, live):
    """The softmax over the live entries; 0 elsewhere."""
    highest = ops.max(ops.where(live > 0, x, -np.inf))
    highest = ops.where(ops.isfinite(highest), highest, 0.0)
    powers = ops.exp(ops.where(live > 0, x - highest, 0.0)) * live
    return powers / ops.maximum(ops.sum(powers), 1e-30)


def live_mean(x, live):
    """The mean over the live entries; 0 without any."""
    return ops.sum(ops.where(live > 0, x, 0.0)) / ops.maximum(ops.sum(live), 1.0)


def positive(values, lower_bound=0.0):
    """What may be divided by, or have a logarithm: the distance from the bound, at least 1e-8."""
    return ops.maximum(values - lower_bound, 1e-8)


def _check_steps(rule, name, value, least):
    if not is_integer(value) or value < least:
        raise ValueError(
            f"`{name}` of {type(rule).__name__} must be an integer of at least {least}. "
            f"Received: {value!r}"
        )
