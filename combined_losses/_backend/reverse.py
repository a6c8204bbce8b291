"""Partial derivatives by nested backward passes, for frameworks that record what they compute."""

import contextlib
from collections.abc import Callable, Collection

from keras import ops

from combined_losses._backend.arrays import Column, Partial, Tensor

Slopes = Callable[[Tensor, list[Tensor]], list[Tensor]]
"""The gradients of the sum of a tensor by sources; each can be differentiated again."""

Recording = Callable[[list[Tensor]], contextlib.AbstractContextManager[Slopes]]
"""Records what the block computes from points; `Slopes` are taken after the block."""

_Split = list[list[Tensor]]  # for each output its columns, each of shape `(rows, 1)`


def jacobian(
    function: Callable[[list[Tensor]], list[Tensor]], points: list[Tensor], recording: Recording
) -> list[list[Tensor]]:
    """See `Backend.jacobian`."""
    with recording(points) as slopes:
        outputs = _split(function(points))
    found = [[slopes(column, points) for column in columns] for columns in outputs]
    return [[ops.stack(of_point, axis=1) for of_point in zip(*each, strict=True)] for each in found]


def partials(
    function: Callable[[list[Tensor]], list[Tensor]],
    points: list[Tensor],
    wanted: Collection[Partial],
    recording: Recording,
) -> dict[Partial, list[Tensor]]:
    """See `Backend.partials`. A partial derivative is taken of the one without its last column."""
    needed = {partial[:n] for partial in wanted for n in range(len(partial) + 1)}

    def derive(order: int) -> dict[Partial, _Split]:
        """All that is needed up to an order; enclosing blocks record the backward passes."""
        if order == 0:
            return {(): _split(function(points))}
        with recording(points) as slopes:
            found = derive(order - 1)
        for below in [partial for partial in found if len(partial) == order - 1]:
            last = [p[-1] for p in needed if len(p) == order and p[:-1] == below]
            if last:
                by_column = _by_columns(found[below], points, last, slopes)
                found |= {(*below, column): by_column[column] for column in last}
        return found

    found = derive(max(map(len, wanted), default=0))
    return {partial: [_joined(columns) for columns in found[partial]] for partial in wanted}


def _by_columns(
    outputs: _Split, points: list[Tensor], columns: list[Column], slopes: Slopes
) -> dict[Column, _Split]:
    """The derivatives of each column of each output: one backward pass for each."""
    places = sorted({place for place, _ in columns})
    found: dict[Column, _Split] = {column: [[] for _ in outputs] for column in columns}
    for number, output in enumerate(outputs):
        for target in output:
            gradients = slopes(target, [points[place] for place in places])
            by_place = dict(zip(places, gradients, strict=True))
            for place, index in columns:
                found[place, index][number].append(_column(by_place[place], index))
    return found


def _split(outputs: list[Tensor]) -> _Split:
    return [[_column(output, k) for k in range(output.shape[1])] for output in outputs]


def _column(tensor: Tensor, index: int) -> Tensor:
    # A slice of the only column would cost a step forward and one in each backward pass.
    return tensor if tensor.shape[1] == 1 else tensor[:, index : index + 1]


def _joined(columns: list[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else ops.concatenate(columns, axis=1)
