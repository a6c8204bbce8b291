"""Which pairs of samples in a batch have the same label, even if replicas share the batch."""

import math
from typing import NamedTuple

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import bounded, div, over_axes


class LabelledLoss(Loss):
    """A loss of embeddings `(batch, features)` and the labels of a batch (abstract)."""

    same_shape = False
    target_kind: str | None = "labels"
    couples_batch = True
    casts_target = False
    takes_ids = True
    neutral_target: float | None = 0.0


class Pairs(NamedTuple):
    """Pairs of an anchor, a sample of this replica, and a sample of all replicas.

    A sample of weight 0 is in no pair and does not count.

    Attributes:
        anchors, samples: embeddings, `(anchors, features)` and `(samples, features)`; on one
            replica they are the same tensor.
        all: which entries are pairs of two different samples, `(anchors, samples)`.
        positive, negative: which pairs have the same label, and which have different labels.
        number: the number of samples, `()`.
        known: whether all labels can be told apart, `()`; None if their dtype ensures it.
    """

    anchors: Tensor
    samples: Tensor
    all: Tensor
    positive: Tensor
    negative: Tensor
    number: Tensor
    known: Tensor | None

    def without_gradients(self) -> "Pairs":
        """The same pairs, by whose embeddings nothing has a slope."""
        anchors = samples = ops.stop_gradient(self.anchors)
        if self.samples is not self.anchors:
            samples = ops.stop_gradient(self.samples)
        return self._replace(anchors=anchors, samples=samples)

    def scaled(self, values: Tensor, counted: Tensor, weight: Tensor | None = None) -> Tensor:
        """The sums `values` of the anchors, scaled so that their mean is the mean of all terms.

        `counted` is the number of terms in each sum. NaN if a label is unknown. With the `weight`
        of anchors it is their weighted mean that is the weighted mean of all terms: `sum w v sum w
        / sum w c / sum w = sum w v / sum w c`, where c is `counted`.
        """
        number = self.number
        if weight is None:
            total = backend.global_sum(ops.sum(counted))
        else:
            sums = ops.stack([ops.sum(weight * counted), ops.sum(weight)])
            total, number = ops.unstack(backend.global_sum(sums), 2)
        return self.checked(values * div(number, total))

    def checked(self, values: Tensor) -> Tensor:
        """`values`, or NaN for all of them if a label is unknown."""
        return values if self.known is None else ops.where(self.known, values, float("nan"))


# The square of a larger number, and a sum of such squares over features and pairs, may overflow.
LARGEST_DISTANCE = 1e14
LARGEST_NUMBER = 3e38


def pairs_of(
    owner: str, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, limit: float
) -> Pairs:
    """The `Pairs` of labels and embeddings; these are divided so that no number exceeds `limit`.

    Raises if labels or embeddings have another shape.
    """
    check_labelled(owner, y_true, y_pred)
    y_pred = _within(y_pred, sample_weight, limit)
    own = ops.squeeze(y_true, axis=-1) if len(y_true.shape) == 2 else y_true
    labels, samples = backend.global_concat(own), backend.global_concat(y_pred)
    size, number = ops.shape(y_pred)[0], ops.shape(samples)[0]
    places = ops.arange(size, dtype="int32") + backend.global_offset(size)
    others = ops.not_equal(places[:, None], ops.arange(number, dtype="int32"))
    if sample_weight is None:
        number = ops.cast(number, y_pred.dtype)
    else:
        counts = ops.not_equal(sample_weight, 0)
        all_counts = backend.global_concat(counts)
        others = ops.logical_and(others, ops.logical_and(counts[:, None], all_counts))
        number = ops.sum(ops.cast(all_counts, y_pred.dtype))
    same = ops.equal(own[:, None], labels)
    return Pairs(
        anchors=y_pred,
        samples=samples,
        all=others,
        positive=ops.logical_and(others, same),
        negative=ops.logical_and(others, ops.logical_not(same)),
        number=number,
        known=are_known(labels),
    )


def _within(y_pred: Tensor, sample_weight: Tensor | None, limit: float) -> Tensor:
    """Embeddings times one factor for the whole batch, which brings the largest number to `limit`.

    The factor is 1 if no number exceeds `limit`. Bounding each number by itself would make
    different embeddings equal, and their distance 0.
    """
    y_pred = bounded(y_pred, LARGEST_NUMBER)
    sizes = ops.stop_gradient(ops.abs(y_pred))
    counts = ops.isfinite(sizes)
    if sample_weight is not None:  # a sample of weight 0 must not change the factor
        counts = ops.logical_and(counts, ops.expand_dims(ops.not_equal(sample_weight, 0), -1))
    row = over_axes(ops.max, ops.where(counts, sizes, 0.0))
    largest = ops.max(backend.global_concat(row), initial=limit)
    return y_pred * (limit / largest)


# From these numbers on, consecutive whole numbers may be the same float.
_LARGEST = {"bfloat16": 2.0**8, "float16": 2.0**11, "float32": 2.0**24, "float64": 2.0**53}


def are_known(labels: Tensor) -> Tensor | None:
    """Whether all labels can be told apart, False if one is NaN; None if their dtype ensures it."""
    largest = largest_known(labels)
    return None if math.isinf(largest) else ops.all(ops.abs(labels) < largest)


def largest_known(labels: Tensor) -> float:
    """Labels below this number can be told apart in their dtype; infinity for whole numbers."""
    return _LARGEST.get(keras.backend.standardize_dtype(labels.dtype), math.inf)


def check_labelled(owner: str, y_true: Tensor, y_pred: Tensor) -> None:
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    received = f"Received: y_true of shape {true} and y_pred of shape {pred}"
    if len(pred) != 2:
        raise ValueError(
            f"{owner} compares embeddings, y_pred of shape (batch, features): end the model with "
            f"a Dense layer without activation, or with keras.layers.Flatten(). {received}"
        )
    if len(true) == 2 and true[1] not in (1, None):
        raise ValueError(
            f"{owner} needs labels, one integer for each sample, of shape {pred[:1]} or "
            f"{(pred[0], 1)}: give keras.ops.argmax(y_true, axis=-1) for one-hot targets. "
            f"{received}"
        )
    if len(true) not in (1, 2) or (None not in (true[0], pred[0]) and true[0] != pred[0]):
        raise ValueError(
            f"{owner} needs one label for each embedding, y_true of shape {pred[:1]} or "
            f"{(pred[0], 1)}; others would be broadcast, which gives a wrong number. {received}"
        )
