"""Embeddings compared by all their similarities at once: cosines, or inner products."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, logsumexp, over_axes
from combined_losses.losses.embeddings.measures import cosines
from combined_losses.losses.embeddings.pairs import LARGEST_NUMBER, LabelledLoss, Pairs, pairs_of

__all__ = ["MultiSimilarity", "NPairs"]

# The product of two larger numbers, summed over features, may overflow, or reach `_NO_PRODUCT`.
_LARGEST_FACTOR = 1e14
_NO_PRODUCT = -1e37


@keras.saving.register_keras_serializable("combined_losses")
class MultiSimilarity(LabelledLoss):
    """Positives pulled and negatives pushed, each the more the worse it is among its like.

    With the cosines s, the value of an anchor a is `(1/alpha) log(1 + sum_q exp(-alpha (s_aq -
    base))) + (1/beta) log(1 + sum_n exp(beta (s_an - base)))` over its positives q and negatives n.
    Use it to learn an embedding for search from class labels: it weighs each pair by its own
    similarity and by those of the others, for which triplets need a mining.

    Args:
        alpha: how sharply positives are weighed, above 0. Default 2.0.
        beta: how sharply negatives are weighed, above 0. Default 50.0: the nearest one decides.
        base: the cosine between positives and negatives, a number. Default 0.5.
        epsilon: None (default): all pairs count; or a number of at least 0, such as 0.1: only
            positives whose cosine is less than that of the nearest negative plus `epsilon`, and
            only negatives whose cosine plus `epsilon` is more than that of the farthest positive.
            An anchor that lacks one of the two kinds then has 0.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`, of any length above 0; `y_true` integer
    labels `(batch,)` or `(batch, 1)`; values `(batch,)`, of at least 0, one for each anchor. An
    anchor without positives has no first term, one without negatives no second; all anchors count.

    A sample of weight 0 is left out of all pairs; other weights act on anchors. Integer labels are
    compared exactly, even large ids (JAX keeps 32 bits of them). NaN labels, and floats too large
    to tell whole numbers apart (2^24 in float32), make all values NaN: give unknown labels the
    weight 0. -1 is a label like any other.

    Raises:
        ValueError: if an argument is outside its range, or if an array has another shape.

    Example: positives that are equal, and negatives at right angles.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    >>> loss = cl.losses.MultiSimilarity(alpha=2.0)
    >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 4)  # log(1 + exp(-1)) / 2
    0.1566

    Limits: if all embeddings are equal the gradient is 0. The slope is proportional to one over the
    length of an embedding, up to 1e6 at 0. Wang et al. 2019, arXiv 1904.06627.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        *,
        base: float = 0.5,
        epsilon: float | None = None,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = "MultiSimilarity"
        check_number(owner, "alpha", alpha, minimum=0, exclusive=True)
        check_number(owner, "beta", beta, minimum=0, exclusive=True)
        check_number(owner, "base", base)
        if epsilon is not None:
            check_number(owner, "epsilon", epsilon, minimum=0)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("MultiSimilarity", y_true, y_pred, sample_weight, LARGEST_NUMBER)
        s = cosines(pairs)
        positive, negative = self._kept(ops.stop_gradient(s), pairs)
        # log(1 + sum exp) = softplus(log sum exp), which is 0 for an empty sum.
        far = ops.softplus(logsumexp(-self.alpha * (s - self.base), positive)) / self.alpha
        near = ops.softplus(logsumexp(self.beta * (s - self.base), negative)) / self.beta
        return pairs.checked(far + near)

    def _kept(self, s: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The positives and the negatives that count."""
        if self.epsilon is None:
            return pairs.positive, pairs.negative
        # Without negatives the nearest has less than any cosine, so no positive is kept; and so on.
        nearest = ops.where(pairs.negative, s, -float("inf"))
        nearest = over_axes(ops.max, nearest, keepdims=True)
        farthest = ops.where(pairs.positive, s, float("inf"))
        farthest = over_axes(ops.min, farthest, keepdims=True)
        return (
            ops.logical_and(pairs.positive, s - self.epsilon < nearest),
            ops.logical_and(pairs.negative, s + self.epsilon > farthest),
        )


@keras.saving.register_keras_serializable("combined_losses")
class NPairs(LabelledLoss):
    """Each positive against all negatives, by inner products: embeddings keep their lengths.

    With the inner products s, the value of an anchor a is the mean over its positives q of
    `logsumexp(s_aq, {s_an for all negatives n}) - s_aq`, plus `l2 |x_a|^2`. It is `NTXent` without
    normalisation and temperature. Use it where the length of an embedding shall mean something,
    such as how sure a match is, or how popular an item.

    Args:
        l2: how much lengths cost, of at least 0. Default 0.0; a little, such as 0.02, keeps them
            from growing for ever.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`; values `(batch,)`, of at least 0, one for each anchor. They are scaled so that
    their mean is the mean over the anchors that have a positive. An anchor without a positive has
    0, also of the lengths.

    A sample of weight 0 is left out of all pairs; other weights act on anchors, and on how much
    these count in that mean. Integer labels are compared exactly, even large ids (JAX keeps 32 bits
    of them). NaN labels, and floats too large to tell whole numbers apart (2^24 in float32), make
    all values NaN: give unknown labels the weight 0. -1 is a label like any other. If a number of
    an embedding is larger than 1e14, the whole batch is divided by one factor.

    Raises:
        ValueError: if `l2` is below 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> loss = cl.losses.NPairs()
    >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 4)  # log(1 + 2 exp(-2))
    0.2395

    Limits: all embeddings 0: `log(1 + negatives)`, with gradient 0. In a batch of one class only
    the lengths cost. TensorFlow Addons takes the matrix of products, one anchor a row. Sohn 2016,
    Improved Deep Metric Learning with Multi-class N-pair Loss Objective (NIPS).
    """

    def __init__(self, l2: float = 0.0, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("NPairs", "l2", l2, minimum=0)
        self.l2 = l2

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("NPairs", y_true, y_pred, sample_weight, _LARGEST_FACTOR)
        s = backend.products(pairs.anchors, pairs.samples)
        # log(exp(s) + exp(L)) - s = softplus(L - s), where L is the logsumexp over the negatives.
        of_negatives = logsumexp(s, pairs.negative, _NO_PRODUCT)[:, None]
        terms = ops.softplus(ops.where(pairs.positive, of_negatives - s, _NO_PRODUCT))
        positives = ops.sum(ops.cast(pairs.positive, s.dtype), axis=-1)
        values = div(ops.sum(terms, axis=-1), positives)
        counted = ops.cast(positives > 0, s.dtype)
        if self.l2:
            values += self.l2 * counted * ops.sum(ops.square(pairs.anchors), axis=-1)
        return pairs.scaled(values, counted, sample_weight)
