"""Embeddings compared by their angle."""

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._numerics.floats import div
from combined_losses.losses.embeddings.pairs import LARGEST_NUMBER, LabelledLoss, pairs_of

__all__ = ["NTXent", "SupervisedContrastive"]


@keras.saving.register_keras_serializable("combined_losses")
class NTXent(LabelledLoss):
    """Each positive against all negatives: normalised, temperature-scaled cross-entropy.

    With `s` the cosine of two embeddings divided by the temperature, an anchor a has the mean over
    its positives q of `logsumexp(s_aq, {s_an for all negatives n}) - s_aq`. Use it where a sample
    has few positives: two views of one image that share a label of their own are SimCLR. Large
    batches: they hold the negatives.

    Args:
        temperature: above 0. Default 0.5; lower ones look at the nearest negatives only.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`, of any length, not all 0; `y_true` integer
    labels `(batch,)` or `(batch, 1)`; values `(batch,)`, of at least 0: those of anchors, scaled so
    that their mean is that over the anchors that have a positive. Others have 0, and so have all
    in a batch without a positive or without a negative.

    A sample of weight 0 is not there for the others either; other weights act on anchors. Labels
    are told apart exactly, also large ids, if they are integers (JAX keeps 32 bits of them). NaN
    labels, and floats too large for whole numbers (2^24 in float32), make all values NaN: give
    what is unknown a weight of 0. -1 is a label like any other.

    Raises:
        ValueError: if `temperature` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> views = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    >>> loss = cl.losses.NTXent(temperature=0.5)
    >>> round(float(loss(np.array([7, 7, 8, 8]), views)), 4)  # log(1 + 2 exp(-2))
    0.2395

    Limits: embeddings that are all the same have `log(batch - 1)` with two views each, and no
    gradient. Two views per label: the cross-entropy of SimCLR. `optax.losses.ntxent` averages over
    pairs, which differs where anchors have unequally many positives. The slope grows as one over
    the length of an embedding, up to 1e6 at 0. Chen et al. 2020, arXiv 2002.05709.
    """

    def __init__(self, temperature=0.5, **kwargs):
        super().__init__(**kwargs)
        check_number("NTXent", "temperature", temperature, minimum=0, exclusive=True)
        self.temperature = temperature

    def call(self, y_true, y_pred, sample_weight=None):
        pairs = pairs_of("NTXent", y_true, y_pred, sample_weight, LARGEST_NUMBER)
        logits = _cosines(pairs) / self.temperature
        # log(exp(s) + exp(L)) - s = softplus(L - s), with L over the negatives.
        of_negatives = _logsumexp(logits, pairs.negative)[:, None]
        terms = ops.softplus(ops.where(pairs.positive, of_negatives - logits, _NOTHING))
        positives = ops.sum(ops.cast(pairs.positive, logits.dtype), axis=-1)
        values = div(ops.sum(terms, axis=-1), positives)
        return pairs.scaled(values, ops.cast(positives > 0, logits.dtype))


@keras.saving.register_keras_serializable("combined_losses")
class SupervisedContrastive(LabelledLoss):
    """Draws all samples of a class together, away from all others.

    With `s` the cosine of two embeddings divided by the temperature, an anchor a has
    `logsumexp({s_aj for all others j})` minus the mean of `s_aq` over its positives q. Use it to
    learn an embedding from class labels, with several samples of a class in a batch: alone before a
    classifier is trained on top, or beside a cross-entropy.

    Args:
        temperature: above 0. Default 0.1; lower ones look at the nearest others only.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`, of any length, not all 0; `y_true` integer
    labels `(batch,)` or `(batch, 1)`; values `(batch,)`, of at least 0: those of anchors, scaled so
    that their mean is that over the anchors that have a positive. Others have 0, and so have all
    in a batch without a positive.

    A sample of weight 0 is not there for the others either; other weights act on anchors. Labels
    are told apart exactly, also large ids, if they are integers (JAX keeps 32 bits of them). NaN
    labels, and floats too large for whole numbers (2^24 in float32), make all values NaN: give
    what is unknown a weight of 0. -1 is a label like any other.

    Raises:
        ValueError: if `temperature` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    >>> loss = cl.losses.SupervisedContrastive(temperature=0.5)
    >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 4)  # log(1 + 2 exp(-2))
    0.2395

    Limits: one positive for each anchor is `NTXent`. With k positives for each anchor the value is
    at least `log(k)`. Embeddings that are all the same have `log(batch - 1)`, and no gradient. The
    authors' program multiplies by `temperature / base_temperature`, this one does not. The slope
    grows as one over the length of an embedding, up to 1e6 at 0. Khosla et al. 2020, arXiv
    2004.11362 (the variant "out").
    """

    def __init__(self, temperature=0.1, **kwargs):
        super().__init__(**kwargs)
        owner = "SupervisedContrastive"
        check_number(owner, "temperature", temperature, minimum=0, exclusive=True)
        self.temperature = temperature

    def call(self, y_true, y_pred, sample_weight=None):
        pairs = pairs_of("SupervisedContrastive", y_true, y_pred, sample_weight, LARGEST_NUMBER)
        logits = _cosines(pairs) / self.temperature
        positive = ops.cast(pairs.positive, logits.dtype)
        number = ops.sum(positive, axis=-1)
        of_positives = div(ops.sum(logits * positive, axis=-1), number)
        found = number > 0
        values = ops.where(found, _logsumexp(logits, pairs.all) - of_positives, 0.0)
        return pairs.scaled(values, ops.cast(found, logits.dtype))


# A logit of nothing: its exponential is 0 beside that of any cosine.
_NOTHING = -1e30


def _logsumexp(logits, mask):
    """Over what the mask has of each row; about `_NOTHING`, with slope 0, where it has nothing."""
    return ops.logsumexp(ops.where(mask, logits, _NOTHING), axis=-1)


def _cosines(pairs):
    """The cosines of all anchors with all samples."""
    anchors = samples = _normalised(pairs.anchors)
    if pairs.samples is not pairs.anchors:
        samples = _normalised(pairs.samples)
    return backend.products(anchors, samples)


def _normalised(x):
    """`x / sqrt(max(|x|^2, 1e-12))`, also where the square overflows."""
    # A vector has the same direction over any number, and from a largest element of 1 on it is
    # longer than 1e-6, so that the maximum plays no part.
    x = x / ops.stop_gradient(ops.maximum(ops.max(ops.abs(x), axis=-1, keepdims=True), 1.0))
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    floor = 1e-12
    return x / ops.sqrt(ops.where(square > floor, square, floor))
