"""Derivatives of a model's output by its inputs, for equations in a loss."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._backend.arrays import Column, Partial
from combined_losses._core.checks import is_float, is_integer
from combined_losses._core.names import quoted
from combined_losses._core.outputs import name_outputs, rename_single
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.training.columns import find_columns, read_derivatives

__all__ = ["input_gradients"]


def input_gradients(
    model: keras.Model | Callable[[Any], Any],
    x: Any,
    order: int = 1,
    output: str | Sequence[str] | None = None,
    *,
    derivatives: Sequence[str | tuple[str, ...]] | None = None,
    columns: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
) -> Any:
    """Derivatives of a model's output by its inputs, for equations in a loss.

    Args:
        model: a Keras model, which is called with `training=False`, or a function of `x`. Each row
            of its output must depend on that row of `x` alone.
        x: inputs `(batch, inputs)`, or a dict or list of such for a model of several inputs.
        order: 1 (default) for first derivatives, 2 for second ones by the same input, and so on.
        output: None for a model of one output, else the name of one of them, or a list of names.
        derivatives: None, or a list of the derivatives to take, in place of `order`: `"t"`, `"xx"`
            and the mixed `"xt"` are u_t, u_xx and u_xt, and `""` is u itself. For columns with
            names of several letters give a tuple, `("time", "time")`. What two derivatives have in
            common is computed once.
        columns: with `derivatives`, the names of the columns of `x` in order: `"xt"`, or a list of
            names. If `x` is a dict, an input of one column has the name of its key, and `columns`
            is a dict that names the columns of the others: `{"place": "xy"}`.

    Returns:
        `(batch, inputs)` for an output `(batch,)` or `(batch, 1)`, else the Jacobian,
        `(batch, outputs, inputs)`; in the structure of `x`. With `derivatives` a dict from each of
        them to an array in the shape of the output. If `output` is a list, a dict from each name to
        that.

    Raises:
        ValueError: if `order` is no integer of at least 1, `x` not of rank 2, there is no such
            output or column, or the output has more than two axes.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> inputs = keras.Input((1,))
    >>> model = keras.Model(inputs, inputs**3)
    >>> x = np.array([[2.0]], "float32")
    >>> keras.ops.convert_to_numpy(cl.input_gradients(model, x))
    array([[12.]], dtype=float32)
    >>> keras.ops.convert_to_numpy(cl.input_gradients(model, x, order=2))
    array([[12.]], dtype=float32)

    The equation of Burgers, u_t + u u_x = 0.01 u_xx, where the columns of `x` are x and t:

    >>> def burgers(model, x, y, u):
    ...     d = cl.input_gradients(model, x, derivatives=["t", "x", "xx"], columns="xt")
    ...     return keras.ops.square(d["t"] + u * d["x"] - 0.01 * d["xx"])
    >>> loss = cl.CompositeLoss({"burgers": cl.wrappers.OnInputs(burgers)})
    """
    _check_order(order, derivatives, columns)
    _check_output(output)
    leaves = [_as_inputs(leaf) for leaf in (keras.tree.flatten(x) if _is_structure(x) else [x])]
    outputs = _Outputs(model, x, output)
    if derivatives is None:
        found = [
            keras.tree.pack_sequence_as(x, of_output) if _is_structure(x) else of_output[0]
            for of_output in _by_all(outputs, leaves, int(order))
        ]
    else:
        named = find_columns(x, leaves, columns)
        partials = read_derivatives(derivatives, list(named))
        wanted = {key: tuple(named[name] for name in each) for key, each in partials.items()}
        found = _by_some(outputs, leaves, wanted)
    if output is None or isinstance(output, str):
        return found[0]
    return dict(zip(output, found, strict=True))


def _check_order(order: Any, derivatives: Any, columns: Any) -> None:
    if not is_integer(order) or order < 1:
        raise ValueError(
            f"`input_gradients` needs an order of at least 1, an integer. Received: order={order!r}"
        )
    if derivatives is not None and order != 1:
        raise ValueError(
            "`input_gradients` takes `order` or `derivatives`, not both: the derivatives state "
            f"their own orders. Received: order={order!r}, derivatives={derivatives!r}"
        )
    if derivatives is None and columns is not None:
        raise ValueError(
            "`input_gradients` needs `columns` only with `derivatives`. State the derivatives, "
            f"such as derivatives=['x', 'xx']. Received: columns={columns!r}"
        )


def _check_output(output: Any) -> None:
    names = output if isinstance(output, (list, tuple)) else [output]
    is_known = output is None or (names and all(isinstance(name, str) for name in names))
    if not is_known:
        raise ValueError(
            "The argument `output` of `input_gradients` must be the name of an output, a list of "
            f"names, or None. Received: {output!r}"
        )


def _is_structure(x: Any) -> bool:
    """Whether `x` holds several inputs; a list of numbers is one."""
    return keras.tree.is_nested(x) and not all(
        isinstance(leaf, (int, float)) for leaf in keras.tree.flatten(x)
    )


def _as_inputs(x: ArrayLike) -> Tensor:
    """Floating-point inputs `(batch, inputs)`: whole numbers have no derivative."""
    x = ops.convert_to_tensor(x)
    if len(x.shape) != 2:
        raise ValueError(
            "`input_gradients` needs x of shape (batch, inputs), or a dict or list of such. "
            f"Received: x of shape {tuple(x.shape)}"
        )
    return x if is_float(x) else ops.cast(x, keras.config.floatx())


class _Outputs:
    """The outputs of a model, or of a function, as a function of a list of its inputs.

    Args:
        model: as in `input_gradients`.
        x: the structure of the inputs.
        output: as in `input_gradients`.
    """

    def __init__(
        self, model: Callable[..., Any], x: Any, output: str | Sequence[str] | None
    ) -> None:
        self._model = model
        self._x = x
        self._names: list[str | None] = (
            [output] if output is None or isinstance(output, str) else list(output)
        )
        self.shapes: list[tuple[int | None, ...]] = []  # of the outputs, known after a call

    def __call__(self, leaves: list[Tensor]) -> list[Tensor]:
        """Each chosen output, as `(batch, outputs)`."""
        model = self._model
        x = keras.tree.pack_sequence_as(self._x, leaves) if _is_structure(self._x) else leaves[0]
        found = model(x, training=False) if isinstance(model, keras.layers.Layer) else model(x)
        named = name_outputs(found, keras_private.output_names(model))
        named = rename_single(named, found, model)
        chosen = [_choose(named, name) for name in self._names]
        self.shapes = [tuple(each.shape) for each in chosen]
        return [each if len(each.shape) == 2 else ops.expand_dims(each, -1) for each in chosen]


def _choose(named: Mapping[str, Tensor], output: str | None) -> Tensor:
    """The output of a name, or the only one; of rank 1 or 2."""
    if output is None and len(named) == 1:
        chosen = next(iter(named.values()))
    elif output is not None and output in named:
        chosen = named[output]
    else:
        raise ValueError(
            "The argument `output` of `input_gradients` must be one of "
            f"{quoted(named)}. Received: {output!r}"
        )
    if len(chosen.shape) not in (1, 2):
        raise ValueError(
            "`input_gradients` needs an output of shape (batch,) or (batch, outputs). "
            f"Received: an output of shape {tuple(chosen.shape)}"
        )
    return chosen


def _by_all(outputs: _Outputs, leaves: list[Tensor], order: int) -> list[list[Tensor]]:
    """For each output its derivatives by each column of each input, all of one order."""
    if order == 1:
        jacobians = backend.jacobian(outputs, leaves)
    else:
        inputs = [[(place, k) for k in range(x.shape[1])] for place, x in enumerate(leaves)]
        wanted = [(column,) * order for columns in inputs for column in columns]
        found = backend.partials(outputs, leaves, wanted)
        jacobians = [
            [ops.stack([found[(c,) * order][n] for c in columns], axis=-1) for columns in inputs]
            for n in range(len(outputs.shapes))
        ]
    return [[each[:, 0] if each.shape[1] == 1 else each for each in found] for found in jacobians]


def _by_some(
    outputs: _Outputs, leaves: list[Tensor], wanted: dict[str | tuple[str, ...], Partial]
) -> list[dict[str | tuple[str, ...], Tensor]]:
    """For each output a dict of the wanted derivatives, in the shape of the output."""
    ordered = _ordered(wanted)
    found = backend.partials(outputs, leaves, sorted({*ordered.values()}))
    _check_rows(outputs, leaves, wanted)
    return [
        {
            key: ops.squeeze(found[partial][n], -1) if len(shape) == 1 else found[partial][n]
            for key, partial in ordered.items()
        }
        for n, shape in enumerate(outputs.shapes)
    ]


def _ordered(
    wanted: dict[str | tuple[str, ...], Partial],
) -> dict[str | tuple[str, ...], Partial]:
    """The derivatives, each by its most common column first, so that they have much in common.

    u_xx and u_tx are both derivatives of u_x: the first of these is `(x, x)`, the second `(x, t)`.
    """
    several = [partial for partial in {*wanted.values()} if len(partial) > 1]
    uses = Counter(column for partial in several for column in partial)

    def place(column: Column) -> tuple[int, Column]:
        return -uses[column], column

    return {key: tuple(sorted(partial, key=place)) for key, partial in wanted.items()}


def _check_rows(
    outputs: _Outputs, leaves: list[Tensor], wanted: dict[str | tuple[str, ...], Partial]
) -> None:
    """Raises where an output has not the rows of the inputs that it is differentiated by."""
    places = {place for partial in wanted.values() for place, _ in partial}
    for place in sorted(places):
        rows = leaves[place].shape[0]
        for shape in outputs.shapes:
            if rows is not None and shape[0] not in (None, rows):
                raise ValueError(
                    "`input_gradients` needs an output with the rows of the inputs that it is "
                    f"differentiated by. Received: an output of shape {shape} and an input of "
                    f"shape {tuple(leaves[place].shape)}"
                )
