"""Cross-entropy plus the first term of its series in the probability that is missing."""

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_class_weight, check_flag, check_number
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.probabilities import as_probability
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import slog
from combined_losses.losses.classification.base import OfOneHot
from combined_losses.losses.focal_formulas import miss_and_entropy

__all__ = ["PolyCrossEntropy"]


@keras.saving.register_keras_serializable("combined_losses")
class PolyCrossEntropy(OfOneHot):
    """Cross-entropy plus a price of the probability that the true class lacks.

    `sum_c w_c y_c (-log p_c + epsilon (1 - p_c))`: the first term of the series of the logarithm,
    `(1 - p) + (1 - p)^2 / 2 + ...`, gets the factor `1 + epsilon`. That term leads the gradient
    where the prediction is nearly right. Raise epsilon if a network stays unsure, make it negative
    if it is too sure. With `multilabel` several classes may be present at once: `sum_c w_c (ce +
    epsilon miss)`, as in `BinaryFocal`.

    Args:
        epsilon: the price, at least -1; below that the gradient would turn around near a right
            prediction. Default 1.0; 0 is cross-entropy.
        class_weight: a list of one finite number of at least 0 for each class, not all 0 and not
            normalised; or None (default): 1 for all.
        label_smoothing: in [0, 1): labels `y` of C classes become `y (1 - s) + s / C` first, with
            `multilabel` `y (1 - s) + s / 2`. Default 0.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        multilabel: whether the classes are independent of each other, as overlapping masks and
            tags are: logits go through a sigmoid, and weights and missing labels are those of
            single labels. Default False: one-hot classes, whose logits go through a softmax.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (one-hot, or soft) and `y_pred` `(batch, ..., classes)`, equal; values
    `y_pred.shape[:-1]`, of at least 0. With `multilabel` sample weights may have the shape of
    `y_pred`; missing labels are treated as in `CategoricalFocal`.

    Raises:
        ValueError: if an argument is outside its range, if `class_weight` has another length than
            there are classes, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 0.25, 0.25]])
    >>> loss = cl.losses.PolyCrossEntropy(epsilon=2.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # log(2) + 2 * 0.5
    1.6931

    Leng et al. 2022, arXiv 2204.12511 (Poly-1).
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        class_weight: Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        multilabel: bool = False,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = "PolyCrossEntropy"
        check_number(owner, "epsilon", epsilon, minimum=-1)
        check_class_weight(owner, class_weight)
        check_number(owner, "label_smoothing", label_smoothing, minimum=0, below=1)
        check_flag(owner, "multilabel", multilabel)
        check_flag(owner, "from_logits", from_logits)
        self.epsilon = epsilon
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.multilabel = multilabel
        self.from_logits = from_logits

    def of_right(self, p: Tensor, log_p: Tensor | None, steepest: float | None) -> Tensor:
        if log_p is not None:
            return self.epsilon * ops.expm1(log_p) + log_p  # 1 - p = -expm1(log p)
        p = as_probability(p, 1.0)  # where the label is 0, the value is multiplied by 0
        return slog(p, steepest) - self.epsilon * (1 - p)

    def of_labels(self, y_true: Tensor, y_pred: Tensor, steepest: float | None) -> Tensor:
        miss, entropy = miss_and_entropy(y_true, y_pred, self.from_logits, steepest)
        return entropy + self.epsilon * miss
