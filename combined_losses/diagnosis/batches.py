"""Batches of what a user gives: arrays, or a data set."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from combined_losses._core.names import listed

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
        batch_size: the number of samples in a batch of arrays; of arrays of several lengths the
            largest number of rows.
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
    ends = _ends(_lengths(data), batch_size)

    def part(array: np.ndarray | None, number: int) -> np.ndarray | None:
        return None if array is None else array[slice(*ends[len(array)][number : number + 2])]

    for number in range(len(next(iter(ends.values()))) - 1):
        yield Data(
            *(
                keras.tree.map_structure(lambda a, number=number: part(a, number), arrays)
                for arrays in data
            )
        )


def _ends(lengths: Sequence[int], batch_size: int) -> dict[int, list[int]]:
    """Where arrays are cut, by their lengths: row 0, the first rows of the others, the end.

    Arrays of several lengths are cut into equally many parts, none of them empty.
    """
    longest, unit = max(lengths), math.gcd(*lengths)
    # If possible all parts have rows in the ratio of the lengths: the loss of each batch, and so
    # their mean, is then the weighted sum of the terms.
    units_of_batch = batch_size // (longest // unit)
    if units_of_batch:
        ends = [*range(0, unit, units_of_batch), unit]
        return {n: [end * (n // unit) for end in ends] for n in lengths}
    count = min(math.ceil(longest / batch_size), *filter(None, lengths))
    return {n: [n * i // count for i in range(count + 1)] for n in lengths}


def _lengths(data: Data) -> list[int]:
    """The lengths of the arrays, each once.

    Raises where no array has rows, or where two lengths differ and there is one input, one target
    and one array of weights at most, which belong together row by row.
    """
    found = _lengths_by_name(data)
    lengths = list(dict.fromkeys(found.values()))
    several = any(len(keras.tree.flatten(arrays)) > 1 for arrays in data)
    if not any(lengths) or (len(lengths) > 1 and not several):
        first = {n: name.partition("[")[0] for name, n in reversed(found.items())}
        received = ", ".join(f"{n} in {first[n]}" for n in lengths)
        raise ValueError(
            "All arrays must have the same number of samples, at least one. "
            f"Received: {received or 'none'}"
        )
    return lengths


def told_lengths(x: Any, y: Any, sample_weight: Any) -> str | None:
    """A sentence that says how long arrays of several lengths are; None for other data.

    It is for the error of a batch that they are cut into, whose shapes are those of the batch.
    """
    if is_data_set(x):
        return None
    found = _lengths_by_name(Data(*map(_as_arrays, (x, y, sample_weight))))
    if len(set(found.values())) == 1:
        return None
    told = [f"{n} rows in {name}" for name, n in found.items()]
    return f"These are shapes of a batch; the arrays have {listed(told)}."


def _lengths_by_name(data: Data) -> dict[str, int]:
    """The length of each array, by its name as one would write it: `x['a']`."""
    found: dict[str, int] = {}
    for what, arrays in data._asdict().items():
        for path, array in keras.tree.flatten_with_path(arrays):
            if array is None:
                continue
            if not array.shape:
                raise ValueError(f"`{what}` must hold arrays of samples. Received: {array!r}")
            found[what + "".join(f"[{key!r}]" for key in path)] = len(array)
    return found


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
