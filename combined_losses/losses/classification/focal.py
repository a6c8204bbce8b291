"""Classes one by one: cross-entropies that fade out predictions which are right already."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from combined_losses._core.checks import (
    check_class_weight,
    check_flag,
    check_number,
)
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import log_softmax
from combined_losses.losses.classification.base import (
    OfClasses,
    OfOneHot,
    cast_prediction,
    check_each,
    known_labels,
    label_column,
    tensor_of,
)
from combined_losses.losses.focal_formulas import (
    binary,
    of_log_probability,
    of_probability,
    smoothed,
)

__all__ = ["BinaryFocal", "CategoricalFocal", "SparseCategoricalFocal"]


@keras.saving.register_keras_serializable("combined_losses")
class BinaryFocal(OfClasses):
    """Binary cross-entropy that fades out predictions which are right already.

    `mean(a * miss^gamma * ce)`: `ce = -pos_weight y log(p) - (1 - y) log(1 - p)` is the
    cross-entropy of one element, `miss = y (1 - p) + (1 - y) p` the probability given to the wrong
    class and `a = alpha y + (1 - alpha) (1 - y)`, or 1 without `alpha`. Use it where one class is
    rare, so that many easy negatives would outweigh the few elements that matter: detection, small
    lesions.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        alpha: the weight of positives, in [0, 1]; negatives have `1 - alpha`. A list has one number
            for each entry of the last axis. None (default): 1 for both.
        pos_weight: what the term of positives is multiplied by, above 0, or a list as for `alpha`.
            None (default): 1. With both, both act.
        label_smoothing: in [0, 1): labels `y` become `y (1 - s) + s / 2` first. Default 0.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities. Prefer logits:
            their slope is exact however wrong they are. A probability outside [0, 1] counts as 0 or
            1, with a slope that leads back if that is the wrong one.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (in [0, 1], soft or hard) and `y_pred` `(batch, ...)`, equal; values
    `y_pred.shape[:-1]`, of at least 0.

    Raises:
        ValueError: if an argument is outside its range, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.BinaryFocal(gamma=2.0)
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.5]]))), 4)  # 0.5^2 * log(2)
    0.1733
    >>> loss = cl.losses.BinaryFocal(gamma=2.0, from_logits=True)
    >>> float(loss(np.array([[1.0]]), np.array([[-100.0]])))
    100.0

    Limit: gamma = 0 is binary cross-entropy, with `pos_weight` that of
    `torch.nn.functional.binary_cross_entropy_with_logits`. The slope at a confidently wrong logit
    is -1 or 1. For probabilities below 1e-7 the logarithm continues along its tangent, so at 0 it
    is finite and has a slope. Soft labels are treated as in Keras, optax and torchvision; Keras
    ignores its `alpha` unless `apply_class_balancing`. Lin et al. 2017, arXiv 1708.02002.
    """

    elementwise = True
    target_kind = "shares"
    prediction_kind = "probabilities"

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        *,
        pos_weight: float | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("BinaryFocal", "gamma", gamma, minimum=0)
        if alpha is not None:
            check_each("BinaryFocal", "alpha", alpha, minimum=0, maximum=1)
        if pos_weight is not None:
            check_each("BinaryFocal", "pos_weight", pos_weight, minimum=0, exclusive=True)
        check_number("BinaryFocal", "label_smoothing", label_smoothing, minimum=0, below=1)
        check_flag("BinaryFocal", "from_logits", from_logits)
        self.gamma = gamma
        self.alpha = alpha
        self.pos_weight = pos_weight
        self.label_smoothing = label_smoothing
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        lists = any(isinstance(each, Sequence) for each in (self.alpha, self.pos_weight))
        return super().traits._replace(apart=True, averaged=lists)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values = self.elements(y_true, y_pred)
        if values.shape[-1] == 1:  # the mean of one element, without a pass over the array
            return ops.squeeze(values, axis=-1)
        return ops.mean(values, axis=-1)

    def elements(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The values of single elements, in the shape of `y_pred`."""
        alpha: Any = self.alpha
        pos_weight: Any = self.pos_weight
        several = isinstance(pos_weight, Sequence)
        factors = pos_weight if several else [pos_weight or 1.0]
        y_pred, steepest = cast_prediction(self, y_pred, factors)
        y_true = smoothed(y_true, self.label_smoothing)
        if several:
            pos_weight = tensor_of("pos_weight", pos_weight, self, y_pred)
        values = binary(y_true, y_pred, self.gamma, self.from_logits, steepest, pos_weight)
        if alpha is None:
            return values
        if isinstance(alpha, Sequence):
            alpha = tensor_of("alpha", alpha, self, y_pred)
        return values * (alpha * y_true + (1 - alpha) * (1 - y_true))


