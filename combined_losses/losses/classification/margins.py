"""Classes by the angle to their centres, with a margin that the right one must keep."""

import math
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating, logsumexp, over_axes
from combined_losses.losses.classification.base import known_labels, label_column

__all__ = ["ArcFace", "CosFace"]


class _OfCosines(Loss):
    """Softmax cross-entropy of cosines, of which the right one is lowered (abstract).

    A subclass implements `lowered(cosine)`, and checks its margin.

    Args:
        margin: how far, see the subclasses.
        scale: what cosines are multiplied by, above 0.
        subcenters: how many centres each class has, an integer of at least 1.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.
    """

    same_shape = False
    target_kind = "labels"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self, margin: float, scale: float, subcenters: int, **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        check_number(owner, "scale", scale, minimum=0, exclusive=True)
        if not is_integer(subcenters) or subcenters < 1:
            raise ValueError(
                f"The argument `subcenters` of {owner} must be an integer of at least 1. "
                f"Received: {subcenters!r}"
            )
        self.margin = margin
        self.scale = scale
        self.subcenters = subcenters

    def lowered(self, cosine: Tensor) -> Tensor:
        """The cosine of the right class, lowered by the margin."""
        raise NotImplementedError(f"{type(self).__name__} must implement `lowered`.")

    @property
    def traits(self) -> Traits:
        return super().traits._replace(casts_prediction=False, softmax=True)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true = label_column(type(self).__name__, y_true, y_pred)
        cosines = self._of_classes(ops.cast(y_pred, accumulating(self.dtype)))
        classes = cosines.shape[-1]
        labels, known = known_labels(y_true, classes)
        own = self.lowered(ops.take_along_axis(cosines, labels, axis=-1))
        is_other = ops.not_equal(labels, ops.arange(classes, dtype="int32"))
        # log(exp(o) + exp(L)) - o = softplus(L - o), where o is the logit of the right class and L
        # the logsumexp of all others: nothing cancels, neither in the slope.
        others = logsumexp(self.scale * cosines, is_other, keepdims=True)
        values = ops.softplus(others - self.scale * own)
        return ops.squeeze(ops.where(known, values, float("nan")), axis=-1)

    def _of_classes(self, cosines: Tensor) -> Tensor:
        """The largest cosine of each class, over its centres."""
        number, size = self.subcenters, cosines.shape[-1]
        if number == 1:
            return cosines
        if size is None or size % number:
            raise ValueError(
                f"{type(self).__name__}(subcenters={number}) needs predictions (..., C * {number}):"
                f" {number} cosines of each class, one class after the other. "
                f"Received: y_pred of shape {tuple(cosines.shape)}"
            )
        apart = ops.reshape(cosines, (*ops.shape(cosines)[:-1], size // number, number))
        return over_axes(ops.max, apart)


@keras.saving.register_keras_serializable("combined_losses")
class ArcFace(_OfCosines):
    """Softmax cross-entropy of cosines, with a margin added to the angle of the right class.

    `logsumexp(scale c') - scale c'_y`: c are the cosines of an embedding with the centres of the
    classes, and in `c'` that of the right class, `cos(t)`, is `cos(t + margin)`. So an embedding is
    right only if it is nearer to its centre by the margin: classes become narrow, and embeddings of
    classes that were never seen can be told apart too. Use it to learn embeddings for retrieval or
    verification from class labels. Make the cosines with `keras.layers.UnitNormalization()`, and a
    `Dense` layer without bias whose `kernel_constraint` is `keras.constraints.UnitNorm(axis=0)`.

    Args:
        margin: in radians, from 0 to pi / 2. Default 0.5; 0 is softmax cross-entropy. Where the
            angle and the margin exceed pi, the value is `cos(t) - margin sin(margin)`, which still
            falls with the angle.
        scale: what cosines are multiplied by, above 0: a softmax of numbers from -1 to 1 cannot
            come near 0 and 1. Default 64.0; use less for few classes.
        subcenters: how many centres S each class has, an integer of at least 1; the nearest counts,
            so that noisy labels find one of their own. Default 1.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` cosines `(batch, ..., C S)`, those of a class beside each other; `y_true`
    integer labels from 0 to C - 1, of shape `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`;
    values `y_pred.shape[:-1]`, of at least 0. The value of a label outside is NaN: give unknown
    labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, if the last axis of `y_pred` cannot be
            divided by `subcenters`, or if `y_true` has another shape.

    Example: without a margin it is right, with one it is not.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> cosines, label = np.array([[0.8, 0.6]]), np.array([0])
    >>> round(float(cl.losses.ArcFace(margin=0.0, scale=10.0)(label, cosines)), 4)
    0.1269
    >>> round(float(cl.losses.ArcFace(margin=0.5, scale=10.0)(label, cosines)), 4)
    2.0011

    Limits: the slope near cosines of 1 and -1 is up to 1e6, and at 1 itself that of the margin is
    left out. `pytorch_metric_learning` takes degrees, and makes the cosines itself. Deng et al.
    2019, arXiv 1801.07698; the sub-centres of Deng et al. 2020 (ECCV).
    """

    def __init__(
        self,
        margin: float = 0.5,
        scale: float = 64.0,
        *,
        subcenters: int = 1,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        # Above, the value beyond pi - margin could exceed that before it.
        check_number("ArcFace", "margin", margin, minimum=0, maximum=math.pi / 2)
        super().__init__(margin, scale, subcenters, **kwargs)

    def lowered(self, cosine: Tensor) -> Tensor:
        if self.margin == 0:  # also where the root would pass no gradient
            return cosine
        cos, sin = math.cos(self.margin), math.sin(self.margin)
        square = 1 - ops.square(cosine)
        sine = ops.sqrt(ops.where(square > 1e-12, square, 1e-12))
        # cos(t + m) = cos(t) cos(m) - sin(t) sin(m), as long as t + m is at most pi.
        return ops.where(cosine > -cos, cosine * cos - sine * sin, cosine - self.margin * sin)


@keras.saving.register_keras_serializable("combined_losses")
class CosFace(_OfCosines):
    """Softmax cross-entropy of cosines, with a margin subtracted from that of the right class.

    `logsumexp(scale c') - scale c'_y`: c are the cosines of an embedding with the centres of the
    classes, and in `c'` that of the right class is lowered by the margin. Use it as `ArcFace`: its
    slope is the same at all angles, so that training is steadier at the start.

    Args:
        margin: at least 0, as a difference of cosines. Default 0.35; 0 is softmax cross-entropy.
        scale, subcenters: as in `ArcFace`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `ArcFace`; values `y_pred.shape[:-1]`, of at least 0.

    Raises:
        ValueError: if an argument is outside its range, if the last axis of `y_pred` cannot be
            divided by `subcenters`, or if `y_true` has another shape.

    Example: with a margin of 0.2 both classes are equally far.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.CosFace(margin=0.2, scale=10.0)
    >>> round(float(loss(np.array([0]), np.array([[0.8, 0.6]]))), 4)  # log(2)
    0.6931

    Limits: with margin 0 it is `ArcFace(margin=0)`. `pytorch_metric_learning` makes the cosines
    itself. Wang et al. 2018, arXiv 1801.09414.
    """

    def __init__(
        self,
        margin: float = 0.35,
        scale: float = 64.0,
        *,
        subcenters: int = 1,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        check_number("CosFace", "margin", margin, minimum=0)
        super().__init__(margin, scale, subcenters, **kwargs)

    def lowered(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
