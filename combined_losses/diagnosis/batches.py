"""Batches of what a user gives: arrays, or a data set."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

Arrays: TypeAlias = Any
"""A NumPy array, None, or lists and dicts of these."""


class Data(NamedTuple):
    """One batch."""

    x: Arrays
    y: Arrays
    sample_weight: Arrays


def batches(x: Any, y: Any, sample_weight: Any, batch_size: int) -> Iterator[Data]:
    """Yields the batches in order. Arrays are cut into batches; a data set has them already.

    Args:
        x: an array, a list or dict of arrays, or a data set of batches `(x, y[, sample_weight])`:
            a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, a generator.
        y, sample_weight: arrays in the structure of the outputs, or None.
        batch_size: the number of samples in a batch of arrays.
    """
    if not is_data_set(x):
        yield from _cut(Data(x, y, sample_weight), batch_size)
        return
    if y is not None or sample_weight is not None:
        what = "y" if y is not None else "sample_weight"
        raise ValueError(
            f"A data set holds its targets and sample weights: leave out `{what}`. "
            f"Received: x of type {type(x).__name__} and {what}"
        )
    data_set = (x[i] for i in range(len(x))) if isinstance(x, keras.utils.PyDataset) else x
    for batch in data_set:
        yield Data(*map(_as_arrays, keras.utils.unpack_x_y_sample_weight(batch)))


def is_data_set(x: Any) -> bool:
    """Whether `x` gives whole batches."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    is_data = isinstance(x, (list, tuple, dict, str)) or hasattr(x, "shape")
    return hasattr(x, "__iter__") and not is_data


def _cut(data: Data, batch_size: int) -> Iterator[Data]:
    data = Data(*map(_as_arrays, data))
    for start in range(0, _number_of_samples(data), batch_size):
        part = slice(start, start + batch_size)
        yield Data(
            *(
                keras.tree.map_structure(
                    lambda a, part=part: None if a is None else a[part], arrays
                )
                for arrays in data
            )
        )


def _number_of_samples(data: Data) -> int:
    """The length of all arrays; raises where they differ in it."""
    names: dict[int, str] = {}  # which of x, y and sample_weight has a number of samples first
    for what, arrays in data._asdict().items():
        for array in keras.tree.flatten(arrays):
            if array is None:
                continue
            if not array.shape:
                raise ValueError(f"`{what}` must hold arrays of samples. Received: {array!r}")
            names.setdefault(len(array), what)
    if len(names) != 1 or 0 in names:
        received = ", ".join(f"{n} in {what}" for n, what in names.items())
        raise ValueError(
            "All arrays must have the same number of samples, at least one. "
            f"Received: {received or 'none'}"
        )
    return next(iter(names))


def _as_arrays(data: Any) -> Arrays:
    """What a user gives, as NumPy arrays; floats become Keras's float type, as in `fit`."""
    return keras.tree.map_structure(_as_array, data)


def _as_array(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    if hasattr(value, "numpy") or keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array
