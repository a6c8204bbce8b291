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


def check_number(owner, name, value, minimum=None, exclusive=False, maximum=None, below=None):
    """Raises a `ValueError` unless `value` is a finite number in its range.

    The range is from `minimum`, without it if `exclusive`, to `maximum`, or to all `below` a bound.
    """
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    bounds = []
    if minimum is not None:
        bounds.append(f"{'above' if exclusive else 'of at least'} {minimum}")
        valid = valid and (value > minimum if exclusive else value >= minimum)
    if maximum is not None:
        bounds.append(f"at most {maximum}")
        valid = valid and value <= maximum
    if below is not None:
        bounds.append(f"below {below}")
        valid = valid and value < below
    if not valid:
        allowed = f"a finite number {' and '.join(bounds)}".strip()
        raise ValueError(f"The argument `{name}` of {owner} must be {allowed}. Received: {value!r}")
