"""What the user has given: as arguments of `fit`, and as a storage knows it again."""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from combined_losses._core.checks import is_number
from combined_losses.tuning.settings import composite_of, label_of

NAMES = ("x", "y", "sample_weight")


def fit_arguments(data: Any, validation: Any) -> dict[str, Any]:
    """The arguments of `fit` for data and validation."""
    found: dict[str, Any] = dict(zip(NAMES, _as_tuple("data", data), strict=False))
    if validation is None:
        return found
    if is_number(validation) or isinstance(validation, bool):
        if isinstance(validation, bool) or not 0 < validation < 1:
            raise ValueError(
                "`validation` must be a share of the data between 0 and 1, or data as `data`. "
                f"Received: {validation!r}"
            )
        return {**found, "validation_split": float(validation)}
    parts = _as_tuple("validation", validation)
    return {**found, "validation_data": parts[0] if len(parts) == 1 else parts}


def _as_tuple(name: str, data: Any) -> tuple[Any, ...]:
    """`(x, y)` or `(x, y, sample_weight)`; a data set alone."""
    if isinstance(data, (tuple, list)):
        if not 2 <= len(data) <= 3:
            raise ValueError(
                f"`{name}` must be (x, y), (x, y, sample_weight), or a data set. "
                f"Received: {len(data)} entries"
            )
        return tuple(data)
    if hasattr(data, "__next__"):
        raise ValueError(
            f"`{name}` is read once for every training: pass arrays, or a data set that can be "
            f"read again. Received: {type(data).__name__}, which can be read once"
        )
    if data is None or isinstance(data, (Mapping, str)) or hasattr(data, "shape"):
        raise ValueError(
            f"`{name}` must be (x, y), (x, y, sample_weight), or a data set. "
            f"Received: {type(data).__name__}"
        )
    return (data,)


# What a storage knows again. All of it is the same in another process that makes the same call.


def is_plain(value: Any) -> bool:
    """Whether an argument of `fit` is a number, a word or nothing."""
    return value is None or isinstance(value, (bool, int, float, str))


def described_data(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A checksum of the arrays; of another data set its type."""
    parts = (*NAMES, "validation_data")
    leaves = keras.tree.flatten([arguments.get(name) for name in parts])
    return {
        "data": [_described(leaf) for leaf in leaves if leaf is not None],
        "validation": arguments.get("validation_split", "validation_data" in arguments),
    }


def _described(leaf: Any) -> str:
    if not hasattr(leaf, "shape"):
        return type(leaf).__name__
    array = np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
    is_opaque = array.dtype == object
    checksum = 0 if is_opaque else zlib.crc32(np.ascontiguousarray(array).view("uint8").data)
    return f"{array.dtype}{list(array.shape)} {checksum:08x}"


def described_model(model: keras.Model) -> dict[str, Any]:
    """The size of the model, its optimizer, and its composite as compiled."""
    composite = composite_of(model)
    weights = composite._node.own_weights.given
    return {
        "size of the model": sum(math.prod(v.shape) for v in model.trainable_variables),
        "optimizer": _described_config(model.optimizer),
        "weights": {n: w if is_number(w) else _described_config(w) for n, w in weights.items()},
        "rule": label_of(composite.weighting),
    }


def _described_config(thing: Any) -> dict[str, Any]:
    """The class of a Keras object, and those of its arguments that are numbers or words."""
    config = {key: value for key, value in thing.get_config().items() if is_plain(value)}
    return {"class": type(thing).__name__, **config}
