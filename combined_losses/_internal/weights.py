"""The weights of a composite's components: fixed, scheduled, and those of a rule."""

import keras
import numpy as np
from keras import ops

from combined_losses.weightings.base import Weighting

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Weights:
    """The fixed or scheduled weights c of the components, and the rule that gives w.

    Args:
        given: a dict from name to a float or a `LearningRateSchedule`.
        rule: None, or a `Weighting`.
        dtype: the dtype of the composite.
    """

    def __init__(self, given, rule, dtype):
        self.schedules = {name: c for name, c in given.items() if isinstance(c, Schedule)}
        self.fixed = {
            name: float(c(0)) if name in self.schedules else c for name, c in given.items()
        }
        self.rule = rule
        self.changed = set()
        self.values = keras.Variable(
            list(self.fixed.values()),
            dtype="float64" if dtype == "float64" else "float32",
            trainable=False,
            name="component_weights",
        )
        # Steps of training, for the schedules.
        self.steps = None
        if self.schedules:
            self.steps = keras.Variable(
                0, dtype="int32", trainable=False, name="steps", aggregation="only_first_replica"
            )
        if rule is not None:
            rule.build(len(given), self.now)

    @property
    def move(self):
        """Whether they change by themselves in the steps of training."""
        return bool(self.schedules) or self.rule is not None

    @property
    def moving_names(self):
        """The components whose weights change by themselves: all, where there is a rule."""
        names = self.fixed if self.rule is not None else self.schedules
        return tuple(names)

    @property
    def variables(self):
        found = [self.values, *([] if self.steps is None else [self.steps])]
        return found if self.rule is None else [*found, *self.rule.variables]

    @property
    def has_term(self):
        """Whether the rule adds a term of its own to the total."""
        return self.rule is not None and self.rule.has_term

    def now(self):
        """c of this step, `(k,)`."""
        values = ops.convert_to_tensor(self.values)
        if not self.schedules:
            return values
        step = ops.convert_to_tensor(self.steps)
        entries = [
            ops.cast(self.schedules[name](step), values.dtype) if name in self.schedules else value
            for name, value in zip(self.fixed, ops.unstack(values, len(self.fixed)), strict=True)
        ]
        return ops.stack(entries)

    def advance(self):
        """Counts a step of training."""
        if self.steps is not None:
            self.steps.assign_add(1)

    def current(self):
        """c as a dict from name to float."""
        if not self.schedules:
            return dict(self.fixed)
        step = int(ops.convert_to_numpy(self.steps.value))
        return {
            name: float(self.schedules[name](step)) if name in self.schedules else value
            for name, value in self.fixed.items()
        }

    def assign(self, weights):
        """Gives components new fixed weights; a schedule ends there."""
        for name in weights:
            self.schedules.pop(name, None)
        self.fixed.update(weights)
        self.values.assign(list(self.fixed.values()))

    # Saving.

    def save(self, store):
        store["weights"] = np.array(list(self.fixed.values()))
        store["changed"] = np.array([name in self.changed for name in self.fixed])
        if self.steps is not None:
            store["steps"] = ops.convert_to_numpy(self.steps.value)
        if self.rule is not None:
            state = {}
            self.rule.save(state)
            for name, value in state.items():
                store[f"rule_{name}"] = value

    def load(self, store):
        """Reads all but the fixed weights, which the composite assigns."""
        if self.steps is not None and "steps" in store.keys():  # noqa: SIM118 - an h5 store
            self.steps.assign(np.array(store["steps"]))
        if self.rule is not None:
            names = [key for key in store.keys() if key.startswith("rule_")]  # noqa: SIM118
            self.rule.load({name[5:]: store[name] for name in names})


def check_rule(rule, owner):
    if rule is None or isinstance(rule, Weighting):
        return
    hint = f"; create it first: {rule.__name__}()" if isinstance(rule, type) else ""
    raise ValueError(
        f"`weighting` of '{owner}' must be None or a rule of cl.weightings{hint}. "
        f"Received: {rule!r}"
    )
