"""Checks of what a component is given and what it returns; each message names the component."""

import functools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.limited import check_entries
from combined_losses._core.names import listed, quoted
from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape: TypeAlias = tuple[int | None, ...]  # None: TensorFlow does not know the length yet

# The largest number that a weight may be: what a float32 holds.
LARGEST = float(np.finfo("float32").max)
# The smallest number above 0 that every backend tells from 0 in float32.
LEAST = float(np.finfo("float32").tiny)


def check_trainable(name: str, y_pred: ArrayLike) -> None:
    """Raises if predictions in training are whole numbers: these have no gradient."""
    for leaf in keras.tree.flatten(y_pred):
        if not is_float(leaf):
            dtype = keras.backend.standardize_dtype(leaf.dtype)
            raise ValueError(
                f"`y_pred` of '{name}' must be floating point in training: whole numbers have no "
                "gradient. Give the model's output a float dtype, for example with "
                "keras.ops.cast(y_pred, 'float32') in its last layer. "
                f"Received: y_pred of dtype {dtype} and shape {tuple(leaf.shape)}"
            )


def is_float(tensor: Tensor) -> bool:
    """Whether an array or tensor is of a floating-point dtype."""
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)))


def to_tensor(name: str, what: str, value: ArrayLike) -> Tensor:
    """An array of numbers as a tensor; raises on None, strings, objects and complex numbers."""
    error: Exception | None = None
    try:
        tensor = backend.read_variable(ops.convert_to_tensor(value))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (TypeError, ValueError) as found:
        error, dtype = found, str(getattr(value, "dtype", type(value).__name__))
    if error is None and dtype != "string" and "complex" not in dtype:
        if getattr(tensor.shape, "rank", 0) is None:
            _raise_unknown_rank(name, what)
        return tensor
    if type(value) is np.ndarray and value.dtype.kind in "iuf" and dtype != "float64":
        # A backend may not support unsigned integers, or arrays of the other byte order.
        return to_tensor(name, what, value.astype("float64"))
    shape = getattr(value, "shape", None)
    raise ValueError(
        f"`{what}` of '{name}' must be an array of numbers: floats, whole numbers or booleans. "
        f"Received: {what} of dtype {dtype}" + ("" if shape is None else f" and shape {shape}")
    ) from error


def _raise_unknown_rank(name: str, what: str) -> NoReturn:
    """Raises the error for an array of which TensorFlow does not know the number of axes."""
    raise ValueError(
        f"`{what}` of '{name}' must have a known number of axes, which `tf.numpy_function` and "
        "`tf.py_function` lose. Give it back in the data set: `array.set_shape((None, 3))` or "
        "`tf.ensure_shape(array, (None, 3))`, with None for what varies. "
        f"Received: {what} of unknown rank"
    )


def check_single_weight(name: str, sample_weight: ArrayLike) -> None:
    """Raises if one loss is given several arrays of sample weights."""
    if keras.tree.is_nested(sample_weight):
        keys = list(sample_weight) if isinstance(sample_weight, dict) else len(sample_weight)
        raise ValueError(
            f"`sample_weight` of component '{name}' must be one array. A dict or list with one for "
            "each output is for a model of several outputs. "
            f"Received: a {type(sample_weight).__name__} of {keys}"
        )


def check_dtype(owner: str, dtype: Dtype) -> None:
    """Raises if the dtype of a loss is not a floating-point one."""
    try:
        computed = keras.dtype_policies.get(dtype or keras.config.floatx()).compute_dtype
    except Exception:
        computed = None
    if computed is None or not keras.backend.is_float_dtype(computed):
        raise ValueError(
            f"The `dtype` of {owner} must be a floating-point one, such as 'float32': a "
            f"whole number would cut 0.81 to 0. Received: dtype={shown(dtype)}"
        )


def check_reduction(name: str, reduction: object, allowed: Sequence[str | None]) -> None:
    """Raises if a reduction is not one of those `allowed`."""
    if not isinstance(reduction, (str, type(None))) or reduction not in allowed:
        raise ValueError(
            f"In '{name}' `reduction` must be one of {quoted(allowed, 'or')}. "
            f"Received: {reduction!r}"
        )


def check_target(name: str, y_true: ArrayLike) -> None:
    """Raises if a loss that needs a target is given none."""
    if y_true is None:
        raise ValueError(
            f"Component '{name}' needs a target. Give `y`, or wrap a term without a target in "
            "cl.wrappers.PredictionOnly. Received: y_true=None"
        )


