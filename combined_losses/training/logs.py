"""Logs of a tracked model: numbers that come to the host once, in the order of `metrics_names`."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from combined_losses._numerics.arrays import Dtype, Tensor

Results: TypeAlias = Any
"""What `evaluate` and the like return: a dict with `return_dict=True`, a list without.

For a type checker it is Any, as in Keras, so that nobody has to ask which of the two it is.
"""


class LazyVector:
    """The vector of a step, copied to the host once, when the first number is asked for."""

    def __init__(self, vector: Tensor) -> None:
        self._vector = vector
        self._numbers: np.ndarray[Any, Any] | None = None

    def __getitem__(self, index: int) -> "LazyNumber":
        """One entry, which may still be computed on the device."""
        return LazyNumber(self, index)

    def number(self, index: int) -> float:
        """One entry as a float."""
        if self._numbers is None:
            self._numbers = ops.convert_to_numpy(self._vector)
        return float(self._numbers[index])


class LazyNumber:
    """One entry of a `LazyVector`; a float when asked."""

    __slots__ = ("index", "vector")

    def __init__(self, vector: LazyVector, index: int) -> None:
        self.vector: LazyVector = vector
        self.index: int = index

    def __float__(self) -> float:
        return self.vector.number(self.index)

    def __array__(self, dtype: Dtype = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(float(self), dtype=dtype)

    def __repr__(self) -> str:
        return repr(float(self))


def in_order(logs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Logs as Python's numbers, in the order of `names`; what these leave out comes last."""
    numbers: dict[str, Any] = {}
    for name in (*names, *logs):
        if name in logs:
            try:
                numbers[name] = float(logs[name])
            except (TypeError, ValueError):  # a metric of the user's that is no number
                numbers[name] = logs[name]
    return numbers


def fill_in(history: dict[str, list[Any]], weights: Mapping[str, float]) -> None:
    """Back-fills a weight for the epochs before it was first changed."""
    for prefix in ("", "val_"):
        epochs = len(history.get(f"{prefix}loss", []))
        for key, value in weights.items():
            logged = history.get(prefix + key)
            if logged is not None:
                logged[:0] = [value] * (epochs - len(logged))
