"""Classes with an order, predicted as a chain of yes and no: is it more than this grade?"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, Unpack

import keras
from keras import ops

from combined_losses._core.checks import are_numbers, check_flag
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.probabilities import as_probability
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import slog
from combined_losses.losses.classification.base import (
    OfClasses,
    cast_prediction,
    known_labels,
    label_column,
)

__all__ = ["Ordinal"]

Method: TypeAlias = Literal["coral", "corn"]


@keras.saving.register_keras_serializable("combined_losses")
class Ordinal(OfClasses):
    """Cross-entropies of "is it more than grade k?", for classes with an order.

    Of K grades the network predicts K - 1 answers. With `b_k = -log(p_k)` where `y > k` and
    `-log(1 - p_k)` elsewhere the value is `sum_k importance_k b_k`. With "coral" a prediction far
    off is wrong about many of them, so it costs more than a near one: a plain cross-entropy takes
    all wrong grades alike. The predicted grade is the number of answers above 1/2 ("coral"), or of
    the products `p_0 ... p_k` above 1/2 ("corn").

    Args:
        method: what `p_k` means. `"coral"` (default): the probability of `y > k`; let the answers
            share one score and have a bias each, so that they are in order. `"corn"`: that of
            `y > k` where `y > k - 1` is known; the sum is over `k <= y` only, and the answers need
            no common score.
        importance: a list of one finite number of at least 0 for each answer, not all 0; or None
            (default): 1 for all.
        from_logits: whether `y_pred` holds logits, which go through a sigmoid. Default False:
            probabilities.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., K - 1)`; `y_true` integer labels from 0 to K - 1, of shape
    `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`; values `y_pred.shape[:-1]`, of at least 0.
    The value of a label outside is NaN: give unknown labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, if `importance` has another length than
            there are answers, or if `y_true` has another shape.

    Example: three grades, of which the second is right.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> answers = np.array([[0.75, 0.5]])
    >>> loss = cl.losses.Ordinal()
    >>> round(float(loss(np.array([1]), answers)), 4)  # -log(0.75) - log(1 - 0.5)
    0.9808
    >>> chain = cl.losses.Ordinal(method="corn")
    >>> round(float(chain(np.array([0]), answers)), 4)  # -log(1 - 0.75)
    1.3863

    Limits: two grades are binary cross-entropy. "corn" is minus the log-probability of the grade in
    the chain, `P(y) = p_0 ... p_(y - 1) (1 - p_y)`. It is `coral_loss` of coral_pytorch; its
    `corn_loss` divides the sum over the batch by the number of answers that count. Cao, Mirjalili &
    Raschka 2020, arXiv 1901.07884; Shi, Cao & Raschka 2021, arXiv 2111.08851.
    """

    same_shape = False
    has_channels = True
    target_kind = "labels"
    prediction_kind = "probabilities"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self,
        method: Method = "coral",
        importance: Sequence[float] | None = None,
        *,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(method, str) or method not in ("coral", "corn"):
            raise ValueError(
                f"The argument `method` of Ordinal must be 'coral' or 'corn'. Received: {method!r}"
            )
        if importance is not None and not (
            are_numbers(importance) and min(importance) >= 0 < sum(importance)
        ):
            raise ValueError(
                "The argument `importance` of Ordinal must be None, or a list of one finite number "
                "of at least 0 for each answer, with one above 0. "
                f"Received: {importance!r}"
            )
        check_flag("Ordinal", "from_logits", from_logits)
        self.method = method
        self.importance = importance
        self.from_logits = from_logits

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        shape = tuple(y_pred.shape)
        y_true = label_column("Ordinal", y_true, y_pred)
        answers, importance = shape[-1], self.importance
        if importance is not None and answers not in (len(importance), None):
            raise ValueError(
                "The argument `importance` of Ordinal must have one number for each of the "
                f"{answers} answers of y_pred. Received: {importance!r}"
            )
        y_pred, steepest = cast_prediction(self, y_pred, importance)
        labels, known = known_labels(y_true, ops.shape(y_pred)[-1] + 1)
        places = ops.arange(ops.shape(y_pred)[-1], dtype="int32")
        values = self._of_answers(labels > places, y_pred, steepest)
        if importance is not None:
            values = values * ops.convert_to_tensor(importance, values.dtype)
        if self.method == "corn":
            values = ops.where(labels >= places, values, 0.0)
        return ops.where(ops.squeeze(known, axis=-1), ops.sum(values, axis=-1), float("nan"))

    def _of_answers(self, more: Tensor, y_pred: Tensor, steepest: float | None) -> Tensor:
        """The cross-entropy of each answer, whose truth is `more`."""
        if self.from_logits:  # log(1 - sigmoid(z)) = log_sigmoid(-z)
            return -ops.log_sigmoid((2 * ops.cast(more, y_pred.dtype) - 1) * y_pred)
        p = as_probability(y_pred, ops.cast(more, y_pred.dtype))
        return -slog(ops.where(more, p, 1 - p), steepest)
