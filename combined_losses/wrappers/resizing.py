"""Targets, weights and masks at the resolution of a coarser output."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from combined_losses._core.alignment import at_every_place
from combined_losses._core.compound import as_node
from combined_losses._core.domains import is_void, own_voids
from combined_losses._core.keras_types import KerasLoss
from combined_losses._numerics.arrays import Tensor


def picked(array: Tensor, axes: Sequence[int], sizes: Sequence[Any]) -> Tensor:
    """The entries at the indices `floor(i * given / size)` along each of `axes`.

    If `size` divides the given length, these are every n-th entry. An axis of length 1 stays,
    because it holds for all resolutions.
    """
    for axis, size in zip(axes, sizes, strict=True):
        given = array.shape[axis]
        if given == 1 or is_same(given, size):
            continue
        if is_static(given, size) and given % size == 0:
            index = [slice(None)] * len(array.shape)
            index[axis] = slice(None, None, given // size)
            array = array[tuple(index)]
        elif is_static(given, size):
            array = ops.take(array, np.arange(size) * given // size, axis=axis)
        else:
            array = ops.take(array, ops.arange(size) * ops.shape(array)[axis] // size, axis=axis)
    return array


def averaged(array: Tensor, axes: Sequence[int], sizes: Sequence[Any]) -> Tensor:
    """The means over `size` equal cells along each of `axes`; cells share an entry on a border."""
    for axis, size in zip(axes, sizes, strict=True):
        given = array.shape[axis]
        if is_same(given, size):
            continue
        if is_static(given, size) and given % size == 0:
            shape = [*ops.shape(array)]
            shape[axis : axis + 1] = [size, given // size]
            array = ops.mean(ops.reshape(array, shape), axis=axis + 1)
            continue
        known = is_static(given, size)
        shares = _shares(given, size, np) if known else _shares(ops.shape(array)[axis], size, ops)
        shares = ops.cast(ops.convert_to_tensor(shares), array.dtype)
        lines = ops.matmul(ops.moveaxis(array, axis, -1), ops.transpose(shares))
        array = ops.moveaxis(lines, -1, axis)
    return array


def _shares(given: int, size: int, xp: Any) -> Tensor:
    """The share of each of `given` entries in the mean of each of `size` cells, `(size, given)`.

    In units of 1 / size of an entry, each cell has the length `given` and each entry the length
    `size`. So all borders are whole numbers.
    """
    cells, entries = xp.expand_dims(xp.arange(size), -1) * given, xp.arange(given) * size
    common = xp.minimum(cells + given, entries + size) - xp.maximum(cells, entries)
    return xp.maximum(common, 0) / given


def averaged_of_what_counts(
    array: Tensor,
    axes: Sequence[int],
    sizes: Sequence[Any],
    voids: frozenset[float],
    weighs: Tensor = None,
) -> Tensor:
    """`averaged` over the entries of each cell that are not void and that `weighs` lets count.

    If the entry that `picked` takes from a cell does not count, the cell gets that entry instead
    of a mean, and so does not count either.
    """
    void = is_void(array, voids)
    counts = None if void is None else ops.logical_not(void)
    used = None if weighs is None else at_every_place(weighs, array)
    if used is not None:
        counts = used if counts is None else ops.logical_and(counts, used)
    if counts is None:
        return averaged(array, axes, sizes)
    sums = averaged(ops.where(counts, array, ops.zeros_like(array)), axes, sizes)
    share = averaged(ops.cast(counts, array.dtype), axes, sizes)
    found = picked(counts, axes, sizes)
    means = sums / ops.where(found, share, ops.ones_like(share))
    return ops.where(found, means, picked(array, axes, sizes))


def void_numbers(loss: KerasLoss) -> frozenset[float]:
    """The numbers that mean "missing" or "void" in the targets of a loss, or of one inside."""
    node = as_node(loss.name, loss)
    losses = [loss, *node.compounds(), *(leaf.loss for leaf in node.leaves())]
    return frozenset().union(*map(own_voids, losses))


def takes_ids(loss: KerasLoss) -> bool:
    """Whether a loss, or one inside, compares with class ids, which have no mean."""
    node = as_node(loss.name, loss)
    own = (getattr(compound, "takes_ids", False) for compound in node.compounds())
    return any(own) or any(leaf.traits.takes_ids for leaf in node.leaves())


def is_static(*sizes: Any) -> bool:
    """Whether all sizes are numbers; TensorFlow may learn a size only when it runs."""
    return all(isinstance(size, int) for size in sizes)


def is_same(given: Any, size: Any) -> bool:
    """Whether two sizes are numbers, and equal."""
    return is_static(given, size) and given == size
