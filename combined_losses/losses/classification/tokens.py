"""Sequences of tokens, or other classes of which there are thousands: labels are ids."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_flag, check_number, is_integer
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.masks import with_mask
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Once, Tensor
from combined_losses._numerics.floats import log_softmax, over_axes, slog
from combined_losses.losses.classification.base import (
    OfClasses,
    cast_prediction,
    known_labels,
    label_column,
)

__all__ = ["Distillation", "SparseCrossEntropy", "ZLoss"]

# From so many classes on, the last axis is the fastest for a softmax, see `log_softmax`.
_MANY = 16


@keras.saving.register_keras_serializable("combined_losses")
class SparseCrossEntropy(OfClasses):
    """Cross-entropy of integer labels, with smoothing: Keras's has none for such labels.

    `-(1 - s) log(p_y) - s / C sum_c log(p_c)` of C classes, `s = label_smoothing`: no one-hot array
    is made. Use it for language models, translation and segmentation, where smoothing keeps the
    network from being too sure.

    Args:
        label_smoothing: s, in [0, 1): labels `y` become `y (1 - s) + s / C`. Default 0.0.
        ignore_class: an integer; positions with this label do not count, as padding, -1 or 255.
            None (default): all count.
        from_logits: whether `y_pred` holds logits. Default False: probabilities, which are taken
            as they are, not divided by their sum.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., C)`; `y_true` integer labels from 0, of shape
    `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`; values `y_pred.shape[:-1]`, of at least 0.
    Those of ignored positions are 0, and are no part of a mean. The value of any other label
    outside 0 to C - 1 is NaN: give unknown labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, or if `y_true` has another shape.

    Example: the second token is padding.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> tokens, y_pred = np.array([[1, 0]]), np.array([[[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]])
    >>> loss = cl.losses.SparseCrossEntropy(ignore_class=0)
    >>> round(float(loss(tokens, y_pred)), 4)  # log(2)
    0.6931
    >>> loss = cl.losses.SparseCrossEntropy(label_smoothing=0.3, ignore_class=0)
    >>> round(float(loss(tokens, y_pred)), 4)  # 0.7 log(2) + 0.1 (log(4) + log(2) + log(4))
    0.8318

    Limits: with smoothing the minimum is not 0 but the entropy of the smoothed label. It is
    `keras.losses.CategoricalCrossentropy(label_smoothing=)` of one-hot labels, and
    `SparseCategoricalFocal(gamma=0.0)`, which has no `ignore_class`. Szegedy et al. 2016, arXiv
    1512.00567.
    """

    same_shape = False
    target_kind = "ids"
    prediction_kind = "probabilities"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self,
        label_smoothing: float = 0.0,
        *,
        ignore_class: int | None = None,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = "SparseCrossEntropy"
        check_number(owner, "label_smoothing", label_smoothing, minimum=0, below=1)
        if ignore_class is not None and not is_integer(ignore_class):
            raise ValueError(
                f"The argument `ignore_class` of {owner} must be None or an integer. "
                f"Received: {ignore_class!r}"
            )
        check_flag(owner, "from_logits", from_logits)
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        return super().traits._replace(softmax=self.from_logits, ignored=self.ignore_class)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor, *, once: Once | None = None) -> Tensor:
        y_true = label_column("SparseCrossEntropy", y_true, y_pred)
        y_pred, steepest = cast_prediction(self, y_pred)
        counts = None
        if self.ignore_class is not None:
            counts = ops.not_equal(y_true, ops.cast(self.ignore_class, y_true.dtype))
            y_true = ops.where(counts, y_true, 0)
            y_pred = ops.where(counts, y_pred, 0.0)  # void positions may hold anything
        labels, known = known_labels(y_true, ops.shape(y_pred)[-1])
        values = ops.where(known, self._of_labels(labels, y_pred, steepest, once), float("nan"))
        values = ops.squeeze(values, axis=-1)
        if counts is None:
            return values
        counts = ops.squeeze(counts, axis=-1)
        return with_mask(ops.where(counts, values, 0.0), counts)

    def _of_labels(
        self, labels: Tensor, y_pred: Tensor, steepest: float | None, once: Once | None
    ) -> Tensor:
        """Minus the mean of the log-probabilities under the smoothed labels, `(..., 1)`."""
        share = self.label_smoothing
        if self.from_logits and once is None and (y_pred.shape[-1] or 0) >= _MANY:
            return backend.entropy_of_ids(y_pred, labels, share)
        if self.from_logits:
            log_p = log_softmax(y_pred) if once is None else once(log_softmax, y_pred)
        elif share:
            log_p = slog(as_probability(y_pred, 1.0), steepest)
        else:
            own = ops.take_along_axis(y_pred, labels, axis=-1)
            return -slog(as_probability(own, 1.0), steepest)
        own = ops.take_along_axis(log_p, labels, axis=-1)
        if not share:
            return -own
        return -(1 - share) * own - share * ops.mean(log_p, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("combined_losses")
class ZLoss(OfClasses):
    """The square of the log-partition of logits: keeps them from drifting away.

    `logsumexp(z)^2` at each position. A softmax does not change if a number is added to all logits,
    so that they drift, and lose digits in float16 and bfloat16. Add it to a cross-entropy, with a
    small weight: `1e-4`. It reads no target: `y_true` is ignored, and may be None.

    Args:
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` logits `(batch, ..., C)`; `y_true` any. Values `y_pred.shape[:-1]`, of at least
    0; so weights and masks are those of positions. A logit of minus infinity, as of a token that is
    not allowed, is a class less.

    Example: logits of probabilities that add up to 1, and the same with 2 added to each.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> logits = np.log([[0.25, 0.75]])
    >>> round(float(cl.losses.ZLoss()(None, logits)), 4)
    0.0
    >>> round(float(cl.losses.ZLoss()(None, logits + 2.0)), 4)
    4.0

    Limits: it is 0 where the exponentials of the logits add up to 1, which changes no probability.
    Chowdhery et al. 2022 (PaLM), arXiv 2204.02311.
    """

    same_shape = False
    has_channels = True
    neutral_target = 1.0
    needs_target = False

    @property
    def traits(self) -> Traits:
        return super().traits._replace(softmax=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, _ = cast_prediction(self, y_pred)
        # Not z_c - log(p_c), of a softmax that a cross-entropy has computed: of a class c far below
        # the others no digit is left, and nothing of one whose logit is minus infinity.
        return ops.square(over_axes(ops.logsumexp, y_pred))


@keras.saving.register_keras_serializable("combined_losses")
class Distillation(OfClasses):
    """How far a student's answers are from a teacher's, both softened by a temperature.

    `T^2 KL(softmax(y / T) || softmax(p / T))`, y the teacher's logits, p the student's. Use it
    beside a cross-entropy with labels: the teacher also tells which wrong classes are near. The
    factor `T^2` keeps the length of the gradient, so that weights keep their meaning.

    Args:
        temperature: T, above 0. Default 2.0; a larger one shows more of the improbable classes.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` logits `(batch, ..., C)`, equal; values `y_pred.shape[:-1]`, of at
    least 0: 0 if both say the same. A logit of minus infinity, as of a token that is not allowed,
    is a class that the teacher, or both, rule out.

    Raises:
        ValueError: if `temperature` is not above 0, or if the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> teacher, student = np.log([[0.5, 0.5]]), np.log([[0.8, 0.2]])
    >>> loss = cl.losses.Distillation(temperature=1.0)
    >>> round(float(loss(teacher, student)), 4)  # log(0.5 / 0.8) / 2 + log(0.5 / 0.2) / 2
    0.2231

    Limits: for a large temperature it tends to half the variance over the classes of the difference
    of the logits (each counted from its mean). Hinton, Vinyals & Dean 2015, arXiv 1503.02531.
    """

    whole_rows = True
    neutral_target = 1.0

    def __init__(self, temperature: float = 2.0, **kwargs: Unpack[ChannelArguments]) -> None:
        super().__init__(**kwargs)
        check_number("Distillation", "temperature", temperature, minimum=0, exclusive=True)
        self.temperature = temperature

    @property
    def traits(self) -> Traits:
        return super().traits._replace(softmax=True)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, _ = cast_prediction(self, y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        log_q = log_softmax(y_true / self.temperature)
        log_p = log_softmax(y_pred / self.temperature)
        q = ops.exp(log_q)
        # What is impossible to the teacher adds 0, also where 0 is multiplied by infinity.
        terms = ops.where(q > 0, q * (log_q - log_p), 0.0)
        return self.temperature**2 * ops.sum(terms, axis=-1)
