"""Arithmetic and arguments that several loss families treat alike."""

import math

import keras
from keras import ops


def accumulating(dtype):
    """The dtype to accumulate in: float32, or a wider one that is given."""
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def magnitude(x):
    """`|x|` with the derivative 0 at 0 on every backend; that of `ops.abs` is 1 there on JAX."""
    return ops.relu(x) + ops.relu(-x)


def check_number(owner, name, value, minimum=None, exclusive=False):
    """Raises a `ValueError` unless `value` is a finite number of at least `minimum`."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if valid and minimum is not None:
        valid = value > minimum if exclusive else value >= minimum
    if not valid:
        bound = "" if minimum is None else f" {'above' if exclusive else 'of at least'} {minimum}"
        raise ValueError(
            f"The argument `{name}` of {owner} must be a finite number{bound}. Received: {value!r}"
        )
