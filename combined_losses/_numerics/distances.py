"""Exact Euclidean distances between the pixels of masks, inside the graph."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._numerics.arrays import Tensor

# A distance longer than any line of an image. Its square is still exact in float32.
_FAR = float(2**15)
# How many pairs of pixels are compared at once: in float32 they take 4 MiB.
_PAIRS = 2**20


def to_other_kind(
    inside: Tensor, axes: tuple[int, ...], spacing: Sequence[float] | None = None
) -> Tensor:
    """Squared distance from every pixel to the nearest pixel of the other kind, float32.

    The two kinds are inside and outside: one pass gives the distances for both.

    Args:
        inside: booleans, `(batch, spatial..., channels)`.
        axes: the spatial axes, each shorter than 2^15.
        spacing: for each axis the distance of two neighbours, at most 1. None: 1 for all, which is
            faster, and exact.

    Returns:
        An array of the shape of `inside`; 0 where the mask of a sample and channel is empty or
        full.
    """
    inside = ops.stop_gradient(inside)
    some, all_of_it = (f(inside, axis=axes, keepdims=True) for f in (ops.any, ops.all))
    mixed = ops.logical_and(some, ops.logical_not(all_of_it))
    # For the first axis, h_i is the squared distance to the other kind along the line of pixel i.
    # For each further axis, the result at pixel j is the minimum over i of h_i + (i - j)^2. Here
    # h_i leads to the other kind than that of i, although the goal is the other kind than that of
    # j. The minimum is right all the same: where i and j differ in kind, i itself is a goal, at
    # (i - j)^2. That is less, because h_i is above 0, and `straight` contains it.
    squared = None
    for axis, step in zip(axes, spacing or [1.0] * len(axes), strict=True):
        along = _along(inside, axis)
        if step != 1:  # a line of one kind stays as far as it is
            along = ops.where(along < _FAR, step * along, along)
        # A mask of one kind has no distances. Its 0 stays, because every later step is a minimum.
        straight = ops.where(mixed, ops.square(along), *_float32(0.0))
        squared = straight if squared is None else _nearest(squared, straight, axis, step)
    return squared


def _along(inside: Tensor, axis: int) -> Tensor:
    """The distances to the other kind along an axis; `_FAR` where a line holds one kind only."""
    size = ops.shape(inside)[axis]
    last = ops.zeros_like(part(inside, axis, 0, 1))
    changes = ops.not_equal(part(inside, axis, 1, None), part(inside, axis, 0, -1))
    beside = ops.logical_or(
        ops.concatenate([changes, last], axis=axis), ops.concatenate([last, changes], axis=axis)
    )

    def extend(step: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        # The steps are the powers of four: 0 to 3 steps of each add up to any distance.
        framed = _framed(distance, axis, size)
        for multiple in (1, 2, 3):
            shift = ops.minimum(multiple * step, size)
            nearer = ops.minimum(*_moved(framed, axis, shift, size))
            distance = ops.minimum(distance, nearer + ops.cast(shift, distance.dtype))
        return 4 * step, distance

    first = (ops.convert_to_tensor(1, "int32"), ops.where(beside, *_float32(1.0, _FAR)))
    # A loop even where the size is known: XLA fuses unrolled steps and computes each many times.
    return ops.while_loop(lambda step, _: step < size, extend, first)[1]


def _nearest(squared: Tensor, straight: Tensor, axis: int, step: float) -> Tensor:
    """Along lines: the smaller of `straight_j` and of `squared_i + (i - j)^2` at the best i.

    Neighbours are `step` apart.
    """
    lines = ops.moveaxis(squared, axis, -1)
    if lines.shape[0] == 0:
        return straight  # no backend maps over no blocks
    shape = ops.shape(lines)
    position = ops.arange(shape[-1], dtype=squared.dtype)
    shift = ops.expand_dims(position, -1) - position
    shift = ops.square(shift if step == 1 else step * shift)
    # Compare all pairs of a line at once, in blocks of lines that fit into a processor's cache.
    blocks, number = _blocks(lines)
    nearest = ops.map(lambda b: ops.min(ops.expand_dims(b, -2) + shift, axis=-1), blocks)
    if number is not None:
        nearest = ops.reshape(nearest, (-1, shape[-1]))[:number]
    return ops.minimum(ops.moveaxis(ops.reshape(nearest, shape), -1, axis), straight)


def _blocks(lines: Tensor) -> tuple[Tensor, Tensor | None]:
    """Lines in blocks of about `_PAIRS` pairs, `(blocks, lines, size)`.

    Also the number of lines if the last block had to be filled up, else None. It need not be where
    all sizes are known: the size of a block is then a divisor of the number of lines of a sample.
    """
    *others, size = lines.shape[1:]
    if size is not None and None not in others:
        count = math.prod(others)
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        block = min(divisors, key=lambda n: abs(math.log(n * size * size / _PAIRS)))
        return ops.reshape(lines, (-1, block, size)), None
    size = ops.shape(lines)[-1]
    lines = ops.reshape(lines, (-1, size))
    number = ops.shape(lines)[0]
    block = ops.maximum(1, ops.minimum(number, _PAIRS // (size * size)))
    lines = ops.pad(lines, [(0, -number % block), (0, 0)])
    return ops.reshape(lines, (-1, block, size)), number


def _framed(array: Tensor, axis: int, margin: Tensor) -> Tensor:
    """`array` with a frame: `margin` pixels of a very large distance at both ends of an axis."""
    padding = [(0, 0)] * len(array.shape)
    padding[axis] = (margin, margin)
    return ops.pad(array, padding, constant_values=_FAR * _FAR)


def _float32(*numbers: float) -> list[Tensor]:
    """Numbers as float32, whatever floatx the user has set."""
    return [ops.convert_to_tensor(number, "float32") for number in numbers]


def _moved(framed: Tensor, axis: int, shift: Tensor, size: Tensor) -> Iterator[Tensor]:
    """For every pixel, the value `shift` pixels ahead along an axis, and the one as far behind."""
    shape = list(ops.shape(framed))
    margin = (shape[axis] - size) // 2
    shape[axis] = size
    along = ops.convert_to_tensor(np.eye(len(shape), dtype="int32")[axis])
    return (ops.slice(framed, along * (margin + offset), shape) for offset in (shift, -shift))


def nearest_other(
    inside: NDArray[np.bool_], axes: tuple[int, ...], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """`to_other_kind` for a NumPy array, in float64 and without a framework."""
    mixed = inside.any(axis=axes, keepdims=True) & ~inside.all(axis=axes, keepdims=True)
    squared = [np.where(inside == kind, 0.0, _FAR * _FAR) for kind in (False, True)]
    for axis, step in zip(axes, spacing, strict=True):
        position = np.arange(inside.shape[axis], dtype="float64")
        shift = np.square(step * (position[:, None] - position))
        for kind, lines in enumerate(squared):
            lines = np.moveaxis(lines, axis, -1)
            # One row of `shift` at a time: all pairs at once may not fit into memory.
            nearest = np.stack([(lines + row).min(axis=-1) for row in shift], axis=-1)
            squared[kind] = np.moveaxis(nearest, -1, axis)
    return np.where(mixed, np.where(inside, *squared), 0.0)


def part(array: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    """`array[start:stop]` along an axis."""
    index = [slice(None)] * len(array.shape)
    index[axis] = slice(start, stop)
    return array[tuple(index)]
