"""Losses of all four counts: also of the background that is right."""

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.over import added_up
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.losses.regions.counts import CountedArguments, OfClasses

__all__ = ["MatthewsCorrelation"]


@keras.saving.register_keras_serializable("combined_losses")
class MatthewsCorrelation(OfClasses):
    """One minus the Matthews correlation coefficient of each class.

    `1 - (a d - FP FN) / sqrt((a + FP) (a + FN) (d + FP) (d + FN))`, `a = TP + smooth` and `d = TN +
    smooth`. `TN = sum (1 - p) (1 - y)` are the background pixels that are right, which no overlap
    loss counts; the other counts and the class mean are as in `Dice`. Object and background may be
    exchanged: the loss stays the same. Use it where both matter, or where the correlation is the
    score.

    Where the truth is empty the loss is 0 if the prediction is, near 1 if that is full, and its
    gradient lowers false positives. A full truth is treated alike.

    Args:
        smooth: the number of pixels, at least 0, that are counted as right in object and in
            background. Default 1.0. With 0 the loss is 1 with gradient 0 where truth or prediction
            have one kind of pixel only.
        class_weight, include_background, over, log, classes, from_logits: as in `Dice`. With `log`
            a class whose correlation is below 0 has a slope of up to 1e7: add it late.
        power: 1; there is no other here.
        multilabel, ignore_value: as in `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `Dice`; values `(batch,)`, in [0, 2]: 0 is perfect, 1 is chance, 2 is the reverse.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> loss = cl.losses.MatthewsCorrelation(smooth=0.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # 1 - 2 / sqrt(1 * 2 * 2 * 3)
    0.4226

    Limit: of hard masks, with `smooth=0`, it is one minus scikit-learn's `matthews_corrcoef`, but 1
    where that is undefined. Abhishek & Hamarneh 2021, arXiv 2010.13454 (without smoothing).
    """

    def __init__(
        self,
        smooth: float = 1.0,
        class_weight: Sequence[float] | None = None,
        **kwargs: Unpack[CountedArguments],
    ) -> None:
        super().__init__(smooth, class_weight, **kwargs)
        if self.power != 1:
            raise ValueError(
                "The argument `power` of MatthewsCorrelation must be 1: squared errors are no "
                f"counts. Received: {self.power!r}"
            )

    def of_classes(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        kinds = [y_true, 1 - y_true]
        if weight is not None:
            kinds = [kind * weight for kind in kinds]
        found = [backend.spatial_product(kind, p) for kind in kinds for p in (y_pred, 1 - y_pred)]
        tp, fn, fp, tn = added_up(self.over, *found)
        a, d = tp + self.smooth, tn + self.smooth
        number = a + fp + fn + d
        a, fn, fp, d = (div(each, number) for each in (a, fn, fp, d))
        sides = a + fp, a + fn, d + fp, d + fn
        defined = ops.all(ops.stop_gradient(ops.stack(sides)) > 0, axis=0)
        root = ops.ones_like(a)
        for side in sides:  # four roots: their product cannot overflow
            root = root * ops.sqrt(ops.where(defined, side, 1.0))
        # Where nothing counts, nothing is wrong.
        undefined = ops.where(number > 0, ops.ones_like(a), ops.zeros_like(a))
        return ops.where(defined, _below_one(a, fp, fn, d, root), undefined)


def _below_one(a: Tensor, fp: Tensor, fn: Tensor, d: Tensor, root: Tensor) -> Tensor:
    """`1 - (a d - fp fn) / root`, `root^2 = (a + fp) (a + fn) (d + fp) (d + fn)`, never below 0."""
    # Let N = a d - fp fn, u = a fn + fp d + 2 fp fn and v = a fp + fn d + 2 fp fn. Then
    # (a + fp) (d + fn) = N + u and (a + fn) (d + fp) = N + v, so root^2 = (N + u) (N + v), and
    # 1 - N / root = (root^2 - N^2) / (root (root + N)) = (N (u + v) + u v) / (root (root + N)).
    # For N >= 0 no term is negative, so nothing cancels; for N < 0 that holds for 1 - N / root.
    wrong = fp * fn
    above = a * d - wrong
    u, v = a * fn + fp * d + 2 * wrong, a * fp + fn * d + 2 * wrong
    positive = above > 0
    kept = ops.where(positive, above, 0.0)
    near = (kept * (u + v) + u * v) / (root * (root + kept))
    return ops.where(positive, near, 1 - above / root)
