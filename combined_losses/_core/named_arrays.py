"""A batch as arrays with names, as an npz file holds it: x, y, sample_weight, x/<name>, y/0, ..."""

import keras

NAMES = ("x", "y", "sample_weight")


def to_named(x, y=None, sample_weight=None):
    """The arrays of a batch, a dict from name to array; those that are None are left out."""
    pairs = keras.tree.flatten_with_path(dict(zip(NAMES, (x, y, sample_weight), strict=True)))
    return {"/".join(map(str, path)): array for path, array in pairs if array is not None}


def from_named(arrays):
    """`(x, y, sample_weight)` of such a dict: arrays, dicts or lists of arrays, or None."""
    tree: dict = {}
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
    return tuple(_with_lists(tree.get(name)) for name in NAMES)


def _with_lists(node):
    if not isinstance(node, dict):
        return node
    if all(key.isdecimal() for key in node):
        return [_with_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _with_lists(value) for key, value in node.items()}
