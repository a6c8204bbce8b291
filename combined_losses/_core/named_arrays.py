"""A batch as a flat dict of arrays, as in an npz file: x, y, sample_weight, x/<name>, y/0, ..."""

from collections.abc import Mapping
from typing import Any

import keras

from combined_losses._numerics.arrays import ArrayLike

NAMES = ("x", "y", "sample_weight")


def to_named(x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, ArrayLike]:
    """The arrays of a batch by name; those that are None are left out."""
    pairs = keras.tree.flatten_with_path(dict(zip(NAMES, (x, y, sample_weight), strict=True)))
    return {"/".join(map(str, path)): array for path, array in pairs if array is not None}


def from_named(arrays: Mapping[str, ArrayLike]) -> tuple[Any, Any, Any]:
    """`(x, y, sample_weight)` of such a dict: arrays, dicts or lists of arrays, or None."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *branches, leaf = name.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or leaf in node:
            raise ValueError(f"'{name}' is within another array. Received: {', '.join(arrays)}")
        node[leaf] = array
    x, y, sample_weight = (_with_lists(tree.get(name)) for name in NAMES)
    return x, y, sample_weight


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if all(key.isdecimal() for key in node):
        return [_with_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _with_lists(value) for key, value in node.items()}
