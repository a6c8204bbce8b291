"""Classification: classes against probabilities or logits, one by one or by their order."""

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._internal.checks import (
    check_class_weight,
    check_flag,
    check_target_shape,
    is_integer,
)
from combined_losses._internal.data_format import channels_last
from combined_losses._internal.focal import binary, of_log_probability, of_probability
from combined_losses._internal.numerics import (
    accumulating,
    as_probability,
    check_number,
    div,
    log_softmax,
)
from combined_losses.losses.base import ChannelLoss, Loss

__all__ = ["BinaryFocal", "CategoricalFocal", "SparseCategoricalFocal", "WeightedKappa"]


# A probability near 0 may have a slope of 1e7. What reaches a prediction in float16, whose largest
# number is 65504, would be infinite.
_STEEPEST = 2.0**14


def _cast(loss, y_pred, weight=None):
    """Predictions in the dtype of the computation, and the steepest slope by them, or None."""
    half = keras.backend.standardize_dtype(y_pred.dtype) == "float16"
    steepest = _STEEPEST / max(1.0, *(weight or [1.0])) if half else None
    return ops.cast(y_pred, accumulating(loss.dtype)), steepest


class _Focal(ChannelLoss):
    """A focal loss, which casts its predictions by itself (abstract)."""

    @property
    def traits(self):
        return super().traits._replace(casts_prediction=False)


