"""The names of the columns of inputs, and derivatives that are stated by them: "xt" is u_xt."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from combined_losses._backend.arrays import Column
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import Tensor


def find_columns(x: Any, leaves: Sequence[Tensor], columns: Any) -> dict[str, Column]:
    """The columns of inputs by their names.

    Args:
        x: the inputs as the user gave them.
        leaves: the same as a flat list of arrays `(batch, inputs)`.
        columns: as in `input_gradients`.
    """
    every = [(place, index) for place, leaf in enumerate(leaves) for index in range(leaf.shape[1])]
    names = _names_in_dict(x, leaves, columns) if isinstance(x, Mapping) else columns
    example = "".join("xyzt"[: len(every)]) if len(every) <= 4 else ["x1", "x2", "..."]
    if not _are_names(names) or len(names) != len(every):
        raise ValueError(
            "`input_gradients` needs the names of all columns of x for `derivatives`, one for each "
            f"of the {len(every)}, such as columns={example!r}. Received: columns={columns!r}"
        )
    if len({*names}) < len(names):
        raise ValueError(
            "The argument `columns` of `input_gradients` must give each column a name of its own. "
            f"Received: {columns!r}, which names the columns {quoted(names)}"
        )
    return dict(zip(names, every, strict=True))


def _are_names(names: Any) -> bool:
    """Whether it is a string of letters, or a sequence of names."""
    return isinstance(names, str) or (
        isinstance(names, Sequence) and all(isinstance(name, str) and name for name in names)
    )


def _names_in_dict(x: Mapping[str, Any], leaves: Sequence[Tensor], columns: Any) -> list[str]:
    """The names of the columns of a dict of inputs, in the order in which Keras flattens it."""
    given = {} if columns is None else columns
    if not isinstance(given, Mapping) or not {*given} <= {*x}:
        raise ValueError(
            "The argument `columns` of `input_gradients` must be a dict from inputs to the names "
            f"of their columns, where x is a dict of {quoted(x)}. Received: {columns!r}"
        )
    if any(keras.tree.is_nested(value) for value in x.values()):
        raise ValueError(
            "The argument `derivatives` of `input_gradients` needs x to be an array, a list of "
            f"arrays or a dict of arrays. Received: a nested dict of {quoted(x)}"
        )
    places = keras.tree.pack_sequence_as(x, list(range(len(leaves))))
    names: list[str] = []
    for key, place in sorted(places.items(), key=lambda item: item[1]):
        count = leaves[place].shape[1]
        of_key = given.get(key, [str(key)] if count == 1 else None)
        if not _are_names(of_key) or len(of_key) != count:
            raise ValueError(
                f"The argument `columns` of `input_gradients` must name the {count} columns of the "
                f"input '{key}', such as columns={{'{key}': {'xyzt'[:count]!r}}}. "
                f"Received: {columns!r}"
            )
        names += of_key
    return names


def read_derivatives(
    derivatives: Any, columns: Sequence[str]
) -> dict[str | tuple[str, ...], tuple[str, ...]]:
    """The names of the columns by which each of the user's derivatives is taken."""
    if isinstance(derivatives, str) or not isinstance(derivatives, Sequence) or not derivatives:
        raise ValueError(
            "The argument `derivatives` of `input_gradients` must be a list, such as "
            f"[{columns[0]!r}, {columns[0] * 2!r}]. Received: {derivatives!r}"
        )
    return {_as_key(each): _read(each, columns) for each in derivatives}


def _as_key(derivative: Any) -> str | tuple[str, ...]:
    return tuple(derivative) if isinstance(derivative, list) else derivative


def _read(derivative: Any, columns: Sequence[str]) -> tuple[str, ...]:
    """A name, the letters of a string, or the names in a tuple."""
    if isinstance(derivative, str) and derivative in columns:
        return (derivative,)
    if isinstance(derivative, (str, list, tuple)) and all(name in columns for name in derivative):
        return tuple(derivative)
    names = [name for name in columns if len(name) > 1]
    example = f"{(names[0], names[0])!r}" if names else f"{columns[0] * 2!r}"
    raise ValueError(
        f"The derivatives of `input_gradients` are by {quoted(columns)}, for example {example}. "
        f"Received: {derivative!r}"
    )
