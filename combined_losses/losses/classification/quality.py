"""Classes whose label is a quality in [0, 1]: how well the box of an object fits."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import magnitude
from combined_losses.losses.classification.base import OfClasses, cast_prediction
from combined_losses.losses.focal_formulas import binary, difference_and_entropy, fade

__all__ = ["QualityFocal", "Varifocal"]


class _OfQuality(OfClasses):
    """A binary cross-entropy of single labels in [0, 1], times a factor (abstract)."""

    elementwise = True
    target_kind = "shares"
    prediction_kind = "probabilities"

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)


@keras.saving.register_keras_serializable("combined_losses")
class QualityFocal(_OfQuality):
    """Binary cross-entropy with a label in [0, 1], fading out predictions that are near it.

    The mean over the last axis of `|y - p|^beta (-y log(p) - (1 - y) log(1 - p))`; `|y - p|` counts
    as at least 1e-30. Use it where the score of a detector shall say how good its box is: `y` is
    the intersection over union at the true class, and 0 for all others. `BinaryFocal` knows
    no such labels: it is not least where p is a soft label.

    Args:
        beta: how fast predictions near the label fade out, at least 0. Default 2.0; 0 is
            cross-entropy.
        from_logits: whether `y_pred` holds logits. Default False: probabilities.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (in [0, 1]) and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, of
    at least 0. Labels may be missing one by one (`cl.wrappers.Masked`).

    Raises:
        ValueError: if an argument is outside its range, or if the shapes differ.

    Example: a box of quality 0.75 whose score is 0.5.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.QualityFocal()
    >>> round(float(loss(np.array([[0.75]]), np.array([[0.5]]))), 4)  # 0.25^2 log(2)
    0.0433
    >>> round(float(loss(np.array([[0.75]]), np.array([[0.75]]))), 4)
    0.0

    Limits: for labels of 0 and 1 it is `BinaryFocal(gamma=beta)`. At `p = y` the value is 0, and
    the gradient too for beta above 1. Li et al. 2020 (generalised focal loss), arXiv 2006.04388.
    """

    def __init__(
        self, beta: float = 2.0, *, from_logits: bool = False, **kwargs: Unpack[ChannelArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_number("QualityFocal", "beta", beta, minimum=0)
        check_flag("QualityFocal", "from_logits", from_logits)
        self.beta = beta
        self.from_logits = from_logits

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, steepest = cast_prediction(self, y_pred)
        if self.from_logits:
            difference, entropy = difference_and_entropy(y_true, y_pred)
        else:
            difference = y_true - as_probability(y_pred, y_true)
            entropy = binary(y_true, y_pred, 0, False, steepest)
        return ops.mean(self._faded(difference, entropy), axis=-1)

    def _faded(self, difference: Tensor, entropy: Tensor) -> Tensor:
        if self.beta == 0:
            return entropy
        # A square needs no absolute value, which takes a pass over the array.
        distance = difference if self.beta == 2 else magnitude(difference)
        return fade(distance, entropy, self.beta)


@keras.saving.register_keras_serializable("combined_losses")
class Varifocal(_OfQuality):
    """Binary cross-entropy in which positives weigh as their quality, and right negatives fade.

    The mean over the last axis of `w (-y log(p) - (1 - y) log(1 - p))`: `w = y` where y is above 0,
    else `alpha max(p, 1e-30)^gamma`. Use it where few anchors are positive and the best boxes
    matter most: `y` is the intersection over union at the true class, and 0 for all others.

    Args:
        alpha: the weight of negatives, at least 0. Default 0.75.
        gamma: how fast right negatives fade out, at least 0. Default 2.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (in [0, 1]) and `y_pred` `(batch, ...)`, equal; values `y_pred.shape[:-1]`, of
    at least 0. Labels may be missing one by one (`cl.wrappers.Masked`).

    Raises:
        ValueError: if an argument is outside its range, or if the shapes differ.

    Example: a box of quality 0.75, and background; each has the score 0.5.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Varifocal(reduction="none")
    >>> found = loss(np.array([[0.75], [0.0]]), np.array([[0.5], [0.5]]))
    >>> [round(float(each), 4) for each in found]  # 0.75 log(2), 0.75 * 0.5^2 log(2)
    [0.5199, 0.13]

    Limits: the factor of negatives has a gradient too, as in `BinaryFocal`, whose negatives these
    are; `alpha = 1, gamma = 0` and labels of 0 and 1 are binary cross-entropy. Zhang et al. 2021,
    arXiv 2008.13367.
    """

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        *,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("Varifocal", "alpha", alpha, minimum=0)
        check_number("Varifocal", "gamma", gamma, minimum=0)
        check_flag("Varifocal", "from_logits", from_logits)
        self.alpha = alpha
        self.gamma = gamma
        self.from_logits = from_logits

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, steepest = cast_prediction(self, y_pred)
        entropy = binary(y_true, y_pred, 0, self.from_logits, steepest)
        of_negatives = self.alpha
        if self.gamma:
            p = ops.sigmoid(y_pred) if self.from_logits else as_probability(y_pred, y_true)
            of_negatives = fade(p, self.alpha, self.gamma)
        factor = ops.where(y_true > 0, y_true, of_negatives)
        return ops.mean(factor * entropy, axis=-1)
