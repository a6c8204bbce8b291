"""What a rule remembers from step to step."""

import keras
import numpy as np
from keras import ops


class State(dict):
    """The variables of a rule, by name.

    Args:
        variables: a dict from name to `keras.Variable`.
        num_components: k; a variable of shape `(k,)` has an entry for each component.
    """

    def __init__(self, variables=(), num_components=None):
        super().__init__(variables)
        self.num_components = num_components

    def read(self):
        """A dict from name to tensor."""
        return {name: ops.convert_to_tensor(variable) for name, variable in self.items()}

    def move(self, new, old, of=None):
        """Assigns new values, the old ones where a new one is not finite.

        Args:
            new: a dict from name to a new value.
            old: what `read` gave.
            of: None, or booleans `(k,)`: the components whose entries may change.
        """
        for name, value in new.items():
            value = ops.stop_gradient(ops.cast(value, "float32"))
            may_change = ops.isfinite(value)
            if of is not None and tuple(old[name].shape) == (self.num_components,):
                may_change = ops.logical_and(may_change, of)
            self[name].assign(ops.where(may_change, value, old[name]))

    def restart(self, initial):
        """Assigns a dict of initial arrays."""
        for name, value in initial.items():
            self[name].assign(np.asarray(value, "float32"))

    def save(self, store):
        """Writes the variables into a dict of arrays."""
        for name, variable in self.items():
            store[name] = ops.convert_to_numpy(variable)

    def load(self, store):
        """Reads the variables from a dict of arrays; an older version has saved fewer."""
        for name, variable in self.items():
            if name in store:
                variable.assign(np.array(store[name]))


def state_variable(name, value, trainable=False):
    """One variable of a rule."""
    return keras.Variable(
        np.asarray(value, "float32"),
        dtype="float32",
        trainable=trainable,
        name=f"weighting_{name}",
        # Every replica computes the same from the values of the whole batch.
        aggregation="mean" if trainable else "only_first_replica",
    )
