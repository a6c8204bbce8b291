"""Pairs from two towers, such as a user and an item: the others of the batch are negatives."""

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import are_numbers, check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import logsumexp
from combined_losses.losses.classification.base import known_labels
from combined_losses.losses.embeddings.pairs import LabelledLoss, are_known, check_labelled

__all__ = ["InBatchSoftmax"]


@keras.saving.register_keras_serializable("combined_losses")
class InBatchSoftmax(LabelledLoss):
    """Each query against the items of the batch: cross-entropy with its own item.

    The score of the item j for the query i is `<q_i, v_j> / temperature - log_q[id_j]`, and the
    value of a pair `logsumexp_j(s_ij) - s_ii`. Other pairs with the same item are no negatives of
    each other. Use it for two-tower models of retrieval, whose last line is
    `keras.ops.stack([query, item], axis=1)`; the targets are the ids of the items.

    Popular items come into a batch more often, and so are negatives more often: without `log_q` the
    model learns to hold them down.

    Args:
        temperature: above 0. Default 1.0; for towers that end with
            `keras.layers.UnitNormalization()` take 0.05 to 0.2.
        log_q: an array with the logarithm of the probability of each item, by its id, to be in a
            batch: `np.log(counts / counts.sum())`, where each count is at least 1. It is kept in
            the config. (A list may have 100,000 entries.) None (default): no correction.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, 2, D)`, the query and the item of each pair; `y_true` ids of the items
    `(batch,)` or `(batch, 1)`, from 0 if there is a `log_q`; values `(batch,)`, of at least 0. The
    items are those of all replicas and ranks. A pair alone has the value 0.

    A pair of weight 0 leaves all sums; other weights act on queries. Integer ids are compared
    exactly, even large ones (JAX keeps 32 bits of them). NaN ids, and floats too large to tell
    whole numbers apart, make all values NaN, and so does an id that `log_q` does not have: give
    unknown ids the weight 0.

    Raises:
        ValueError: if an argument is outside its range, or if an array has another shape.

    Example: the first and the last pair have the same item.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> query = item = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> loss = cl.losses.InBatchSoftmax(reduction="none")
    >>> values = loss(np.array([7, 8, 7]), np.stack([query, item], axis=1))
    >>> [round(float(value), 4) for value in values]  # log(1 + exp(-1)), log(1 + 2 exp(-1))
    [0.3133, 0.5514, 0.3133]

    Limits: if the model knows nothing, the value is `log(batch)`. With `log_q` it estimates the
    softmax over all items, better with larger batches. Yi et al. 2019 (sampling-bias-corrected
    neural modeling, RecSys); it is what the layers `SamplingProbabilityCorrection` and
    `RemoveAccidentalHits` of keras-rs are for.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        log_q: Sequence[float] | None = None,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("InBatchSoftmax", "temperature", temperature, minimum=0, exclusive=True)
        if log_q is not None and not are_numbers(log_q):
            raise ValueError(
                "The argument `log_q` of InBatchSoftmax must be None, or an array of one finite "
                f"number for each item. Received: {log_q!r}"
            )
        self.temperature = temperature
        self.log_q = log_q

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        shape = tuple(y_pred.shape)
        if len(shape) != 3 or shape[1] not in (2, None):
            raise ValueError(
                "InBatchSoftmax needs pairs of a query and an item, y_pred of shape (batch, 2, D): "
                "end the model with keras.ops.stack([query, item], axis=1). "
                f"Received: y_pred of shape {shape}"
            )
        query, item = y_pred[:, 0] / self.temperature, y_pred[:, 1]
        check_labelled("InBatchSoftmax", y_true, item)
        ids = ops.squeeze(y_true, axis=-1) if len(y_true.shape) == 2 else y_true
        all_ids = backend.global_concat(ids)
        negative = ops.not_equal(ids[:, None], all_ids)
        if sample_weight is not None:
            counts = backend.global_concat(ops.not_equal(sample_weight[:, 0], 0))
            negative = ops.logical_and(negative, counts)
        scores = backend.products(query, backend.global_concat(item))
        own = ops.sum(query * item, axis=-1)
        if self.log_q is not None:
            log_q = self._log_q(ids, own)
            scores, own = scores - backend.global_concat(log_q), own - log_q
        others = logsumexp(scores, negative)
        # log(exp(s) + exp(L)) - s = softplus(L - s), where L is the logsumexp over the negatives.
        values = ops.softplus(others - own)
        known = are_known(all_ids)
        return values if known is None else ops.where(known, values, float("nan"))

    def _log_q(self, ids: Tensor, like: Tensor) -> Tensor:
        """That of the item of each pair, `(batch,)`; NaN for an unknown item."""
        log_q = ops.convert_to_tensor(self.log_q, like.dtype)
        labels, known = known_labels(ids, log_q.shape[0])
        return ops.where(known, ops.take(log_q, labels), float("nan"))
