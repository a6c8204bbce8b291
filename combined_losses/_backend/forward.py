"""Partial derivatives by passes forward through functions, around one pass forward or backward.

A pass forward gives the derivative of everything that a function returns, along one column of its
points. A pass backward gives the derivatives of one number by all columns. The first derivatives
are taken in whichever way needs fewer passes; those of a higher order always forward.
"""

import contextlib
import functools
from collections.abc import Callable, Collection
from typing import Any, Protocol, TypeAlias

from keras import ops

from combined_losses._backend.arrays import Column, Partial, Tensor

Function: TypeAlias = Callable[[list[Tensor]], list[Tensor]]

_First: TypeAlias = tuple[list[Tensor], list[list[Tensor]]]
"""What a function returns, and its Jacobian."""


class Transforms(Protocol):
    """The transformations of functions that a framework offers; the module `jax` has them."""

    def linearize(self, function: Callable[..., Any], points: Any) -> tuple[Any, Any]:
        """The value, and the function from a direction to the derivative along it."""

    def vjp(self, function: Callable[..., Any], points: Any) -> tuple[Any, Any]:
        """The value, and the function from its gradient to the gradients at the points."""

    def eval_shape(self, function: Callable[..., Any], points: Any) -> Any:
        """What the function returns, with shapes but no numbers."""


_TakeFirst: TypeAlias = Callable[[Function, Transforms, list[Tensor]], _First]


def jacobian(
    function: Function, points: list[Tensor], transforms: Transforms
) -> list[list[Tensor]]:
    """See `Backend.jacobian`."""
    columns = sum(point.shape[1] for point in points)
    if _is_forward_cheaper(transforms.eval_shape(function, points), points, columns, 0):
        # A function with a gradient of its own, a `custom_vjp`, has no forward derivative.
        with contextlib.suppress(TypeError):
            return _first_forward(function, transforms, points)[1]
    return _first_backward(function, transforms, points)[1]


def partials(
    function: Function,
    points: list[Tensor],
    wanted: Collection[Partial],
    transforms: Transforms,
) -> dict[Partial, list[Tensor]]:
    """See `Backend.partials`."""
    columns = {column for partial in wanted for column in partial}
    outer = {partial[:-1] for partial in wanted} - {()}
    outputs = transforms.eval_shape(function, points)
    if _is_forward_cheaper(outputs, points, len(columns), len(outer)):
        with contextlib.suppress(TypeError):  # as in `jacobian`
            return _partials(_first_forward, function, points, wanted, transforms)
    return _partials(_first_backward, function, points, wanted, transforms)


def _is_forward_cheaper(outputs: Any, points: list[Tensor], columns: int, outer: int) -> bool:
    """Compares the passes through the network of both ways to take the first derivatives.

    Args:
        outputs: what the function returns, or its shapes.
        points: where the derivatives are taken.
        columns: the number of columns that derivatives are taken by.
        outer: the number of derivatives that are taken of the first derivatives.
    """
    width = sum(output.shape[1] for output in outputs)
    # A pass forward gives the rows of the outputs, one backward those of the points.
    rows = {array.shape[0] for array in (*outputs, *points)}
    return len(rows) == 1 and 1 + columns + 2 * outer <= (1 + width) * (1 + outer)


def _first_forward(function: Function, transforms: Transforms, points: list[Tensor]) -> _First:
    outputs, push = transforms.linearize(function, points)
    pushed = [
        [push(_direction(points, (place, index))) for index in range(point.shape[1])]
        for place, point in enumerate(points)
    ]
    return outputs, [
        [ops.stack([each[n] for each in of_point], axis=-1) for of_point in pushed]
        for n in range(len(outputs))
    ]


def _first_backward(function: Function, transforms: Transforms, points: list[Tensor]) -> _First:
    outputs, pull = transforms.vjp(function, points)
    pulled = [
        [pull(_direction(outputs, (place, index)))[0] for index in range(output.shape[1])]
        for place, output in enumerate(outputs)
    ]
    return outputs, [
        [ops.stack(of_point, axis=1) for of_point in zip(*of_output, strict=True)]
        for of_output in pulled
    ]


def _direction(arrays: list[Tensor], column: Column) -> list[Tensor]:
    """Zeros like the arrays, but ones in one column."""
    direction = [ops.zeros_like(array) for array in arrays]
    place, index = column
    width, dtype = arrays[place].shape[1], arrays[place].dtype
    direction[place] = direction[place] + ops.one_hot(index, width, dtype=dtype)
    return direction


def _partials(
    take_first: _TakeFirst,
    function: Function,
    points: list[Tensor],
    wanted: Collection[Partial],
    transforms: Transforms,
) -> dict[Partial, list[Tensor]]:
    """The derivatives, each the one along all columns but the last of the first derivatives."""
    outer = {partial[:-1] for partial in wanted}
    first = functools.partial(take_first, function, transforms)
    derived = _along(first, points, outer, transforms)
    found = {}
    for partial in wanted:
        outputs, slopes = derived[partial[:-1]]
        if partial:
            place, index = partial[-1]
            outputs = [of_output[place][..., index] for of_output in slopes]
        found[partial] = outputs
    return found


def _along(
    function: Callable[[list[Tensor]], _First],
    points: list[Tensor],
    wanted: Collection[Partial],
    transforms: Transforms,
) -> dict[Partial, _First]:
    """The derivatives of all that a function returns, with one pass forward for each column."""
    columns = sorted({partial[0] for partial in wanted if partial})
    if not columns:
        return {(): function(points)}
    value, push = transforms.linearize(function, points)
    found: dict[Partial, _First] = {(): value}
    for column in columns:
        direction = _direction(points, column)
        after = {partial[1:] for partial in wanted if partial[:1] == (column,)}
        if after == {()}:
            found[(column,)] = push(direction)
            continue

        def pushed(points: list[Tensor], direction: list[Tensor] = direction) -> Any:
            return transforms.linearize(function, points)[1](direction)

        further = _along(pushed, points, after, transforms)
        found |= {(column, *partial): each for partial, each in further.items()}
    return found
