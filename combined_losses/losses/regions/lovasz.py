"""Losses of sorted errors: the convex extension of the Jaccard index."""

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.over import Over
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.losses.regions.base import LogitsRegion, Region, rows

__all__ = ["LovaszHinge", "LovaszSoftmax"]


@keras.saving.register_keras_serializable("combined_losses")
class LovaszHinge(Region):
    """The Lovász extension of the Jaccard loss on the hinge errors of logits; binary channels.

    The errors `m = 1 - z (2 y - 1)` of a sample are sorted, the largest first: `sum relu(m_k) (J_k
    - J_{k-1})`, where `J_k` is the Jaccard loss if the first k pixels of this order are wrong. It
    optimises the intersection over union of each image directly. Each channel is computed by
    itself; the value is their mean. Start from a network trained with another loss, or add one: at
    first few pixels contribute to the slope.

    Args:
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        over: `"sample"` (default): the pixels of each sample are sorted; `"batch"`: those of all
            samples of all replicas together, which gives one number. See `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (0 or 1) and `y_pred` (logits) `(batch, spatial..., channels)`, equal; values
    `(batch,)`, of at least 0, unbounded; 0 where every pixel is right with a margin of 1. Weights
    and masks of pixels act inside. Without an object in the truth, the gradient lowers only the
    largest false positive.

    Raises:
        ValueError: if `ignore_value` is no number, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> logits = np.array([5.0, -1.0, -5.0, -5.0]).reshape(1, 2, 2, 1)
    >>> float(cl.losses.LovaszHinge()(y_true, logits))  # hinge 2, half of the object
    1.0

    Berman, Rannen Triki & Blaschko 2018, arXiv 1705.08790.
    """

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        error = 1 - y_pred * (2 * y_true - 1)
        values, _ = _extension(*_pixels(self.over, error, y_true, weight))
        return ops.mean(values, axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class LovaszSoftmax(LogitsRegion):
    """The Lovász extension of the Jaccard loss on the errors of probabilities.

    The errors `m = |y - p|` of each class are sorted, the largest first: `sum m_k (J_k - J_{k-1})`,
    where `J_k` is the Jaccard loss if the first k pixels of this order are wrong; then the mean
    over the classes that are present in the sample, or with `over="batch"` in the batch. A false
    alarm in an absent class is therefore free. A single channel always counts, and with
    `multilabel` so does each. It optimises the mean intersection over union of each image; add
    cross-entropy, which has a slope at every pixel.

    Args:
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        multilabel: whether the channels are independent of each other, as masks that may overlap:
            logits go through a sigmoid in each, and weights and missing labels are those of single
            entries; all channels count, present or not. Default False: classes that exclude each
            other.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        over: `"sample"` (default): the pixels of each sample are sorted; `"batch"`: those of all
            samples of all replicas together, which gives one number. See `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (one-hot) and `y_pred` `(batch, spatial..., channels)`, equal; values
    `(batch,)`, in [0, 1]. Weights and masks of pixels act inside. A sample without any class is 0
    with gradient 0.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> float(cl.losses.LovaszSoftmax()(y_true, y_pred))  # the Jaccard loss of hard errors
    0.5

    Limit: for hard errors it is the Jaccard loss. Berman, Rannen Triki & Blaschko 2018, arXiv
    1705.08790 (whose default sorts the whole batch).
    """

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        # |y - p| as relu(y - p) + relu(p - y), whose slope at 0 is 0 on every backend.
        error = ops.relu(y_true - y_pred) + ops.relu(y_pred - y_true)
        values, size = _extension(*_pixels(self.over, error, y_true, weight))
        if y_pred.shape[-1] == 1:
            return values[:, 0]
        if self.multilabel:
            return ops.mean(values, axis=-1)
        present = ops.cast(size > 0, values.dtype)
        return div(ops.sum(values * present, axis=-1), ops.sum(present, axis=-1))


def _pixels(over: Over, *arrays: Tensor | None) -> list[Tensor | None]:
    """Arrays as `(batch, channels, pixels)`; with `over="batch"` all pixels as of one sample."""
    return [None if array is None else rows(_as_one(array, over)) for array in arrays]


def _as_one(array: Tensor, over: Over) -> Tensor:
    if over == "sample":
        return array
    pixels = ops.reshape(array, (-1, array.shape[-1]))
    return ops.expand_dims(backend.global_concat(pixels), 0)


def _extension(error: Tensor, truth: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The Lovász extension of the Jaccard loss and the size of the truth, `(batch, channels)`.

    Args:
        error, truth: `(batch, channels, pixels)`.
        weight: None, or the number of times that each pixel counts in the index.
    """
    order = backend.order_down(ops.stop_gradient(error))
    error, truth = _ranked(error, order), _ranked(truth, order)
    other = 1 - truth
    if weight is not None:
        weight = _ranked(weight, order)
        truth, other = truth * weight, other * weight
    found, added = ops.cumsum(truth, axis=-1), ops.cumsum(other, axis=-1)
    size = found[..., -1:]
    # The Jaccard loss 1 - (G - found) / (G + added), G = size, without the cancellation; 0 as long
    # as only pixels of weight 0 came.
    jaccard = ops.stop_gradient(div(found + added, size + added))
    before = ops.pad(jaccard[..., :-1], ((0, 0), (0, 0), (1, 0)))
    values = ops.sum(ops.relu(error) * (jaccard - before), axis=-1)
    return values, ops.sum(size, axis=-1)  # of one number, or none where there are no pixels


def _ranked(array: Tensor, order: Tensor) -> Tensor:
    return ops.take_along_axis(array, order, axis=-1)
