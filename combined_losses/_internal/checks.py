"""Checks of what a component is given and what it returns; each message names the component."""

import math

import keras
import numpy as np


def check_predictions(y_pred):
    """Raises where predictions are not floating point: they would have no gradient."""
    for leaf in keras.tree.flatten(y_pred):
        dtype = keras.backend.standardize_dtype(leaf.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "`y_pred` must be floating point: whole numbers have no gradient. Cast it, for "
                "example with keras.ops.cast(y_pred, 'float32'), or give the model's output a "
                f"float dtype. Received: y_pred of dtype {dtype} and shape {tuple(leaf.shape)}"
            )


def check_target(name, y_true):
    """Raises where a loss that compares is given no target."""
    if y_true is None:
        raise ValueError(
            f"Component '{name}' needs a target. Give `y`, or wrap a term without a target in "
            "cl.wrappers.PredictionOnly. Received: y_true=None"
        )


def check_single(name, y_true, y_pred):
    """Raises where a loss that compares two arrays is given several targets or predictions."""
    for what, values, hint in (
        ("target", y_true, "as the entry of `y` for its output, or by OnOutput(..., target=key)"),
        ("prediction", y_pred, "by OnOutput(loss, output)"),
    ):
        if not keras.tree.is_nested(values):
            continue
        keys = f"the keys {', '.join(map(repr, values))}" if isinstance(values, dict) else ""
        raise ValueError(
            f"Component '{name}' compares with one {what}; give it its own, {hint}. "
            f"Received: {keys or f'{len(values)} arrays'}"
        )


def check_equal_shapes(name, y_true, y_pred):
    """Raises where `y_true` would be broadcast against `y_pred`."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if _compatible(true, pred):
        return
    hint = reshape_hint(true, pred)
    if hint is None:
        hint = (
            f"they would be broadcast against each other, which gives a wrong number. Give "
            f"targets of shape {pred}"
        )
        if true in (pred[:-1], (*pred[:-1], 1)):
            hint += f", or, if these are class ids, cl.wrappers.OneHot(loss, {pred[-1]})"
    raise ValueError(
        f"Component '{name}' compares arrays of one shape, but {hint}. "
        f"Received: y_true of shape {true} and y_pred of shape {pred}"
    )


def _compatible(true, pred):
    return len(true) == len(pred) and all(
        a == b or a is None or b is None for a, b in zip(true, pred, strict=True)
    )


def check_target_shape(owner, y_true, y_pred, *allowed):
    """Raises unless `y_true` has one of the `allowed` shapes that go with this `y_pred`."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if any(_compatible(true, shape) for shape in allowed):
        return
    shapes = " or ".join(str(shape) for shape in allowed)
    raise ValueError(
        f"{owner} compares predictions of shape {pred} with targets of shape {shapes}; others "
        "would be broadcast, which gives a wrong number. Reshape the targets, or give the model's "
        f"last layer another size. Received: y_true of shape {true} and y_pred of shape {pred}"
    )


def reshape_hint(true, pred):
    """What to do where a sample has the right number of elements in another shape, else None."""
    if len(true) < 1 or len(pred) < 1 or true[1:] == pred[1:]:
        return None
    if None in true[1:] or None in pred[1:] or math.prod(true[1:]) != math.prod(pred[1:]):
        return None
    return (
        f"y_pred has the right number of elements ({math.prod(pred[1:])}) in another shape than "
        f"y_true: end the model with keras.layers.Reshape({true[1:]})"
    )


def check_values(name, values, batch_size):
    """Raises unless a child returned a scalar or values that begin with the batch axis."""
    shape = tuple(values.shape)
    if not shape or batch_size is None or shape[0] is None or shape[0] == batch_size:
        return
    raise ValueError(
        f"Component '{name}' must return a scalar or values that begin with the batch axis, of "
        f"shape ({batch_size}, ...): reduce over the last axes (axis=-1), not over the first. "
        f"Received: values of shape {shape}"
    )


def check_size(size, owner, tuples):
    """Raises unless `size` is None, an integer of at least 1 or, with `tuples`, a tuple of such."""
    allowed = "an integer of at least 1" + (", or a tuple of such" if tuples else "")
    several = tuples and isinstance(size, (tuple, list)) and len(size)
    for number in size if several else [size]:
        if size is None or (is_integer(number) and number >= 1):
            continue
        raise ValueError(f"The argument `size` of {owner} must be {allowed}. Received: {size!r}")


def check_flag(owner, name, value):
    """Raises a `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"The argument `{name}` of {owner} must be True or False. Received: {value!r}"
        )


def is_integer(value):
    """Whether a value is a Python or NumPy integer and no boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def are_numbers(values):
    """Whether `values` is a list, tuple or vector of finite numbers, at least one."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return False
    array = np.asarray(values)
    return (
        array.ndim == 1
        and array.size > 0
        and array.dtype.kind in "fiu"
        and bool(np.all(np.isfinite(array)))
    )


def check_class_weight(owner, class_weight, background=True):
    """Raises unless it is None or a number for each class, not all 0 among those that count."""
    if class_weight is None:
        return
    if are_numbers(class_weight) and min(class_weight) >= 0:
        only_one = len(class_weight) == 1
        if sum(class_weight if background or only_one else class_weight[1:]) > 0:
            return
    raise ValueError(
        f"The argument `class_weight` of {owner} must be None, or a list of one finite number of "
        f"at least 0 for each class, not all 0 where they count. Received: {class_weight!r}"
    )


def check_weight(name, value):
    """A fixed weight as a float; raises where it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not math.isfinite(number):
        raise ValueError(
            f"The weight of component '{name}' must be a finite number. Received: {value!r}"
        )
    return number
