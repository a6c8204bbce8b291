"""Agreement beyond chance, where classes have an order: grades, stages, stars."""

from typing import Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number, check_target_shape, is_integer
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.over import Over, check_over
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, weighted_mean
from combined_losses.losses.classification.base import OfClasses, cast_prediction, known_labels

__all__ = ["WeightedKappa"]


@keras.saving.register_keras_serializable("combined_losses")
class WeightedKappa(OfClasses):
    """One minus Cohen's weighted kappa, for classes with an order: grades, stages, stars.

    The cost of taking class i for class j is `w_ij = (|i - j| / (C - 1))^power`. The value of a
    sample is the mean over its positions of `sum_j w_yj p_j / sum_ij w_ij f_i g_j`: the expected
    cost, divided by the cost of chance, where f and g are the frequencies of the classes in the
    truth and in the predictions of the batch. Use it where an error of two grades is worse than two
    errors of one, and agreement beyond chance is what you report. Use large batches: the
    frequencies are estimated from each.

    Args:
        num_classes: the number of classes C, an integer of at least 2.
        power: how the cost grows with the distance of the classes, above 0. Default 2, "quadratic";
            1 is "linear".
        over: where the frequencies are counted: `"batch"` (default), in all samples of all
            replicas; `"sample"`, in each sample, a map or a sequence.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` probabilities `(batch, ..., num_classes)`; `y_true` integer labels
    `(batch, ...)` or `(batch, ..., 1)`, or one-hot `(batch, ..., num_classes)`. All positions count
    alike. Values `(batch,)`, of at least 0, whose mean is `1 - kappa`: 0 is perfect, 1 is chance.
    With weights, also of positions, frequencies and means are weighted. A label outside 0 to
    num_classes - 1 makes all values NaN: give unknown labels the weight 0.

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
    A batch of one class, or with `over="sample"` such a sample, has the mean 0 if only that class
    is predicted, else 1 whatever is predicted, so that it teaches nothing. Cohen 1968; as a loss de
    la Torre, Puig & Valls 2018 (Pattern Recognition Letters).
    """

    same_shape = False
    target_kind = "ids"
    prediction_kind = "probabilities"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self,
        num_classes: int,
        power: float = 2,
        *,
        over: Over = "batch",
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not is_integer(num_classes) or num_classes < 2:
            raise ValueError(
                "The argument `num_classes` of WeightedKappa must be an integer of at least 2. "
                f"Received: {num_classes!r}"
            )
        check_number("WeightedKappa", "power", power, minimum=0, exclusive=True)
        check_over("WeightedKappa", over)
        self.num_classes = num_classes
        self.power = power
        self.over = over

    @property
    def traits(self) -> Traits:
        whole = self.over == "batch"
        return super().traits._replace(couples_batch=whole, weighs_rows=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        y_pred, steepest = cast_prediction(self, y_pred)
        cost = self._cost(y_true, y_pred)
        y_pred = as_probability(y_pred, ops.cast(ops.equal(cost, 0), y_pred.dtype))
        weight = ops.ones_like(y_pred[..., 0]) if sample_weight is None else sample_weight
        chance = self._chance(cost, y_pred, weight)
        expected = ops.sum(cost * y_pred, axis=-1)
        if len(expected.shape) > 1:
            axes = tuple(range(1, len(expected.shape)))
            expected = weighted_mean(expected, sample_weight, axes)
        values = expected / ops.maximum(chance, 1e-7)
        if steepest is None:
            return values
        sloped = expected / ops.maximum(chance, 1 / steepest)
        return sloped + ops.stop_gradient(values - sloped)

    def _chance(self, cost: Tensor, y_pred: Tensor, weight: Tensor) -> Tensor:
        """`sum_ij w_ij f_i g_j`, of the batch `()`, or of each sample `(batch,)`."""
        whole = self.over == "batch"
        axes = tuple(range(0 if whole else 1, len(weight.shape)))
        number = ops.sum(weight, axis=axes, keepdims=True) if axes else weight
        share = ops.expand_dims(div(weight, backend.global_sum(number) if whole else number), -1)
        # sum_i f_i w_ij is the mean of w_yj over the positions.
        means = [ops.sum(share * each, axis=axes) if axes else each for each in (cost, y_pred)]
        if whole:  # the frequencies are those of all replicas, each of which has only a part
            means = [backend.global_sum(each) for each in means]
        return ops.sum(means[0] * means[1], axis=-1)

    def _cost(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The cost of each class at each position, `w_yj`, in the shape of `y_pred`."""
        shape, classes = tuple(y_pred.shape), self.num_classes
        if len(shape) < 2 or shape[-1] not in (classes, None):
            raise ValueError(
                f"WeightedKappa(num_classes={classes}) compares predictions of shape "
                f"{(shape[0], classes) if len(shape) < 3 else (*shape[:-1], classes)}: end the "
                f"model with keras.layers.Dense({classes}, activation='softmax'). "
                f"Received: y_pred of shape {shape}"
            )
        allowed = (shape[:-1], (*shape[:-1], 1), (*shape[:-1], classes))
        check_target_shape("WeightedKappa", y_true, y_pred, *allowed)
        grade = np.arange(classes)
        cost = (np.abs(grade[:, None] - grade) / (classes - 1)) ** self.power
        cost = ops.convert_to_tensor(cost, y_pred.dtype)
        if len(y_true.shape) == len(shape) and y_true.shape[-1] != 1:
            # Not as a matrix product: accelerators round its factors.
            return ops.sum(ops.expand_dims(ops.cast(y_true, cost.dtype), -1) * cost, axis=-2)
        labels, known = known_labels(
            y_true if len(y_true.shape) < len(shape) else y_true[..., 0], classes
        )
        return ops.where(known[..., None], ops.take(cost, labels, axis=0), float("nan"))
