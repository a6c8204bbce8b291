"""Embeddings compared by their Euclidean distance, and distances themselves."""

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.loss import Loss
from combined_losses._numerics.floats import bounded
from combined_losses.losses.embeddings.pairs import LARGEST_DISTANCE, LabelledLoss, pairs_of

__all__ = ["Contrastive", "ContrastivePairs", "TripletSemiHard"]


@keras.saving.register_keras_serializable("combined_losses")
class Contrastive(Loss):
    """Distances of pairs: small for what is similar, at least a margin for what is not.

    `mean(y p^2 + (1 - y) max(margin - p, 0)^2)`, with y = 1 for similar and the distance p. Use it
    for a model of two inputs (Siamese) whose output is their distance; for embeddings and labels
    `ContrastivePairs` forms the pairs.

    Here 1 means the same. The Keras example "Image similarity estimation using a Siamese Network
    with a contrastive loss" has the reverse, 0 for the same: give `1 - y` of its labels.

    Args:
        margin: how far apart what is not similar shall be, above 0. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (in [0, 1]; 1 is similar) and `y_pred` (distances, of at least 0)
    `(batch, ...)`, equal; values `y_pred.shape[:-1]`, of at least 0, in squared units of distance.
    A distance beyond 1e14 counts as 1e14, without a gradient.

    Raises:
        ValueError: if `margin` is not above 0, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Contrastive(margin=1.0)
    >>> float(loss(np.array([[1.0], [0.0]]), np.array([[0.5], [0.5]])))
    0.25

    Limits: similar pairs alone are MSE against 0. The convention is that of TensorFlow Addons;
    Hadsell et al. 2006 (CVPR) write 1 for what is *not* similar, and half the value.
    """

    elementwise = True
    target_kind = "shares"

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        check_number("Contrastive", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true, y_pred):
        y_pred = bounded(y_pred, LARGEST_DISTANCE)
        near, far = ops.square(y_pred), ops.square(ops.relu(self.margin - y_pred))
        return ops.mean(y_true * near + (1 - y_true) * far, axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class ContrastivePairs(LabelledLoss):
    """`Contrastive` of all pairs of a batch, from embeddings and labels.

    An anchor has the mean over the other samples of `d^2` where their labels are equal and of
    `max(margin - d, 0)^2` where they are not, with the Euclidean distance d. Use it where classes
    shall become points that are a margin apart.

    Args:
        margin: how far apart different labels shall be, above 0. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, those of anchors, of at least 0, in squared units of distance.
    A batch of one sample has 0.

    A sample of weight 0 is not there for the others either; other weights act on anchors. Labels
    are told apart exactly, also large ids, if they are integers (JAX keeps 32 bits of them). NaN
    labels, and floats too large for whole numbers (2^24 in float32), make all values NaN: give
    what is unknown a weight of 0. -1 is a label like any other. Where a number of an
    embedding is beyond 1e14, the whole batch is divided by one factor, which brings it there.

    Raises:
        ValueError: if `margin` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.ContrastivePairs(margin=1.0, reduction="none")
    >>> values = loss(np.array([0, 0, 1]), np.array([[0.0, 0.0], [0.0, 2.0], [0.5, 0.0]]))
    >>> [float(value) for value in values]  # (2^2 + 0.5^2) / 2, 2^2 / 2 and 0.5^2 / 2
    [2.125, 2.0, 0.125]

    Limits: the slope at a distance of 0 is 0, so that equal embeddings of different labels stay
    together: start from different ones. The mean over all pairs weighs a rare kind of pair as
    little as it occurs, where pytorch-metric-learning adds the means of both kinds. Hadsell et al.
    2006 (CVPR).
    """

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        check_number("ContrastivePairs", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true, y_pred, sample_weight=None):
        pairs = pairs_of("ContrastivePairs", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        squares = _squares(pairs)
        far = ops.square(ops.relu(self.margin - _root(squares)))
        # A pair that is none has the square 0.
        terms = ops.where(pairs.negative, far, squares)
        return pairs.checked(ops.sum(terms, axis=-1) / ops.maximum(pairs.number - 1, 1.0))


@keras.saving.register_keras_serializable("combined_losses")
class TripletSemiHard(LabelledLoss):
    """A positive shall be nearer than a negative by a margin, for negatives just beyond it.

    For each ordered pair (a, q) of one label the negative n is the nearest with `d_an > d_aq`, or
    the farthest of all if there is none; its term is `max(margin + d_aq - d_an, 0)`, with the
    Euclidean distance d. Use it to rank: it leaves classes their shape, where `ContrastivePairs`
    draws them to points. Several samples of a class in a batch, and many classes.

    Args:
        margin: by how much a negative shall be farther than a positive, above 0. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, of at least 0, in units of distance: those of anchors, scaled
    so that their mean is that over all pairs (a, q) where a has a negative. All are 0 in a batch
    without such a pair.

    A sample of weight 0 is not there for the others either; other weights act on anchors. Labels
    are told apart exactly, also large ids, if they are integers (JAX keeps 32 bits of them). NaN
    labels, and floats too large for whole numbers (2^24 in float32), make all values NaN: give
    what is unknown a weight of 0. -1 is a label like any other. Where a number of an
    embedding is beyond 1e14, the whole batch is divided by one factor, which brings it there.

    Raises:
        ValueError: if `margin` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.TripletSemiHard(margin=1.0)
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [5.0]])
    >>> float(loss(np.array([0, 0, 1, 2]), embeddings))  # 1 + 1 - 1.5, and 1 + 1 - 4 < 0
    0.25

    Limits: the mean is that of TensorFlow Addons, but in a batch of one class, where Addons takes
    a distance of 0 to a negative that is not there. Distances are neither squared nor of
    normalised embeddings: end the model with `keras.layers.UnitNormalization()` for the latter. The
    slope at a distance of 0 is 0. It takes memory of the order of batch^2. Schroff et al. 2015,
    arXiv 1503.03832.
    """

    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)
        check_number("TripletSemiHard", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true, y_pred, sample_weight=None):
        pairs = pairs_of("TripletSemiHard", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        distances = _root(_squares(pairs))
        chosen, found = _negatives(ops.stop_gradient(distances), pairs.negative)
        farther = ops.take_along_axis(distances, chosen, axis=1)
        counted = ops.logical_and(pairs.positive, found)
        terms = ops.relu(ops.where(counted, self.margin + distances - farther, 0.0))
        counts = ops.sum(ops.cast(counted, terms.dtype), axis=-1)
        return pairs.scaled(ops.sum(terms, axis=-1), counts)


def _negatives(distances, negative):
    """For each pair the place of the nearest negative beyond its distance, or the farthest.

    Also whether the anchor has a negative, `(anchors, 1)`.
    """
    of_negatives = ops.where(negative, distances, float("inf"))
    order = ops.argsort(of_negatives, axis=-1)
    in_order = ops.take_along_axis(of_negatives, order, axis=1)
    number = ops.sum(ops.cast(negative, "int32"), axis=-1, keepdims=True)
    # What is no negative comes last, so the place after all negatives means that none is beyond.
    place = ops.cast(backend.places_after(in_order, distances), "int32")
    place = ops.maximum(ops.minimum(place, number - 1), 0)
    return ops.take_along_axis(order, place, axis=1), number > 0


# Below this share of both squared lengths a squared distance is computed from the difference.
_CLOSE = 1e-3


def _squares(pairs):
    """The squared distances of all pairs; 0 with slope 0 where there is no pair."""
    # The same, but nothing cancels for embeddings that have a large mean in common.
    centre = ops.stop_gradient(ops.mean(pairs.samples, axis=0))
    a = b = pairs.anchors - centre
    if pairs.samples is not pairs.anchors:
        b = pairs.samples - centre
    # |a|^2 + |b|^2 - 2ab is tens of times as fast as the sum of (a - b)^2, but its error is some
    # 1e-7 of |a|^2 + |b|^2 rather than of itself: for a pair with `_CLOSE` of this 1e-4 in the
    # square, 5e-5 in the distance. With a closer pair in the batch it is the other one for all.
    lengths = ops.sum(ops.square(a), axis=-1)[:, None] + ops.sum(ops.square(b), axis=-1)
    expanded = lengths - 2 * backend.products(a, b)
    close = ops.any(ops.logical_and(pairs.all, expanded < _CLOSE * lengths))
    squares = backend.either(close, lambda: backend.squared_distances(a, b), lambda: expanded)
    return ops.where(pairs.all, squares, 0.0)


def _root(squares):
    """The square root, with slope 0 at 0; what is not a number stays so."""
    nothing = squares <= 0
    return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, squares)))
