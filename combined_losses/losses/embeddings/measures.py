"""What is measured of pairs of embeddings: cosines and distances."""

from keras import ops

from combined_losses._backend import backend
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import over_axes
from combined_losses.losses.embeddings.pairs import Pairs


def cosines(pairs: Pairs) -> Tensor:
    """The cosines of all anchors with all samples."""
    anchors = samples = normalised(pairs.anchors)
    if pairs.samples is not pairs.anchors:
        samples = normalised(pairs.samples)
    return backend.products(anchors, samples)


def normalised(x: Tensor) -> Tensor:
    """`x / sqrt(max(|x|^2, 1e-12))`, even where the square would overflow."""
    # A vector whose largest element is above 1 is first divided by it. That keeps the direction,
    # and the vector stays longer than 1e-6, so that the floor below plays no part.
    largest = over_axes(ops.max, ops.abs(x), keepdims=True)
    x = x / ops.stop_gradient(ops.maximum(largest, 1.0))
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    floor = 1e-12
    return x / ops.sqrt(ops.where(square > floor, square, floor))


# A squared distance is close if it is below this share of the sum of the two squared lengths.
_CLOSE = 1e-3


def squares(pairs: Pairs) -> Tensor:
    """The squared distances of all pairs; 0 with slope 0 where there is no pair."""
    # Subtracting the mean changes no distance, and avoids cancellation if the mean is large.
    centre = ops.stop_gradient(ops.mean(pairs.samples, axis=0))
    a = b = pairs.anchors - centre
    if pairs.samples is not pairs.anchors:
        b = pairs.samples - centre
    # |a|^2 + |b|^2 - 2ab is tens of times faster than the sum of (a - b)^2. But its error is about
    # 1e-7 of |a|^2 + |b|^2, not of the result: at the limit `_CLOSE` that is 1e-4 of the square,
    # 5e-5 of the distance. If any pair is closer, the slow formula is used for all pairs.
    lengths = ops.sum(ops.square(a), axis=-1)[:, None] + ops.sum(ops.square(b), axis=-1)
    expanded = lengths - 2 * backend.products(a, b)
    close = ops.any(ops.logical_and(pairs.all, expanded < _CLOSE * lengths))
    found = backend.either(close, lambda: backend.squared_distances(a, b), lambda: expanded)
    return ops.where(pairs.all, found, 0.0)


def root(squares: Tensor) -> Tensor:
    """The square root, with slope 0 at 0; NaN stays NaN."""
    nothing = squares <= 0
    return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, squares)))


def negatives_beyond(distances: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair the index of the nearest negative beyond its distance, or of the farthest.

    Also whether the anchor has a negative, `(anchors, 1)`.
    """
    of_negatives = ops.where(negative, distances, float("inf"))
    order = ops.argsort(of_negatives, axis=-1)
    in_order = ops.take_along_axis(of_negatives, order, axis=1)
    number = ops.sum(ops.cast(negative, "int32"), axis=-1, keepdims=True)
    # Samples that are no negatives come last. So a place after all negatives means that no negative
    # is farther than the positive; the last negative, the farthest, is then taken.
    place = ops.cast(backend.places_after(in_order, distances), "int32")
    place = ops.maximum(ops.minimum(place, number - 1), 0)
    return ops.take_along_axis(order, place, axis=1), number > 0