@keras.saving.register_keras_serializable("combined_losses")
class BinaryFocal(_Focal):
    """Binary cross-entropy that fades out what is right already.

    `mean(a * miss^gamma * ce)`: `ce` is the cross-entropy of one element,
    `miss = y (1 - p) + (1 - y) p` the probability given to the other class and
    `a = alpha y + (1 - alpha) (1 - y)`, or 1 without `alpha`. Use it where one class is rare, so
    that a mass of easy negatives would outweigh the few that matter: detection, small lesions.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        alpha: the weight of positives, in [0, 1], negatives having `1 - alpha`; or None (default):
            1 for both.
        from_logits: whether `y_pred` holds logits. Default False: probabilities. Prefer logits:
            their slope is right however wrong they are. Outside [0, 1] a probability counts as the
            nearest one in it, and keeps a slope where the way back is right.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, which acts on
            predictions of rank 4 and more alone. Ids and weights of pixels have no channel axis.
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

    Limit: gamma = 0 is binary cross-entropy. The slope at a confidently wrong logit is -1 or 1; at
    a probability of 0 or 1 the logarithm goes on along its tangent at 1e-7, finite and sloped.
    Soft labels are treated as in Keras, optax and torchvision; Keras ignores its `alpha` unless
    `apply_class_balancing`. Lin et al. 2017, arXiv 1708.02002.
    """

    elementwise = True
    target_kind = "shares"
    prediction_kind = "probabilities"

    def __init__(self, gamma=2.0, alpha=None, *, from_logits=False, **kwargs):
        super().__init__(**kwargs)
        check_number("BinaryFocal", "gamma", gamma, minimum=0)
        if alpha is not None:
            check_number("BinaryFocal", "alpha", alpha, minimum=0, maximum=1)
        check_flag("BinaryFocal", "from_logits", from_logits)
        self.gamma = gamma
        self.alpha = alpha
        self.from_logits = from_logits

    @property
    def traits(self):
        return super().traits._replace(apart=True)

    @channels_last
    def call(self, y_true, y_pred):
        y_pred, steepest = _cast(self, y_pred)
        values = binary(y_true, y_pred, self.gamma, self.from_logits, steepest)
        if self.alpha is not None:
            values = values * (self.alpha * y_true + (1 - self.alpha) * (1 - y_true))
        if values.shape[-1] == 1:  # its own mean, which would cost a pass
            return ops.squeeze(values, axis=-1)
        return ops.mean(values, axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class CategoricalFocal(_Focal):
    """Cross-entropy of one-hot classes that fades out what is right already.

    `-sum_c w_c y_c (1 - p_c)^gamma log(p_c)`. Use it where a few classes are rare; for integer
    labels `SparseCategoricalFocal` gives the same numbers, faster. With `multilabel` several
    classes may be there at once: `sum_c w_c BinaryFocal(y_c, p_c)`.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        class_weight: a list of one finite number of at least 0 for each class, not all 0 and not
            normalised; or None (default): 1 for all.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        multilabel: whether the classes are independent of each other, as overlapping masks and
            tags are: each has its `BinaryFocal`, from logits through a sigmoid of its own, and
            weights and missing labels are those of single labels. Default False: one-hot classes,
            from logits through a softmax.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, which acts on
            predictions of rank 4 and more alone. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (one-hot, or soft: the loss is linear in it) and `y_pred`
    `(batch, ..., classes)`, equal; values `y_pred.shape[:-1]`, of at least 0. With `multilabel`
    sample weights may have the shape of `y_pred`, and where labels are missing (`Masked`) the mean
    is that over the labels that are there, times the number of classes: with all of them the sum
    over the classes, as without a mask.

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

    neutral_target = 1.0
    target_kind = "classes"
    prediction_kind = "probabilities"

    def __init__(
        self, gamma=2.0, class_weight=None, *, from_logits=False, multilabel=False, **kwargs
    ):
        super().__init__(**kwargs)
        check_number("CategoricalFocal", "gamma", gamma, minimum=0)
        check_class_weight("CategoricalFocal", class_weight)
        check_flag("CategoricalFocal", "from_logits", from_logits)
        check_flag("CategoricalFocal", "multilabel", multilabel)
        self.multilabel = multilabel
        self.gamma = gamma
        self.class_weight = class_weight
        self.from_logits = from_logits

    @property
    def traits(self):
        apart, softmax = self.multilabel, self.from_logits and not self.multilabel
        return super().traits._replace(
            elementwise=apart, summed=apart, apart=apart, softmax=softmax
        )

    @channels_last
    def call(self, y_true, y_pred):
        if self.multilabel:
            return ops.sum(self.elements(y_true, y_pred), axis=-1)
        y_pred, steepest = _cast(self, y_pred, self.class_weight)
        if self.class_weight is not None:
            y_true = y_true * _class_weight(self, y_pred)
        if self.from_logits:
            values = of_log_probability(log_softmax(y_pred), self.gamma)
        else:
            values = of_probability(y_pred, self.gamma, steepest)
        return -ops.sum(y_true * values, axis=-1)

    def elements(self, y_true, y_pred):
        """With `multilabel`: what every channel adds to the value, of the shape of `y_pred`."""
        y_pred, steepest = _cast(self, y_pred, self.class_weight)
        values = binary(y_true, y_pred, self.gamma, self.from_logits, steepest)
        return values if self.class_weight is None else values * _class_weight(self, y_pred)


@keras.saving.register_keras_serializable("combined_losses")
class SparseCategoricalFocal(_Focal):
    """Cross-entropy of integer labels that fades out what is right already.

    `-w_y (1 - p_y)^gamma log(p_y)`, `p_y` the probability of the true class: `CategoricalFocal`
    without the one-hot array. Use it where a few classes are rare.

    Args:
        gamma: how fast right predictions fade out, at least 0. Default 2.0; 0 is cross-entropy.
        class_weight: a list of one finite number of at least 0 for each class, not all 0 and not
            normalised; or None (default): 1 for all.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, which acts on
            predictions of rank 4 and more alone. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., classes)`; `y_true` integer labels from 0, of shape
    `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`; values `y_pred.shape[:-1]`, of at least 0.
    The value of a label outside 0 to classes - 1, such as -1 for "unknown", is NaN: give what is
    unknown a weight of 0.

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

    def __init__(self, gamma=2.0, class_weight=None, *, from_logits=False, **kwargs):
        super().__init__(**kwargs)
        check_number("SparseCategoricalFocal", "gamma", gamma, minimum=0)
        check_class_weight("SparseCategoricalFocal", class_weight)
        check_flag("SparseCategoricalFocal", "from_logits", from_logits)
        self.gamma = gamma
        self.class_weight = class_weight
        self.from_logits = from_logits

    @property
    def traits(self):
        return super().traits._replace(softmax=self.from_logits)

    @channels_last
    def call(self, y_true, y_pred):
        _check_labels(y_true, y_pred)
        y_pred, steepest = _cast(self, y_pred, self.class_weight)
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.expand_dims(y_true, -1)
        labels, known = _labels(y_true, ops.shape(y_pred)[-1])
        if self.from_logits:
            log_p = ops.take_along_axis(log_softmax(y_pred), labels, axis=-1)
            values = of_log_probability(log_p, self.gamma)
        else:
            p = ops.take_along_axis(y_pred, labels, axis=-1)
            values = of_probability(p, self.gamma, steepest)
        if self.class_weight is not None:
            values = values * ops.take(_class_weight(self, y_pred), labels)
        return -ops.squeeze(ops.where(known, values, float("nan")), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class WeightedKappa(Loss):
    """One minus Cohen's weighted kappa, for classes with an order: grades, stages, stars.

    The cost of taking class i for class j is `w_ij = (|i - j| / (C - 1))^power`. The value of a
    sample is `sum_j w_yj p_j / sum_ij w_ij f_i g_j`: its expected cost, in units of the cost of
    chance, where f and g are the frequencies of the classes in the truth and in the predictions of
    the batch. Use it where a miss by two grades is worse than two by one, and agreement beyond
    chance is what is reported. Large batches: a small one knows little of the frequencies.

    Args:
        num_classes: the number of classes C, an integer of at least 2.
        power: how the cost grows with the distance of the classes, above 0. Default 2, "quadratic";
            1 is "linear".
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` probabilities `(batch, num_classes)`; `y_true` integer labels `(batch,)` or
    `(batch, 1)`, or one-hot `(batch, num_classes)`; values `(batch,)`, of at least 0, whose mean is
    `1 - kappa`: 0 is perfect, 1 is chance. With weights the frequencies are weighted too. A label
    outside 0 to num_classes - 1 makes all of them NaN: give what is unknown a weight of 0.

    Raises:
        ValueError: if an argument is outside its range, or if an array has another shape.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.WeightedKappa(num_classes=4)
    >>> labels = np.array([0, 1, 2, 3])
    >>> float(loss(labels, np.eye(4)))
    0.0
    >>> float(loss(labels, np.full((4, 4), 0.25)))  # the same for all: chance
    1.0

    Limits: on hard predictions the mean is one minus scikit-learn's `cohen_kappa_score(weights=)`.
    A batch of one class has mean 1 whatever is predicted, so that nothing is learned from it, and 0
    where that class alone is predicted. Cohen 1968; as a loss de la Torre, Puig & Valls 2018
    (Pattern Recognition Letters).
    """

    same_shape = False
    target_kind = "ids"
    prediction_kind = "probabilities"
    takes_ids = True
    couples_batch = True
    neutral_target = 0.0

    def __init__(self, num_classes, power=2, **kwargs):
        super().__init__(**kwargs)
        if not is_integer(num_classes) or num_classes < 2:
            raise ValueError(
                "The argument `num_classes` of WeightedKappa must be an integer of at least 2. "
                f"Received: {num_classes!r}"
            )
        check_number("WeightedKappa", "power", power, minimum=0, exclusive=True)
        self.num_classes = num_classes
        self.power = power

    @property
    def traits(self):
        return super().traits._replace(casts_prediction=False)

    def call(self, y_true, y_pred, sample_weight=None):
        y_pred, steepest = _cast(self, y_pred)
        cost = self._cost(y_true, y_pred)
        weight = ops.ones_like(y_pred[:, 0]) if sample_weight is None else sample_weight
        y_pred = as_probability(y_pred, ops.cast(ops.equal(cost, 0), y_pred.dtype))
        # The frequencies are those of the whole batch, also where replicas have a part of it each.
        number = backend.global_sum(ops.sum(weight))
        share = ops.expand_dims(div(weight, number), -1)
        of_truth = backend.global_sum(ops.sum(share * cost, axis=0))
        predicted = backend.global_sum(ops.sum(share * y_pred, axis=0))
        # sum_ij w_ij f_i g_j: sum_i f_i w_ij is the mean over the samples of w_yj, what j costs.
        chance = ops.sum(of_truth * predicted)
        expected = ops.sum(cost * y_pred, axis=-1)
        values = expected / ops.maximum(chance, 1e-7)
        if steepest is None:
            return values
        sloped = expected / ops.maximum(chance, 1 / steepest)
        return sloped + ops.stop_gradient(values - sloped)

    def _cost(self, y_true, y_pred):
        """What each class would cost each sample, `w_yj`, `(batch, num_classes)`."""
        batch, classes = y_pred.shape[0], self.num_classes
        allowed = ((batch,), (batch, 1), (batch, classes))
        if len(y_pred.shape) != 2 or y_pred.shape[1] not in (classes, None):
            raise ValueError(
                f"WeightedKappa(num_classes={classes}) compares predictions of shape "
                f"{(batch, classes)}: end the model with keras.layers.Dense({classes}, "
                f"activation='softmax'). Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        check_target_shape("WeightedKappa", y_true, y_pred, *allowed)
        grade = np.arange(classes)
        cost = (np.abs(grade[:, None] - grade) / (classes - 1)) ** self.power
        cost = ops.convert_to_tensor(cost, y_pred.dtype)
        if len(y_true.shape) == 2 and y_true.shape[1] != 1:
            # No matrix product: accelerators round its factors.
            return ops.sum(ops.expand_dims(ops.cast(y_true, cost.dtype), -1) * cost, axis=1)
        labels, known = _labels(y_true if len(y_true.shape) == 1 else y_true[:, 0], classes)
        return ops.where(known[:, None], ops.take(cost, labels, axis=0), float("nan"))


def _labels(y_true, classes):
    """Integer labels, and whether they are ones: -1 would be taken for the last class."""
    known = ops.logical_and(y_true >= 0, y_true < classes)
    return ops.cast(ops.where(known, y_true, 0), "int32"), known


def _check_labels(y_true, y_pred):
    classes, true, pred = y_pred.shape[-1], tuple(y_true.shape), tuple(y_pred.shape)
    if true == pred and classes != 1:
        raise ValueError(
            f"SparseCategoricalFocal compares with integer labels of shape {pred[:-1]}: give "
            "`keras.ops.argmax(y_true, axis=-1)`, or use CategoricalFocal for one-hot or soft "
            f"targets. Received: y_true of shape {true} and y_pred of shape {pred}"
        )
    check_target_shape("SparseCategoricalFocal", y_true, y_pred, pred[:-1], (*pred[:-1], 1))


def _class_weight(loss, y_pred):
    if y_pred.shape[-1] not in (len(loss.class_weight), None):
        raise ValueError(
            f"The argument `class_weight` of {type(loss).__name__} must have one number for each "
            f"of the {y_pred.shape[-1]} classes of y_pred. Received: {loss.class_weight!r}"
        )
    return ops.convert_to_tensor(loss.class_weight, y_pred.dtype)
