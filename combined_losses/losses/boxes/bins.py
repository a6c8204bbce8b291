"""Numbers whose place is predicted as a distribution over bins, such as the edges of boxes."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import log_softmax, slog
from combined_losses.losses.classification.base import cast_prediction

__all__ = ["DistributionFocal"]


@keras.saving.register_keras_serializable("combined_losses")
class DistributionFocal(Loss):
    """Cross-entropy with the two bins around a number: an edge, a depth, an age.

    The network predicts a distribution over K bins, evenly from `low` to `high`. A target at the
    place u between the bins i and i + 1 costs `-(i + 1 - u) log(p_i) - (u - i) log(p_(i+1))`. Its
    prediction as a number is the mean of the bins. Use it where a number is uncertain in a way that
    one mean hides, such as an edge that may be in two places: the distribution may have two peaks.

    Args:
        low: the number of the first bin. Default 0.0.
        high: the number of the last bin, above `low`. None (default): the number of bins minus 1.
        from_logits: whether `y_pred` holds logits, which go through a softmax. Default False:
            probabilities, taken as they are, not divided by their sum.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` `(batch, ...)` or `(batch, ..., 1)`, in the unit of `low` and `high`; `y_pred`
    `(batch, ..., K)`, K at least 2; values `y_pred.shape[:-1]`, of at least 0. Four edges of a box
    are `(batch, 4)` and `(batch, 4, K)`. A target outside counts as the nearest end.

    Raises:
        ValueError: if `high` is not above `low` (with None when it is called), if there are fewer
            than two bins, or if the shapes differ.

    Example: 0.25 lies between the bins 0 and 1.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.DistributionFocal()
    >>> y_pred = np.array([[0.5, 0.25, 0.25]])
    >>> round(float(loss(np.array([0.25]), y_pred)), 4)  # (0.75 + 2 * 0.25) log(2)
    0.8664

    Limits: on a bin it is the cross-entropy with that bin; between two bins its minimum is not 0
    but the entropy of the shares. Li et al. 2020 (generalised focal loss), arXiv 2006.04388.
    """

    prediction_layout = "columns"
    prediction_kind = "probabilities"

    def __init__(
        self,
        low: float = 0.0,
        high: float | None = None,
        *,
        from_logits: bool = False,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number("DistributionFocal", "low", low)
        if high is not None:
            check_number("DistributionFocal", "high", high, minimum=low, exclusive=True)
        check_flag("DistributionFocal", "from_logits", from_logits)
        self.low = low
        self.high = high
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        return super().traits._replace(casts_prediction=False)

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        """The predictions as they are: `low` and `high` are in the unit of the scaled target."""
        return y_pred

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, steepest = cast_prediction(self, y_pred)
        bins = y_pred.shape[-1] or 0
        high = bins - 1 if self.high is None else self.high
        if bins < 2 or not self.low < high:
            raise ValueError(
                "DistributionFocal needs predictions (batch, ..., K) of K >= 2 bins from `low` to "
                f"`high`, which is K - 1 unless it is given. Received: low={self.low!r}, "
                f"high={self.high!r} and y_pred of shape {tuple(y_pred.shape)}"
            )
        place = (ops.cast(y_true, y_pred.dtype) - self.low) * ((bins - 1) / (high - self.low))
        place = ops.clip(place, 0.0, bins - 1.0)
        # 1 - |u - k| is i + 1 - u for k = i, u - i for k = i + 1, and not above 0 for all others.
        share = ops.relu(1 - ops.abs(place - ops.arange(bins, dtype=y_pred.dtype)))
        if self.from_logits:
            log_p = log_softmax(y_pred)
        else:
            log_p = slog(as_probability(y_pred, 1.0), steepest)
        return -ops.sum(share * log_p, axis=-1)
