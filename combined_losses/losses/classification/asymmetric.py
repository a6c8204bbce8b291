"""A focal loss whose two kinds of labels fade out differently."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import slog
from combined_losses.losses.classification.base import OfClasses, cast_prediction
from combined_losses.losses.focal_formulas import fade, smoothed

__all__ = ["AsymmetricFocal"]


@keras.saving.register_keras_serializable("combined_losses")
class AsymmetricFocal(OfClasses):
    """A focal loss of tags in which right negatives fade out faster than right positives.

    The mean over the tags of `y (1 - p)^gamma_pos (-log p) + (1 - y) q^gamma_neg (-log(1 - q))`,
    `q = relu(p - margin)`. Use it where each sample has few of many tags. Negatives whose
    probability is at most the margin are free, with gradient 0. For a negative that is surely wrong
    from logits, the value is at most `-log(margin)` and the gradient dies: such labels are taken
    for missing ones, so do not use it where the negatives are certain.

    Args:
        gamma_pos: how fast right positives fade out, at least 0. Default 1.0.
        gamma_neg: how fast right negatives fade out, at least 0. Default 4.0.
        margin: the probability up to which negatives are free, at least 0 and below 1. Default
            0.05.
        label_smoothing: in [0, 1): labels `y` become `y (1 - s) + s / 2` first. Default 0.0.
        from_logits: whether `y_pred` holds logits. Default False: probabilities.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (in [0, 1], soft or hard) and `y_pred` `(batch, ...)`, equal; values
    `y_pred.shape[:-1]`, of at least 0. Tags may be missing one by one (`cl.wrappers.Masked`).

    Raises:
        ValueError: if an argument is outside its range, or if the shapes differ.

    Example: a negative of probability 0.04 is free.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.AsymmetricFocal(gamma_pos=0.0)
    >>> round(float(loss(np.array([[1.0, 0.0]]), np.array([[0.5, 0.04]]))), 4)  # log(2) / 2
    0.3466

    Limits, for hard labels: margin 0 and equal gammas is `BinaryFocal`; margin 0 and gammas of 0 is
    binary cross-entropy. timm's `AsymmetricLossMultiLabel` is the sum over the tags, and clips the
    logarithms. Ridnik et al. 2021, arXiv 2009.14119.
    """

    elementwise = True
    target_kind = "shares"
    prediction_kind = "probabilities"

    def __init__(
        self,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        *,
        margin: float = 0.05,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = "AsymmetricFocal"
        check_number(owner, "gamma_pos", gamma_pos, minimum=0)
        check_number(owner, "gamma_neg", gamma_neg, minimum=0)
        check_number(owner, "margin", margin, minimum=0, below=1)
        check_number(owner, "label_smoothing", label_smoothing, minimum=0, below=1)
        check_flag(owner, "from_logits", from_logits)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.margin = margin
        self.label_smoothing = label_smoothing
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, steepest = cast_prediction(self, y_pred)
        y_true = smoothed(y_true, self.label_smoothing)
        if self.from_logits:
            p, missing = ops.sigmoid(y_pred), ops.sigmoid(-y_pred)
            positive, negative = ops.softplus(-y_pred), ops.softplus(y_pred)
        else:
            p = as_probability(y_pred, y_true)
            missing = 1 - p
            positive, negative = -slog(p, steepest), -slog(missing, steepest)
        if self.margin > 0:
            # min(1 - p + margin, 1) = 1 - relu(p - margin)
            p = ops.relu(p - self.margin)
            negative = -slog(1 - p, steepest)
        values = y_true * _faded(missing, positive, self.gamma_pos)
        values = values + (1 - y_true) * _faded(p, negative, self.gamma_neg)
        return ops.mean(values, axis=-1)


def _faded(miss: Tensor, entropy: Tensor, gamma: float) -> Tensor:
    return entropy if gamma == 0 else fade(miss, entropy, gamma)
