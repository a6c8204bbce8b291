"""Embeddings compared by their Euclidean distance, and losses of given distances."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import bounded
from combined_losses.losses.embeddings.measures import negatives_beyond, root, squares
from combined_losses.losses.embeddings.pairs import LARGEST_DISTANCE, LabelledLoss, pairs_of

__all__ = ["Contrastive", "ContrastivePairs", "TripletSemiHard"]


@keras.saving.register_keras_serializable("combined_losses")
class Contrastive(Loss):
    """Distances of pairs: small for similar pairs, at least a margin for others.

    `mean(y p^2 + (1 - y) max(margin - p, 0)^2)`, where p is the distance and y is 1 for similar
    pairs. Use it for a model of two inputs (Siamese) whose output is their distance; for embeddings
    and labels `ContrastivePairs` forms the pairs.

    Here 1 means similar. In the Keras example "Image similarity estimation using a Siamese Network
    with a contrastive loss" 0 means similar: give `1 - y` of its labels.

    Args:
        margin: how far apart pairs that are not similar shall be, above 0. Default 1.0.
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

    Limits: if all pairs are similar it is the MSE against 0. The convention is that of TensorFlow
    Addons; Hadsell et al. 2006 (CVPR) write 1 for pairs that are *not* similar, and half the value.
    """

    elementwise = True
    target_kind = "shares"

    def __init__(self, margin: float = 1.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("Contrastive", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred = bounded(y_pred, LARGEST_DISTANCE)
        near, far = ops.square(y_pred), ops.square(ops.relu(self.margin - y_pred))
        return ops.mean(y_true * near + (1 - y_true) * far, axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class ContrastivePairs(LabelledLoss):
    """`Contrastive` of all pairs of a batch, from embeddings and labels.

    The value of an anchor is a mean over the other samples: of `d^2` if the labels are equal, of
    `max(margin - d, 0)^2` if they differ, where d is the Euclidean distance. Use it if each class
    shall become a point, a margin apart from the others.

    Args:
        margin: how far apart different labels shall be, above 0. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, one for each anchor, of at least 0, in squared units of
    distance. A batch of one sample has 0.

    A sample of weight 0 is left out of all pairs; other weights act on anchors. Integer labels are
    compared exactly, even large ids (JAX keeps 32 bits of them). NaN labels, and floats too large
    to tell whole numbers apart (2^24 in float32), make all values NaN: give unknown labels the
    weight 0. -1 is a label like any other. If a number of an embedding is
    larger than 1e14, the whole batch is divided by one factor that brings it down to 1e14.

    Raises:
        ValueError: if `margin` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.ContrastivePairs(margin=1.0, reduction="none")
    >>> values = loss(np.array([0, 0, 1]), np.array([[0.0, 0.0], [0.0, 2.0], [0.5, 0.0]]))
    >>> [float(value) for value in values]  # (2^2 + 0.5^2) / 2, 2^2 / 2 and 0.5^2 / 2
    [2.125, 2.0, 0.125]

    Limits: the slope at a distance of 0 is 0, so equal embeddings of different labels stay
    together: start from different ones. In the mean over all pairs a rare kind of pair has little
    weight; pytorch-metric-learning adds the means of the two kinds. Hadsell et al. 2006 (CVPR).
    """

    def __init__(self, margin: float = 1.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("ContrastivePairs", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("ContrastivePairs", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        near = squares(pairs)
        far = ops.square(ops.relu(self.margin - root(near)))
        # Where there is no pair the square is 0.
        terms = ops.where(pairs.negative, far, near)
        return pairs.checked(ops.sum(terms, axis=-1) / ops.maximum(pairs.number - 1, 1.0))


@keras.saving.register_keras_serializable("combined_losses")
class TripletSemiHard(LabelledLoss):
    """A positive shall be nearer than a negative by a margin, for negatives just beyond it.

    For each ordered pair (a, q) of one label, the negative n is the nearest one with `d_an > d_aq`,
    or the farthest of all if there is none. The term of the pair is `max(margin + d_aq - d_an, 0)`,
    where d is the Euclidean distance. Use it to rank: a class keeps its shape, whereas
    `ContrastivePairs` draws it to a point. Give batches many classes and several samples of each.

    Args:
        margin: by how much a negative shall be farther than a positive, above 0. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, one for each anchor, of at least 0, in units of distance. They
    are scaled so that their mean is the mean over all pairs (a, q) where a has a negative. All are
    0 in a batch without such a pair.

    A sample of weight 0 is left out of all pairs; other weights act on anchors. Integer labels are
    compared exactly, even large ids (JAX keeps 32 bits of them). NaN labels, and floats too large
    to tell whole numbers apart (2^24 in float32), make all values NaN: give unknown labels the
    weight 0. -1 is a label like any other. If a number of an embedding is
    larger than 1e14, the whole batch is divided by one factor that brings it down to 1e14.

    Raises:
        ValueError: if `margin` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.TripletSemiHard(margin=1.0)
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [5.0]])
    >>> float(loss(np.array([0, 0, 1, 2]), embeddings))  # 1 + 1 - 1.5, and 1 + 1 - 4 < 0
    0.25

    Limits: the mean equals that of TensorFlow Addons, except in a batch of one class, where Addons
    assumes a negative at distance 0. Distances are not squared, and embeddings are not normalised:
    end the model with `keras.layers.UnitNormalization()` if they shall be. The slope at a distance
    of 0 is 0. The memory grows with the square of the batch size. Schroff et al. 2015, arXiv
    1503.03832.
    """

    def __init__(self, margin: float = 1.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("TripletSemiHard", "margin", margin, minimum=0, exclusive=True)
        self.margin = margin

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("TripletSemiHard", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        distances = root(squares(pairs))
        chosen, found = negatives_beyond(ops.stop_gradient(distances), pairs.negative)
        farther = ops.take_along_axis(distances, chosen, axis=1)
        counted = ops.logical_and(pairs.positive, found)
        terms = ops.relu(ops.where(counted, self.margin + distances - farther, 0.0))
        counts = ops.sum(ops.cast(counted, terms.dtype), axis=-1)
        return pairs.scaled(ops.sum(terms, axis=-1), counts)
