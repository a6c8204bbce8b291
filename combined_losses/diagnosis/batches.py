"""Batches of what a user hands over: arrays, or a data set."""

import keras
import numpy as np


def batches(x, y, sample_weight, batch_size):
    """Yields `(x, y, sample_weight)`, in order; arrays are cut, data sets have batches already.

    Args:
        x: an array, a list or dict of arrays, or a data set of batches `(x, y[, sample_weight])`:
            a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, a generator.
        y, sample_weight: arrays in the structure of the outputs, or None.
        batch_size: the number of samples of a batch of arrays.
    """
    if not is_data_set(x):
        yield from _cut((x, y, sample_weight), batch_size)
        return
    if y is not None or sample_weight is not None:
        what = "y" if y is not None else "sample_weight"
        raise ValueError(
            f"A data set holds its targets and sample weights: leave out `{what}`. "
            f"Received: x of type {type(x).__name__} and {what}"
        )
    data_set = (x[i] for i in range(len(x))) if isinstance(x, keras.utils.PyDataset) else x
    for batch in data_set:
        yield tuple(map(_floats, keras.utils.unpack_x_y_sample_weight(batch)))


def is_data_set(x):
    """Whether `x` has batches of its own."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    is_data = isinstance(x, (list, tuple, dict, str)) or hasattr(x, "shape")
    return hasattr(x, "__iter__") and not is_data


def _cut(data, batch_size):
    data = _floats(data)
    sizes = {}
    for what, arrays in zip(("x", "y", "sample_weight"), data, strict=True):
        for array in keras.tree.flatten(arrays):
            if array is None:
                continue
            if not array.shape:
                raise ValueError(f"`{what}` must hold arrays of samples. Received: {array!r}")
            sizes.setdefault(len(array), what)
    if len(sizes) != 1 or 0 in sizes:
        received = ", ".join(f"{n} in {what}" for n, what in sizes.items())
        raise ValueError(
            "All arrays must have the same number of samples, at least one. "
            f"Received: {received or 'none'}"
        )
    for start in range(0, next(iter(sizes)), batch_size):
        part = slice(start, start + batch_size)
        yield tuple(
            keras.tree.map_structure(lambda a, part=part: None if a is None else a[part], arrays)
            for arrays in data
        )


def _floats(data):
    """NumPy arrays, of Keras's float type where they are floats, as `fit` makes them."""
    return keras.tree.map_structure(_array, data)


def _array(value):
    if value is None:
        return None
    if hasattr(value, "numpy") or keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array
