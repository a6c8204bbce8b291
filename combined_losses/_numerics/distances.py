"""Exact Euclidean distances between the pixels of masks, inside the graph."""

import math

import numpy as np
from keras import ops

# Longer than any line of an image; its square is still exact in float32.
_FAR = float(2**15)
# Pairs of pixels of a line that are compared at once: 4 MiB.
_PAIRS = 2**20


def to_other_kind(inside, axes):
    """Squared distances of every pixel to the nearest one of the other kind, in pixels, float32.

    One pass gives both those of the background to the foreground and the reverse.

    Args:
        inside: booleans, `(batch, spatial..., channels)`.
        axes: the spatial axes, each shorter than 2^15.

    Returns:
        An array of the shape of `inside`; 0 where the mask of a sample and channel is empty or
        full.
    """
    inside = ops.stop_gradient(inside)
    some, all_of_it = (f(inside, axis=axes, keepdims=True) for f in (ops.any, ops.all))
    mixed = ops.logical_and(some, ops.logical_not(all_of_it))
    # First h, the squared distance to the other kind along lines. Then, axis by axis, the nearest
    # over i of h_i + (i - j)^2. That h_i leads to another kind than that of i, where it should be
    # that of j, makes no difference: where the two are not alike i itself is a goal, at (i - j)^2,
    # which is in `straight` and less, as h_i is at least 1.
    squared = None
    for axis in axes:
        # Without the other kind there is no distance, and 0 is the least also in what follows.
        straight = ops.where(mixed, ops.square(_along(inside, axis)), *_float32(0.0))
        squared = straight if squared is None else _nearest(squared, straight, axis)
    return squared


def _along(inside, axis):
    """The distances to the other kind along an axis; `_FAR` where that line has none."""
    size = ops.shape(inside)[axis]
    last = ops.zeros_like(part(inside, axis, 0, 1))
    changes = ops.not_equal(part(inside, axis, 1, None), part(inside, axis, 0, -1))
    beside = ops.logical_or(
        ops.concatenate([changes, last], axis=axis), ops.concatenate([last, changes], axis=axis)
    )

    def extend(step, distance):
        # Every distance is a sum of 0 to 3 of every power of four.
        framed = _framed(distance, axis, size)
        for multiple in (1, 2, 3):
            shift = ops.minimum(multiple * step, size)
            nearer = ops.minimum(*_moved(framed, axis, shift, size))
            distance = ops.minimum(distance, nearer + ops.cast(shift, distance.dtype))
        return 4 * step, distance

    first = (ops.convert_to_tensor(1, "int32"), ops.where(beside, *_float32(1.0, _FAR)))
    # A loop also where the size is known: XLA computes fused steps of one expression many times.
    return ops.while_loop(lambda step, _: step < size, extend, first)[1]


def _nearest(squared, straight, axis):
    """The least of `straight_j` and, over i, `squared_i + (i - j)^2`, along an axis."""
    lines = ops.moveaxis(squared, axis, -1)
    shape = ops.shape(lines)
    position = ops.arange(shape[-1], dtype=squared.dtype)
    shift = ops.square(ops.expand_dims(position, -1) - position)
    # All pairs of a line at once, in blocks that fit into the cache of a processor.
    blocks, number = _blocks(lines)
    nearest = ops.map(lambda b: ops.min(ops.expand_dims(b, -2) + shift, axis=-1), blocks)
    if number is not None:
        nearest = ops.reshape(nearest, (-1, shape[-1]))[:number]
    return ops.minimum(ops.moveaxis(ops.reshape(nearest, shape), -1, axis), straight)


def _blocks(lines):
    """Lines in blocks of about `_PAIRS` pairs, `(blocks, lines, size)`.

    Also the number of lines where the last block is filled up, else None: blocks of a known size
    are a divisor of the lines of a sample.
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


def _framed(array, axis, margin):
    """`array` with `margin` pixels of the largest distance at both ends of an axis."""
    padding = [(0, 0)] * len(array.shape)
    padding[axis] = (margin, margin)
    return ops.pad(array, padding, constant_values=_FAR * _FAR)


def _float32(*numbers):
    """Numbers that are not of the floatx that the user may have set."""
    return [ops.convert_to_tensor(number, "float32") for number in numbers]


def _moved(framed, axis, shift, size):
    """What lies `shift` pixels ahead along an axis, and what lies as far behind; out of a frame."""
    shape = list(ops.shape(framed))
    margin = (shape[axis] - size) // 2
    shape[axis] = size
    along = ops.convert_to_tensor(np.eye(len(shape), dtype="int32")[axis])
    return (ops.slice(framed, along * (margin + offset), shape) for offset in (shift, -shift))


def nearest_other(inside, axes):
    """`to_other_kind` of a NumPy array, in float64 and without a framework."""
    mixed = inside.any(axis=axes, keepdims=True) & ~inside.all(axis=axes, keepdims=True)
    squared = [np.where(inside == kind, 0.0, _FAR * _FAR) for kind in (False, True)]
    for axis in axes:
        position = np.arange(inside.shape[axis], dtype="float64")
        shift = np.square(position[:, None] - position)
        for kind, lines in enumerate(squared):
            lines = np.moveaxis(lines, axis, -1)
            # Line by line of pixels across: all pairs at once may not fit into the memory.
            nearest = np.stack([(lines + row).min(axis=-1) for row in shift], axis=-1)
            squared[kind] = np.moveaxis(nearest, -1, axis)
    return np.where(mixed, np.where(inside, *squared), 0.0)


def part(array, axis, start, stop):
    """`array[start:stop]` along an axis."""
    index = [slice(None)] * len(array.shape)
    index[axis] = slice(start, stop)
    return array[tuple(index)]