def check_single(name: str, y_true: ArrayLike, y_pred: ArrayLike) -> None:
    """Raises if a loss that compares two arrays is given several targets or predictions."""
    for what, values, hint in (
        ("target", y_true, "as the entry of `y` for its output, or by OnOutput(..., target=key)"),
        ("prediction", y_pred, "by OnOutput(loss, output)"),
    ):
        if not keras.tree.is_nested(values):
            continue
        keys = f"the keys {quoted(values)}" if isinstance(values, dict) else ""
        raise ValueError(
            f"Component '{name}' compares with one {what}; give it its own, {hint}. "
            f"Received: {keys or f'{len(values)} arrays'}"
        )


def check_equal_shapes(name: str, y_true: Tensor, y_pred: Tensor) -> None:
    """Raises if `y_true` would be broadcast against `y_pred`."""
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


def _compatible(true: Shape, pred: Shape) -> bool:
    return len(true) == len(pred) and all(
        a == b or a is None or b is None for a, b in zip(true, pred, strict=True)
    )


def check_target_shape(owner: str, y_true: Tensor, y_pred: Tensor, *allowed: Shape) -> None:
    """Raises unless `y_true` has one of the shapes that are `allowed` with this `y_pred`."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if any(_compatible(true, shape) for shape in allowed):
        return
    shapes = listed([str(shape) for shape in allowed], "or")
    raise ValueError(
        f"{owner} compares predictions of shape {pred} with targets of shape {shapes}; others "
        "would be broadcast, which gives a wrong number. Reshape the targets, or give the model's "
        f"last layer another size. Received: y_true of shape {true} and y_pred of shape {pred}"
    )


def reshape_hint(true: Shape, pred: Shape) -> str | None:
    """What to do if a sample has the right number of elements in the wrong shape; else None."""
    if len(true) < 1 or len(pred) < 1 or true[1:] == pred[1:]:
        return None
    size = _size(pred[1:])
    if size is None or _size(true[1:]) != size:
        return None
    return (
        f"y_pred has the right number of elements ({size}) in another shape than "
        f"y_true: end the model with keras.layers.Reshape({true[1:]})"
    )


def _size(shape: Shape) -> int | None:
    """How many elements an array of this shape has; None if a length is unknown."""
    known = [length for length in shape if length is not None]
    return math.prod(known) if len(known) == len(shape) else None


def has_axes_of(values: Tensor, y_pred: Tensor) -> bool:
    """Whether each axis of `values` is one of `y_pred`, or of length 1."""
    pairs = zip(values.shape, y_pred.shape, strict=False)
    return len(values.shape) <= len(y_pred.shape) and all(
        ours in (theirs, 1) or theirs is None for ours, theirs in pairs
    )


def check_own_mask(name: str, mask: Tensor, values: Tensor) -> None:
    """Raises if the mask that a loss has put on its values does not fit these values."""
    from_left = tuple(values.shape)[: len(mask.shape)]
    if len(mask.shape) <= len(values.shape) and _compatible(tuple(mask.shape), from_left):
        return
    raise ValueError(
        f"The mask that component '{name}' puts on its values must have their shape, "
        f"{tuple(values.shape)}. Received: mask of shape {tuple(mask.shape)}"
    )


def too_fine(name: str, weight: Tensor, values: Tensor) -> str:
    """The message if sample weights are finer than the values that a loss returns."""
    shape = tuple(values.shape)
    possible = listed([str(shape[: i + 1]) for i in range(len(shape))], "or")
    return (
        f"Component '{name}' cannot honour the sample_weight of shape {tuple(weight.shape)}: it "
        f"returns values of shape {shape}, and weights match these from the left. Give weights of "
        f"shape {possible}, or let the loss return one value for each weight. "
        f"Received: sample_weight of shape {tuple(weight.shape)}"
    )


def check_values(name: str, values: Tensor, batch_size: int | None) -> None:
    """Raises unless a loss returned a scalar or values that begin with the batch axis."""
    shape = tuple(values.shape)
    if not shape or batch_size is None or shape[0] is None or shape[0] == batch_size:
        return
    raise ValueError(
        f"Component '{name}' must return a scalar or values that begin with the batch axis, of "
        f"shape ({batch_size}, ...): reduce over the last axes (axis=-1), not over the first. "
        f"Received: values of shape {shape}"
    )


def check_size(size: Any, owner: str, tuples: bool) -> None:
    """Raises unless `size` is None, a positive integer or, with `tuples`, a tuple of them."""
    allowed = "an integer of at least 1" + (", or a tuple of such" if tuples else "")
    several = tuples and isinstance(size, (tuple, list)) and len(size)
    for number in size if several else [size]:
        if size is None or (is_integer(number) and number >= 1):
            continue
        raise ValueError(f"The argument `size` of {owner} must be {allowed}. Received: {size!r}")
    if size is not None:
        check_entries(
            f"The parts of {owner}, the product of `size`,",
            math.prod(map(int, np.atleast_1d(size))),
        )


def check_flag(owner: str, name: str, value: object) -> None:
    """Raises a `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"The argument `{name}` of {owner} must be True or False. Received: {value!r}"
        )


def is_nan(number: object) -> bool:
    """Whether an argument is a NaN: the only number that does not equal itself."""
    return isinstance(number, numbers.Real) and number != number


def is_integer(value: object) -> bool:
    """Whether a value is a Python or NumPy integer, no boolean, that an int32 can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    return abs(int(value)) < 2**31


def as_array(values: ArrayLike) -> "NDArray[Any]":
    """The values as a NumPy array; an array of None if they make none, as uneven lists do."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def is_number(value: object) -> bool:
    """Whether a value is a Python number, no boolean, that a float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= LARGEST


def are_finite(array: "NDArray[Any]") -> bool:
    """Whether a NumPy array holds only numbers that a float32 can hold."""
    # In float16 the largest number would be inf.
    known = array.dtype.kind in "fiu"
    return known and bool(np.all(np.abs(array.astype("float64")) <= LARGEST))


def are_numbers(values: object) -> bool:
    """Whether `values` is a list, tuple or vector of finite numbers, at least one."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return False
    array = as_array(values)
    return array.ndim == 1 and array.size > 0 and are_finite(array)


def check_class_weight(
    owner: str,
    class_weight: Sequence[float] | None,
    counting: Callable[[Sequence[float]], Iterable[float]] = list,
) -> None:
    """Raises unless it is None or a list of one number of at least 0 for each class.

    At least one of those that are `counting` must be above 0.
    """
    if class_weight is None:
        return
    if are_numbers(class_weight) and min(class_weight) >= 0 and sum(counting(class_weight)) > 0:
        return
    raise ValueError(
        f"The argument `class_weight` of {owner} must be None, or a list of one finite number of "
        f"at least 0 for each class, with one above 0 among those that count. "
        f"Received: {class_weight!r}"
    )


def check_weight(name: str, value: object) -> float:
    """A fixed weight as a float; raises if it is not a number that a float32 can hold."""
    return as_number(f"The weight of component '{name}'", value)


def as_number(what: str, value: Any) -> float:
    """A number as a float; raises if it is not a number that a float32 can hold."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str, bytes)) or not abs(number) <= LARGEST:
        raise ValueError(
            f"{what} must be a finite number, of at most {LARGEST:.2g}, the largest float32. "
            f"Received: {shown(value)}"
        )
    return number


def shown(value: object) -> str:
    """The `repr` of a value for a message; Python refuses it for more than 4,300 digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a whole number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def at_least(array: Tensor, axes: Iterable[int], least: int, message: str) -> Tensor:
    """`array`, if each of `axes` has a length of at least `least`; else raises `message`.

    If TensorFlow does not know a length yet, the error comes when the step runs.
    """
    known = [array.shape[axis] for axis in axes]
    if any(size is not None and size < least for size in known):
        raise ValueError(message)
    if None not in known:
        return array
    sizes = ops.shape(array)
    shortest = functools.reduce(ops.minimum, [sizes[axis] for axis in axes])
    return backend.requiring(array, shortest >= least, message)


def check_number(
    owner: str,
    name: str,
    value: Any,
    minimum: float | None = None,
    exclusive: bool = False,
    maximum: float | None = None,
    below: float | None = None,
    why: str | None = None,
) -> None:
    """Raises a `ValueError` unless `value` is a finite number in its range.

    Its range begins at `minimum`, or just above it if `exclusive`. It ends at `maximum`, or just
    before `below`. `why` tells in the error what is wrong with other numbers.
    """
    valid = is_number(value)
    bounds = []
    if minimum is not None:
        bounds.append(f"{'above' if exclusive else 'of at least'} {minimum}")
        if valid and exclusive and minimum == 0 and 0 < value < LEAST:
            valid, why = False, f"less than {LEAST:.2g} is 0 in float32"
        valid = valid and (value > minimum if exclusive else value >= minimum)
    if maximum is not None:
        bounds.append(f"at most {maximum}")
        valid = valid and value <= maximum
    if below is not None:
        bounds.append(f"below {below}")
        valid = valid and value < below
    if not valid:
        allowed = f"a finite number {' and '.join(bounds)}".strip()
        allowed += "" if why is None else f": {why}"
        raise ValueError(
            f"The argument `{name}` of {owner} must be {allowed}. Received: {shown(value)}"
        )
