"""Names for types. This floor imports nothing of ours, so that it has a `Tensor` of its own."""

from collections.abc import Callable
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend that Keras runs on."""

Once: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""`once(function, array)` is `function(array)`, computed once for several losses."""

Strategy: TypeAlias = Any
"""A `tf.distribute.Strategy`, or None."""

Rows: TypeAlias = list[list[Tensor]]
"""The gradients of k values: for each value a list of one gradient for each point."""

State: TypeAlias = tuple[Any, ...]
"""The state of a step on JAX: lists of tensors, see `keras_private.read_state`."""

Column: TypeAlias = tuple[int, int]
"""The place of an array in a list of arrays `(rows, columns)`, and the index of a column in it."""

Partial: TypeAlias = tuple[Column, ...]
"""A partial derivative: the columns by which it is taken, one after another; `()` is the value."""