@keras.saving.register_keras_serializable("combined_losses")
class CategoricalFocal(OfOneHot):
    """Cross-entropy of one-hot classes that fades out predictions which are right already.

    `-sum_c w_c y_c (1 - p_c)^gamma log(p_c)`. Use it where a few classes are rare; for integer
    labels `SparseCategoricalFocal` gives the same numbers, faster. With `multilabel` several
    classes may be present at once: `sum_c w_c BinaryFocal(y_c, p_c)`.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        class_weight: a list of one finite number of at least 0 for each class, not all 0 and not
            normalised; or None (default): 1 for all.
        label_smoothing: in [0, 1): labels `y` of C classes become `y (1 - s) + s / C` first.
            Default 0.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        multilabel: whether the classes are independent of each other, as overlapping masks and
            tags are: each has its own `BinaryFocal`, logits go through a sigmoid, and weights and
            missing labels are those of single labels; labels are smoothed as in `BinaryFocal`.
            Default False: one-hot classes, whose logits go through a softmax.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (one-hot, or soft: the loss is linear in it) and `y_pred`
    `(batch, ..., classes)`, equal; values `y_pred.shape[:-1]`, of at least 0. With `multilabel`
    sample weights may have the shape of `y_pred`. If labels are missing (`Masked`), the loss is the
    mean over the labels that are present, times the number of classes: so if none is missing it is
    the sum over the classes, as without a mask.

    Raises:
        ValueError: if an argument is outside its range, if `class_weight` has another length than
            there are classes, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 0.25, 0.25]])
    >>> loss = cl.losses.CategoricalFocal(gamma=2.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # 0.5^2 * log(2)
    0.1733
    >>> loss = cl.losses.CategoricalFocal(gamma=0.0, class_weight=[2.0, 1.0, 1.0])
    >>> round(float(loss(y_true, y_pred)), 4)  # 2 * log(2)
    1.3863
    >>> tags = cl.losses.CategoricalFocal(gamma=0.0, multilabel=True)
    >>> known = np.array([[1.0, np.nan, np.nan]])
    >>> round(float(cl.wrappers.Masked(tags)(known, y_pred)), 4)  # 3 * log(2)
    2.0794

    Limits: gamma = 0 is cross-entropy; two classes and hard labels are `BinaryFocal`. MONAI's
    `softmax_focal_loss`, summed over the classes, agrees; Keras multiplies every class by 0.25
    unless told otherwise. Lin et al. 2017, arXiv 1708.02002.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weight: Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        multilabel: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("CategoricalFocal", "gamma", gamma, minimum=0)
        check_class_weight("CategoricalFocal", class_weight)
        check_number("CategoricalFocal", "label_smoothing", label_smoothing, minimum=0, below=1)
        check_flag("CategoricalFocal", "from_logits", from_logits)
        check_flag("CategoricalFocal", "multilabel", multilabel)
        self.multilabel = multilabel
        self.gamma = gamma
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.from_logits = from_logits

    def of_right(self, p: Tensor, log_p: Tensor | None, steepest: float | None) -> Tensor:
        if log_p is not None:
            return of_log_probability(log_p, self.gamma)
        return of_probability(p, self.gamma, steepest)

    def of_labels(self, y_true: Tensor, y_pred: Tensor, steepest: float | None) -> Tensor:
        return binary(y_true, y_pred, self.gamma, self.from_logits, steepest)


@keras.saving.register_keras_serializable("combined_losses")
class SparseCategoricalFocal(OfClasses):
    """Cross-entropy of integer labels that fades out predictions which are right already.

    `-w_y (1 - p_y)^gamma log(p_y)`, `p_y` the probability of the true class: `CategoricalFocal`
    without the one-hot array. Use it where a few classes are rare.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        class_weight: a list of one finite number of at least 0 for each class, not all 0 and not
            normalised; or None (default): 1 for all.
        label_smoothing: in [0, 1): labels `y` of C classes become `y (1 - s) + s / C` first.
            Default 0.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., classes)`; `y_true` integer labels from 0, of shape
    `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`; values `y_pred.shape[:-1]`, of at least 0.
    The value of a label outside 0 to classes - 1, such as -1 for "unknown", is NaN: give unknown
    labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, if `class_weight` has another length than
            there are classes, or if `y_true` has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.SparseCategoricalFocal(gamma=1.0)
    >>> y_pred = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    >>> round(float(loss(np.array([0, 2]), y_pred)), 4)  # 0.5 * log(2), and 0
    0.1733

    Limits: those of `CategoricalFocal`. Lin et al. 2017, arXiv 1708.02002.
    """

    same_shape = False
    target_kind = "ids"
    prediction_kind = "probabilities"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self,
        gamma: float = 2.0,
        class_weight: Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = "SparseCategoricalFocal"
        check_number(owner, "gamma", gamma, minimum=0)
        check_class_weight(owner, class_weight)
        check_number(owner, "label_smoothing", label_smoothing, minimum=0, below=1)
        check_flag(owner, "from_logits", from_logits)
        self.gamma = gamma
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        return super().traits._replace(softmax=self.from_logits)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true = _label_column(y_true, y_pred)
        y_pred, steepest = cast_prediction(self, y_pred, self.class_weight)
        labels, known = known_labels(y_true, ops.shape(y_pred)[-1])
        values = self._of_classes(y_pred, labels, steepest)
        return -ops.squeeze(ops.where(known, values, float("nan")), axis=-1)

    def _of_classes(self, y_pred: Tensor, labels: Tensor, steepest: float | None) -> Tensor:
        """What the true class adds, or with smoothed labels all classes, `(..., 1)`."""
        share = self.label_smoothing
        scores = log_softmax(y_pred) if self.from_logits else y_pred
        if not share:
            scores = ops.take_along_axis(scores, labels, axis=-1)
        if self.from_logits:
            values = of_log_probability(scores, self.gamma)
        else:
            values = of_probability(scores, self.gamma, steepest)
        weight = self.class_weight
        if weight is not None:
            weight = tensor_of("class_weight", weight, self, y_pred)
        if not share:
            return values if weight is None else values * ops.take(weight, labels)
        values = values if weight is None else values * weight
        own = ops.take_along_axis(values, labels, axis=-1)
        return (1 - share) * own + share * ops.mean(values, axis=-1, keepdims=True)


def _label_column(y_true: Tensor, y_pred: Tensor) -> Tensor:
    classes, true, pred = y_pred.shape[-1], tuple(y_true.shape), tuple(y_pred.shape)
    if true == pred and classes != 1:
        raise ValueError(
            f"SparseCategoricalFocal compares with integer labels of shape {pred[:-1]}: give "
            "`keras.ops.argmax(y_true, axis=-1)`, or use CategoricalFocal for one-hot or soft "
            f"targets. Received: y_true of shape {true} and y_pred of shape {pred}"
        )
    return label_column("SparseCategoricalFocal", y_true, y_pred)
