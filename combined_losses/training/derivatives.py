"""Derivatives of a model's output by its inputs, for equations in a loss."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core.checks import is_float, is_integer
from combined_losses._core.names import quoted
from combined_losses._core.outputs import name_outputs, rename_single
from combined_losses._numerics.arrays import ArrayLike, Tensor

__all__ = ["input_gradients"]


def input_gradients(
    model: keras.Model | Callable[[Any], Any], x: Any, order: int = 1, output: str | None = None
) -> Any:
    """Derivatives of a model's output by its inputs, for equations in a loss.

    Args:
        model: a Keras model, which is called with `training=False`, or a function of `x`.
        x: inputs `(batch, inputs)`, or a dict or list of such for a model of several inputs.
        order: 1 (default) for first derivatives, 2 for second ones by the same input, and so on.
        output: None for a model of one output, else the name of one of them.

    Returns:
        `(batch, inputs)` for an output `(batch,)` or `(batch, 1)`, else `(batch, outputs, inputs)`;
        in the structure of `x`.

    Raises:
        ValueError: if `order` is no integer of at least 1, `x` not of rank 2, there is no such
            output, or it has more than two axes.

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
    """
    if not is_integer(order) or order < 1:
        raise ValueError(
            f"`input_gradients` needs an order of at least 1, an integer. Received: order={order!r}"
        )
    leaves = keras.tree.flatten(x) if _is_structure(x) else [x]
    leaves = [_as_inputs(leaf) for leaf in leaves]

    def of_leaf(place: int) -> Tensor:
        def outputs(leaf: Tensor) -> Tensor:
            inputs = [leaf if i == place else other for i, other in enumerate(leaves)]
            packed = keras.tree.pack_sequence_as(x, inputs) if _is_structure(x) else leaf
            return _one_output(model, packed, output)

        def column(leaf: Tensor, k: int) -> Tensor:
            return outputs(leaf)[:, k]

        count = outputs(leaves[place]).shape[-1]
        columns = [
            _derivative(functools.partial(column, k=k), leaves[place], order) for k in range(count)
        ]
        return columns[0] if count == 1 else ops.stack(columns, axis=1)

    found = [of_leaf(place) for place in range(len(leaves))]
    return keras.tree.pack_sequence_as(x, found) if _is_structure(x) else found[0]


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


def _one_output(model: Callable[..., Any], x: Any, output: str | None) -> Tensor:
    """The output of a model, or of a function, as `(batch, outputs)`."""
    found = model(x, training=False) if isinstance(model, keras.layers.Layer) else model(x)
    named = name_outputs(found, keras_private.output_names(model))
    named = rename_single(named, found, model)
    if output is None and len(named) == 1:
        chosen = next(iter(named.values()))
    elif output in named:
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
    return chosen if len(chosen.shape) == 2 else ops.expand_dims(chosen, -1)


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor, order: int) -> Tensor:
    """The derivatives of a function `(batch, inputs) -> (batch,)` by each input, `order` times."""
    gradient = backend.gradient(lambda inputs: ops.sum(function(inputs)))
    if order == 1:
        return gradient(x)

    def column(inputs: Tensor, d: int) -> Tensor:
        return gradient(inputs)[:, d]

    columns = [
        _derivative(functools.partial(column, d=d), x, order - 1)[:, d] for d in range(x.shape[1])
    ]
    return ops.stack(columns, axis=1)
