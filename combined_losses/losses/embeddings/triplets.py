"""Embeddings compared by which of their distances is the larger one: triplets and their like."""

from typing import Literal, TypeAlias, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import logsumexp, over_axes
from combined_losses.losses.embeddings.measures import (
    cosines,
    negatives_beyond,
    normalised,
    root,
    squares,
)
from combined_losses.losses.embeddings.pairs import LARGEST_DISTANCE, LabelledLoss, Pairs, pairs_of

__all__ = ["LiftedStructure", "TripletHard"]

Mining: TypeAlias = Literal["hard", "semihard", "all"]
"""Which triplets of an anchor count."""

Distance: TypeAlias = Literal["euclidean", "squared", "cosine"]
"""How far two embeddings are apart."""


@keras.saving.register_keras_serializable("combined_losses")
class TripletHard(LabelledLoss):
    """A positive shall be nearer than a negative by a margin: of each anchor the hardest ones.

    With the farthest positive q and the nearest negative n of an anchor a, the value is
    `max(margin + d_aq - d_an, 0)`. `mining` says which triplets count, `distance` what d is. Use it
    once an embedding is about right and only its worst neighbours shall move; labels that are wrong
    are then the hardest. Give batches a few samples of each of many classes.

    Args:
        margin: by how much a negative shall be farther than a positive, above 0. Default 1.0. None:
            `log(1 + exp(d_aq - d_an))`, which never lets go.
        mining: `"hard"` (default), as above; `"semihard"`: each positive with the nearest negative
            that is farther, as in `TripletSemiHard`; `"all"`: each positive with each negative.
        distance: `"euclidean"` (default), `"squared"` (its square), or `"cosine"` (1 minus the
            cosine).
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, one for each anchor, of at least 0. They are scaled so that
    their mean is the mean over the anchors that have a positive and a negative, with `"semihard"`
    and `"all"` over the pairs or triplets, those of value 0 too. Other anchors have 0.

    A sample of weight 0 is left out of all pairs; other weights act on anchors, and on how much
    these count in that mean. Integer labels are compared exactly, even large ids (JAX keeps 32 bits
    of them). NaN labels, and floats too large to tell whole numbers apart (2^24 in float32), make
    all values NaN: give unknown labels the weight 0. -1 is a label like any other. If a number of
    an embedding is larger than 1e14, the whole batch is divided by one factor.

    Raises:
        ValueError: if an argument is outside its range, or if an array has another shape.

    Example: of the anchors at 0 and 1 the negative at 1.5 is the nearest.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings, labels = np.array([[0.0], [1.0], [1.5], [5.0]]), np.array([0, 0, 1, 2])
    >>> loss = cl.losses.TripletHard(margin=1.0)
    >>> float(loss(labels, embeddings))  # (1 + 1 - 1.5 + 1 + 1 - 0.5) / 2
    1.0

    Limits: collapsed embeddings have the margin, and with the Euclidean distance no gradient; early
    in a training `"semihard"` collapses less. The memory grows with the square of the batch, with
    `"all"` and no margin with its cube. Hermans et al. 2017, arXiv 1703.07737.
    """

    def __init__(
        self,
        margin: float | None = 1.0,
        mining: Mining = "hard",
        *,
        distance: Distance = "euclidean",
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        if margin is not None:
            check_number("TripletHard", "margin", margin, minimum=0, exclusive=True)
        _check_word("mining", mining, ("hard", "semihard", "all"))
        _check_word("distance", distance, ("euclidean", "squared", "cosine"))
        self.margin = margin
        self.mining = mining
        self.distance = distance

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("TripletHard", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        mine = {"hard": self._hard, "semihard": self._semihard, "all": self._all}[self.mining]
        values, counts = mine(pairs)
        return pairs.scaled(values, counts, sample_weight)

    def _distances(self, pairs: Pairs) -> Tensor:
        if self.distance == "cosine":
            return 1 - cosines(pairs)
        found = squares(pairs)
        return found if self.distance == "squared" else root(found)

    def _terms(self, differences: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """The term of each triplet, 0 where it is not `counted`; and that as numbers."""
        differences = ops.where(counted, differences, 0.0)
        if self.margin is None:
            terms = ops.softplus(differences)
        else:
            terms = ops.relu(self.margin + differences)
        return ops.where(counted, terms, 0.0), ops.cast(counted, terms.dtype)

    def _hard(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        # Two distances of each anchor have a slope; the others only tell which ones these are.
        fixed = self._distances(pairs.without_gradients())
        farthest = _largest(ops.where(pairs.positive, fixed, -float("inf")))
        nearest = _largest(ops.where(pairs.negative, -fixed, -float("inf")))
        both = (over_axes(ops.any, each) for each in (pairs.positive, pairs.negative))
        difference = self._to(pairs, farthest) - self._to(pairs, nearest)
        return self._terms(difference, ops.logical_and(*both))

    def _to(self, pairs: Pairs, places: Tensor) -> Tensor:
        """The distance of each anchor to one sample."""
        # Times 1: TensorFlow's gradient of `take` is a list of rows, which replicas cannot send;
        # that of a product is an array.
        x, z = pairs.anchors, ops.take(pairs.samples * 1.0, places, axis=0)
        if self.distance == "cosine":
            return 1 - ops.sum(normalised(x) * normalised(z), axis=-1)
        found = ops.sum(ops.square(x - z), axis=-1)
        return found if self.distance == "squared" else root(found)

    def _semihard(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        distances = self._distances(pairs)
        chosen, found = negatives_beyond(ops.stop_gradient(distances), pairs.negative)
        farther = ops.take_along_axis(distances, chosen, axis=1)
        terms, counted = self._terms(distances - farther, ops.logical_and(pairs.positive, found))
        return ops.sum(terms, axis=-1), ops.sum(counted, axis=-1)

    def _all(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        distances = self._distances(pairs)
        kinds = (pairs.positive, pairs.negative)
        positives, negatives = (ops.sum(ops.cast(kind, distances.dtype), axis=-1) for kind in kinds)
        if self.margin is not None:
            terms = _sums_beyond(self.margin + distances, distances, pairs.negative)
            return ops.sum(ops.where(pairs.positive, terms, 0.0), axis=-1), positives * negatives
        triplets = ops.logical_and(pairs.positive[:, :, None], pairs.negative[:, None, :])
        terms, _ = self._terms(distances[:, :, None] - distances[:, None, :], triplets)
        return ops.sum(terms, axis=(1, 2)), positives * negatives


def _largest(rows: Tensor) -> Tensor:
    """The place of the largest number of each row, int32; any where there is none."""
    if not rows.shape[1]:  # perhaps no number at all, of which TensorFlow has no largest
        rows = ops.pad(rows, ((0, 0), (0, 1)), constant_values=-float("inf"))
    return ops.cast(ops.argmax(rows, axis=-1), "int32")


def _sums_beyond(limits: Tensor, distances: Tensor, negative: Tensor) -> Tensor:
    """`sum_n max(limit - d_n, 0)` over the negatives of a row, for each limit of that row."""
    # Of k distances below a limit that is k * limit - their sum. With the distances in order, k is
    # the place of the limit among them, and the sum one of the sums of their beginnings. A term of
    # few digits, limit - d_n, has lost them in the difference either way.
    fixed = ops.where(negative, ops.stop_gradient(distances), float("inf"))
    order = ops.argsort(fixed, axis=-1)
    in_order = ops.take_along_axis(fixed, order, axis=1)
    ordered = ops.take_along_axis(ops.where(negative, distances, 0.0), order, axis=1)
    sums = ops.cumsum(ordered, axis=1)
    place = ops.cast(backend.places_after(in_order, ops.stop_gradient(limits)), "int32")
    # Not of sums with a 0 before them: of no rows and one column TensorFlow takes nothing.
    sums = ops.take_along_axis(sums, ops.maximum(place - 1, 0), axis=1)
    return ops.where(place > 0, ops.cast(place, limits.dtype) * limits - sums, 0.0)


@keras.saving.register_keras_serializable("combined_losses")
class LiftedStructure(LabelledLoss):
    """Each positive pair against the negatives of both its samples, the near ones most.

    With the distances d, a pair (a, q) of one label has `J = d_aq + log(sum_n exp(margin - d_an) +
    sum_n exp(margin - d_qn))`, a smooth "how much nearer than the nearest negative, plus the
    margin", and costs `max(J, 0)^2 / 2`. Use it where a triplet shall see all negatives at once: no
    mining is to be chosen.

    Args:
        margin: how far negatives shall be, of at least 0, in units of distance. Default 1.0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, one for each anchor, of at least 0, in squared units of
    distance. They are scaled so that their mean is the mean over all ordered pairs of one label
    whose anchor has a negative. All are 0 in a batch without such a pair.

    A sample of weight 0 is left out of all pairs; other weights act on anchors, and on how much
    their pairs count in that mean. Integer labels are compared exactly, even large ids (JAX keeps
    32 bits of them). NaN labels, and floats too large to tell whole numbers apart (2^24 in
    float32), make all values NaN: give unknown labels the weight 0. -1 is a label like any other.
    If a number of an embedding is larger than 1e14, the whole batch is divided by one factor.

    Raises:
        ValueError: if `margin` is below 0, or if an array has another shape.

    Example: a pair at a distance of 3, and for each of both a negative at 4.

    >>> import math
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[0.0, 0.0], [3.0, 0.0], [1.5, math.sqrt(16 - 1.5**2)]])
    >>> loss = cl.losses.LiftedStructure(margin=1.0)
    >>> round(float(loss(np.array([0, 0, 1]), embeddings)), 4)  # log(2)^2 / 2
    0.2402

    Limits: with more negatives J grows as their logarithm, so the margin depends on the batch. The
    slope at a distance of 0 is 0. Embeddings are not normalised: end the model with
    `keras.layers.UnitNormalization()` if they shall be. Song et al. 2016, arXiv 1511.06452.
    """

    def __init__(self, margin: float = 1.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("LiftedStructure", "margin", margin, minimum=0)
        self.margin = margin

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("LiftedStructure", y_true, y_pred, sample_weight, LARGEST_DISTANCE)
        distances = root(squares(pairs))
        pull = logsumexp(self.margin - distances, pairs.negative)  # of the negatives of an anchor
        pulls = pull if pairs.samples is pairs.anchors else backend.global_concat(pull)
        # Samples of one label have the same negatives, so each has one if the anchor has one.
        found = over_axes(ops.any, pairs.negative, keepdims=True)
        counted = ops.logical_and(pairs.positive, found)
        terms = ops.where(counted, distances + ops.logaddexp(pull[:, None], pulls), 0.0)
        number = ops.sum(ops.cast(counted, terms.dtype), axis=-1)
        return pairs.scaled(
            ops.sum(ops.square(ops.relu(terms)), axis=-1) / 2, number, sample_weight
        )


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if not (isinstance(value, str) and value in words):
        allowed = " or ".join([", ".join(map(repr, words[:-1])), repr(words[-1])])
        raise ValueError(
            f"The argument `{name}` of TripletHard must be {allowed}. Received: {value!r}"
        )
