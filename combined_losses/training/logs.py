"""Logs of a tracked model: numbers that come to the host once, in the order of `metrics_names`."""

import numpy as np
from keras import ops


class LazyVector:
    """The vector of a step, brought to the host once, when the first number is asked for."""

    def __init__(self, packed):
        self._packed = packed
        self._numbers = None

    def __getitem__(self, index):
        """One entry, which may still be computed on the device: a `LazyNumber`."""
        return LazyNumber(self, index)

    def number(self, index):
        """One entry as a float."""
        if self._numbers is None:
            self._numbers = ops.convert_to_numpy(self._packed)
        return float(self._numbers[index])


class LazyNumber:
    """One entry of a `LazyVector`; a float when asked."""

    __slots__ = ("index", "vector")

    def __init__(self, vector, index):
        self.vector = vector
        self.index = index

    def __float__(self):
        return self.vector.number(self.index)

    def __array__(self, dtype=None, copy=None):
        return np.array(float(self), dtype=dtype)

    def __repr__(self):
        return repr(float(self))


def in_order(logs, names):
    """Logs as Python's numbers, in the order of `names`; what these leave out comes last."""
    found = {}
    for name in (*names, *logs):
        if name in logs:
            try:
                found[name] = float(logs[name])
            except (TypeError, ValueError):  # a metric of the user's that is no number
                found[name] = logs[name]
    return found


def fill_in(history, weights):
    """Back-fills a weight for the epochs before it was first changed."""
    for prefix in ("", "val_"):
        epochs = len(history.get(f"{prefix}loss", []))
        for key, value in weights.items():
            logged = history.get(prefix + key)
            if logged is not None:
                logged[:0] = [value] * (epochs - len(logged))
