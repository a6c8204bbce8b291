"""Logs of a tracked model: numbers that come to the host once, in the order of `metrics_names`."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        self._numbers: list[float] | None = None

    def __getitem__(self, index: int) -> "ObjectProxy":
        """One entry, which may still be computed on the device."""
        return ObjectProxy(self, index)

    def number(self, index: int) -> float:
        """One entry as a float."""
        if self._numbers is None:
            self._numbers = ops.convert_to_numpy(self._vector).tolist()
        return self._numbers[index]


class ObjectProxy:
    """One entry of a `LazyVector`; a float when asked.

    The name is for TensorFlow: Keras asks of each entry of the logs whether it is a tensor. The
    answer takes TensorFlow 0.1 us for things of this name, and 11 us for all others.
    """

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


class UnreadLogs(Mapping[str, Any]):
    """The logs of a step in a `fit` of which nobody reads them: named if somebody does after all.

    They count as false, so that Keras does not convert each entry in each step.

    Args:
        name: gives the logs with their names.
    """

    def __init__(self, name: Callable[[], dict[str, Any]]) -> None:
        self._name = name

    @functools.cached_property
    def _named(self) -> dict[str, Any]:
        return self._name()

    def __bool__(self) -> bool:
        return False

    def __getitem__(self, key: str) -> Any:
        return self._named[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


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
