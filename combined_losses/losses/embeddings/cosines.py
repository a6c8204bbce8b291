"""Embeddings compared by their angle."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import NOTHING, div, logsumexp
from combined_losses.losses.embeddings.measures import cosines
from combined_losses.losses.embeddings.pairs import LARGEST_NUMBER, LabelledLoss, pairs_of

__all__ = ["NTXent", "SupervisedContrastive"]


@keras.saving.register_keras_serializable("combined_losses")
class NTXent(LabelledLoss):
    """Each positive against all negatives: normalised, temperature-scaled cross-entropy.

    Let `s` be the cosine of two embeddings divided by the temperature. The value of an anchor a is
    the mean over its positives q of `logsumexp(s_aq, {s_an for all negatives n}) - s_aq`. Use it
    where a sample has few positives; with two views of each image that share a label of their own,
    it is SimCLR. Use large batches, because the negatives come from the batch.

    Args:
        temperature: above 0. Default 0.5; with a lower one only the nearest negatives matter.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`, of any length above 0; `y_true` integer
    labels `(batch,)` or `(batch, 1)`; values `(batch,)`, of at least 0, one for each anchor. They
    are scaled so that their mean is the mean over the anchors that have a positive. An anchor
    without a positive has 0, and so have all in a batch without a positive or without a negative.

    A sample of weight 0 is left out of all pairs; other weights act on anchors. Integer labels are
    compared exactly, even large ids (JAX keeps 32 bits of them). NaN labels, and floats too large
    to tell whole numbers apart (2^24 in float32), make all values NaN: give unknown labels the
    weight 0. -1 is a label like any other.

    Raises:
        ValueError: if `temperature` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> views = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    >>> loss = cl.losses.NTXent(temperature=0.5)
    >>> round(float(loss(np.array([7, 7, 8, 8]), views)), 4)  # log(1 + 2 exp(-2))
    0.2395

    Limits: if all embeddings are equal, the value is `log(batch - 1)` with two views of each label,
    and the gradient is 0. `optax.losses.ntxent` averages over pairs, which differs if anchors have
    different numbers of positives. The slope is proportional to one over the length of an
    embedding, up to 1e6 at 0. Chen et al. 2020, arXiv 2002.05709.
    """

    def __init__(self, temperature: float = 0.5, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        check_number("NTXent", "temperature", temperature, minimum=0, exclusive=True)
        self.temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("NTXent", y_true, y_pred, sample_weight, LARGEST_NUMBER)
        logits = cosines(pairs) / self.temperature
        # log(exp(s) + exp(L)) - s = softplus(L - s), where L is the logsumexp over the negatives.
        of_negatives = logsumexp(logits, pairs.negative)[:, None]
        terms = ops.softplus(ops.where(pairs.positive, of_negatives - logits, NOTHING))
        positives = ops.sum(ops.cast(pairs.positive, logits.dtype), axis=-1)
        values = div(ops.sum(terms, axis=-1), positives)
        return pairs.scaled(values, ops.cast(positives > 0, logits.dtype))


@keras.saving.register_keras_serializable("combined_losses")
class SupervisedContrastive(LabelledLoss):
    """Draws all samples of a class together, away from all others.

    Let `s` be the cosine of two embeddings divided by the temperature. The value of an anchor a is
    `logsumexp({s_aj for all others j})` minus the mean of `s_aq` over its positives q. Use it to
    learn an embedding from class labels, with several samples of each class in a batch: alone,
    before you train a classifier on top, or beside a cross-entropy.

    Args:
        temperature: above 0. Default 0.1; with a lower one only the nearest others matter.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, features)`, of any length above 0; `y_true` integer
    labels `(batch,)` or `(batch, 1)`; values `(batch,)`, of at least 0, one for each anchor. They
    are scaled so that their mean is the mean over the anchors that have a positive. An anchor
    without a positive has 0, and so have all in a batch without a positive.

    A sample of weight 0 is left out of all pairs; other weights act on anchors. Integer labels are
    compared exactly, even large ids (JAX keeps 32 bits of them). NaN labels, and floats too large
    to tell whole numbers apart (2^24 in float32), make all values NaN: give unknown labels the
    weight 0. -1 is a label like any other.

    Raises:
        ValueError: if `temperature` is not above 0, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    >>> loss = cl.losses.SupervisedContrastive(temperature=0.5)
    >>> round(float(loss(np.array([0, 0, 1, 1]), embeddings)), 4)  # log(1 + 2 exp(-2))
    0.2395

    Limits: with one positive for each anchor it is `NTXent`. With k positives for each anchor the
    value is at least `log(k)`. If all embeddings are equal, the value is `log(batch - 1)`, and the
    gradient is 0. The authors' program multiplies by `temperature / base_temperature`, this class
    does not. The slope is proportional to one over the length of an embedding, up to 1e6 at 0.
    Khosla et al. 2020, arXiv 2004.11362 (the variant "out").
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        owner = "SupervisedContrastive"
        check_number(owner, "temperature", temperature, minimum=0, exclusive=True)
        self.temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        pairs = pairs_of("SupervisedContrastive", y_true, y_pred, sample_weight, LARGEST_NUMBER)
        logits = cosines(pairs) / self.temperature
        positive = ops.cast(pairs.positive, logits.dtype)
        number = ops.sum(positive, axis=-1)
        of_positives = div(ops.sum(logits * positive, axis=-1), number)
        found = number > 0
        values = ops.where(found, logsumexp(logits, pairs.all) - of_positives, 0.0)
        return pairs.scaled(values, ops.cast(found, logits.dtype))
