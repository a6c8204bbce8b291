"""Long arrays in a config: as a text of their bytes, because Keras reads lists slowly."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEYS = {"packed", "dtype", "shape"}


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """An array of numbers as a small dict that JSON can hold."""
    little = array.astype(array.dtype.newbyteorder("<"))
    text = base64.b64encode(little.tobytes()).decode("ascii")
    return {"packed": text, "dtype": little.dtype.str, "shape": list(array.shape)}


def is_packed(value: object) -> bool:
    return isinstance(value, dict) and set(value) == _KEYS


def unpack(value: dict[str, Any]) -> NDArray[Any]:
    """The inverse of `pack`; raises a `ValueError` if the text is not that of such an array."""
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in "fiu":
        raise ValueError(f"a packed array holds numbers. Received: dtype={value['dtype']!r}")
    found = np.frombuffer(base64.b64decode(value["packed"], validate=True), dtype)
    return found.reshape(value["shape"]).astype(dtype.newbyteorder("="))
