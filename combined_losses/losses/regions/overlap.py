"""Losses of pixel counts: how far the truth and the prediction overlap."""

import math
from collections.abc import Sequence
from typing import Literal, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_number
from combined_losses._core.names import quoted
from combined_losses._core.over import added_up
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import over_axes
from combined_losses.losses.regions.counts import (
    Counted,
    CountedArguments,
    Overlap,
    at_least_zero,
    ratio,
    sums,
)

__all__ = ["Dice", "FocalTversky", "GeneralizedDice", "Jaccard", "Tversky"]


@keras.saving.register_keras_serializable("combined_losses")
class Dice(Overlap):
    """One minus the Dice coefficient (F1 score) of each class.

    `(FP + FN) / (2 TP + FP + FN + smooth)`, which is `1 - (2 TP + smooth) / (sum p + sum y +
    smooth)` without the cancellation. `TP = sum p y`, `FP = sum p (1 - y)` and `FN = sum (1 - p) y`
    are sums over the pixels of a sample; the value is the weighted mean over the classes. Use it
    where the object is so small that pixel losses see almost only background; add cross-entropy for
    smoother gradients (`cl.losses.dice_bce`, `cl.losses.dice_ce`). Where many samples have no
    object, count over the batch: `over="batch"`.

    Where the truth is empty the loss is `sum p / (sum p + smooth)`. Its gradient lowers false
    positives, but it shrinks as they grow in number: on large images raise `smooth` or add a pixel
    loss. With `smooth=0` the loss of an empty truth is 1, with slope 0.

    Args:
        smooth: added to the denominator, in pixels, at least 0. Default 1.0.
        class_weight: None (default), or one number of at least 0 for each channel, the background
            included; the mean is divided by their sum, so the range stays [0, 1].
        include_background: whether channel 0 counts where there are several. Default True.
        over: `"sample"` (default): a value for each sample. `"batch"`: the sums run over all
            samples, also those of other replicas, and every sample is given the one value, as in
            nnU-Net's batch Dice. The weights of samples then act inside the sums.
        power: 1 (default), or 2: `FP = sum p^2 (1 - y)` and `FN = sum (1 - p)^2 y`, whose slope at
            a right pixel is 0. For hard labels that is V-Net's Dice.
        log: whether the loss L of each class becomes `-log(1 - L)`: steeper, the worse the class
            is. Values are then in [0, 17.2]. Default False.
        classes: None (default), or a list of the channels that count, instead of
            `include_background`. `class_weight` has a number for every channel all the same, and a
            softmax goes over all channels.
        from_logits: whether `y_pred` holds logits (one channel: sigmoid, several: softmax). Default
            False: probabilities.
        multilabel: whether the channels are independent of each other, as masks that may overlap:
            logits go through a sigmoid in each, and weights and missing labels are those of single
            entries. Default False: classes that exclude each other.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` (one-hot or soft) and `y_pred` `(batch, spatial..., channels)`, equal, 2-D or
    3-D; values `(batch,)`, in [0, 1]. Sample weights and masks of pixels act inside the sums.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> round(float(cl.losses.Dice(smooth=0.0)(y_true, y_pred)), 4)  # 1 / (2 + 1)
    0.3333

    Limit: `J / (2 - J)` of the Jaccard loss J, without smoothing. Milletari, Navab & Ahmadi 2016
    (V-Net, arXiv 1606.04797) square the terms of the sums in the denominator: `power=2`. For `log`
    see Wong et al. 2018, arXiv 1809.00076 (here without an exponent); for `over="batch"` Isensee et
    al. 2021 (nnU-Net), arXiv 1809.10486.
    """

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        total = of_true + of_pred  # 2 TP + FP + FN
        return ratio(at_least_zero(total - 2 * tp), total, self.smooth, self.log)


@keras.saving.register_keras_serializable("combined_losses")
class Jaccard(Overlap):
    """One minus the Jaccard index (intersection over union) of each class.

    `(FP + FN) / (TP + FP + FN + smooth)`, counts and class mean as in `Dice`. It punishes the worst
    samples more than Dice does; take it where intersection over union is the score.

    Args:
        smooth: added to the denominator, in pixels, at least 0. Default 1.0.
        class_weight, include_background, over, power, log, classes, from_logits: as in `Dice`.
        multilabel, ignore_value: as in `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `Dice`; values `(batch,)`, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> float(cl.losses.Jaccard(smooth=0.0)(y_true, y_pred))  # 1 - 1 / 2
    0.5

    Limit: `J = 2 D / (1 + D)` of the Dice loss, without smoothing. Rahman & Wang 2016 (ISVC).
    """

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        total = of_true + of_pred - tp  # TP + FP + FN
        return ratio(at_least_zero(total - tp), total, self.smooth, self.log)


class _Weighted(Overlap):
    """An overlap loss whose two kinds of error have prices of their own (abstract)."""

    def _set_prices(self, fp_weight: float, fn_weight: float) -> None:
        owner = type(self).__name__
        check_number(owner, "fp_weight", fp_weight, minimum=0)
        check_number(owner, "fn_weight", fn_weight, minimum=0)
        self.fp_weight = fp_weight
        self.fn_weight = fn_weight

    def dissimilarity(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        """One minus the Tversky index."""
        wrong = self.fp_weight * (of_pred - tp) + self.fn_weight * (of_true - tp)
        wrong = at_least_zero(wrong)
        return ratio(wrong, tp + wrong, self.smooth, self.log)


@keras.saving.register_keras_serializable("combined_losses")
class Tversky(_Weighted):
    """An overlap loss in which false positives and false negatives have prices of their own.

    `wrong / (TP + wrong + smooth)`, `wrong = fp_weight FP + fn_weight FN`, counts and class mean as
    in `Dice`. Raise `fn_weight` if missing an object is what you fear (`fp_weight=0.3,
    fn_weight=0.7` for lesions), `fp_weight` if it is a false alarm.

    Args:
        fp_weight: the price of a false positive, at least 0. Default 0.5.
        fn_weight: the price of a false negative, at least 0. Default 0.5. (Papers and libraries
            call the two prices alpha and beta, but disagree on which is which.)
        smooth: added to the denominator, in pixels, at least 0. Default 1.0.
        class_weight, include_background, over, power, log, classes, from_logits: as in `Dice`.
        multilabel, ignore_value: as in `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `Dice`; values `(batch,)`, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> loss = cl.losses.Tversky(fp_weight=0.2, fn_weight=4.0, smooth=0.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # 4 / (1 + 4)
    0.8

    Limits: (1, 1) is Jaccard; (0.5, 0.5, smooth=s) is Dice with `smooth=2 s`. Salehi, Erdogmus &
    Gholipour 2017, arXiv 1706.05721.
    """

    def __init__(
        self,
        fp_weight: float = 0.5,
        fn_weight: float = 0.5,
        *,
        smooth: float = 1.0,
        class_weight: Sequence[float] | None = None,
        **kwargs: Unpack[CountedArguments],
    ) -> None:
        super().__init__(smooth, class_weight, **kwargs)
        self._set_prices(fp_weight, fn_weight)

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        return self.dissimilarity(tp, of_true, of_pred)


# Below this the power is replaced by its chord from 0, whose slope is finite.
_CHORD = 1e-6


@keras.saving.register_keras_serializable("combined_losses")
class FocalTversky(_Weighted):
    """The Tversky loss of each class to a power, before the mean over the classes.

    `X^gamma`, with `X` as in `Tversky`. With `gamma` below 1, classes and samples that are nearly
    right keep a slope, so that hard ones do not drown them; above 1, hard ones dominate.

    Args:
        gamma: the power, above 0. Default 0.75. (The paper writes 1 / gamma, with 4/3.)
        fp_weight: the price of a false positive, at least 0. Default 0.3.
        fn_weight: the price of a false negative, at least 0. Default 0.7.
        smooth: added to the denominator, in pixels, at least 0. Default 1.0.
        class_weight, include_background, over, power, log, classes, from_logits: as in `Dice`.
        multilabel, ignore_value: as in `Dice`.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `Dice`; values `(batch,)`, in [0, 1]. A perfect prediction is exactly 0, with a
    finite gradient.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> y_pred = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    >>> loss = cl.losses.FocalTversky(gamma=0.5, fp_weight=1.0, fn_weight=1.0, smooth=0.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # sqrt(1 / 2)
    0.7071

    Limit: gamma = 1 is Tversky. Abraham & Khan 2018, arXiv 1810.07842.
    """

    def __init__(
        self,
        gamma: float = 0.75,
        fp_weight: float = 0.3,
        *,
        fn_weight: float = 0.7,
        smooth: float = 1.0,
        class_weight: Sequence[float] | None = None,
        **kwargs: Unpack[CountedArguments],
    ) -> None:
        super().__init__(smooth, class_weight, **kwargs)
        check_number("FocalTversky", "gamma", gamma, minimum=0, exclusive=True)
        self._set_prices(fp_weight, fn_weight)
        self.gamma = gamma

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        loss = self.dissimilarity(tp, of_true, of_pred)
        chord = loss * _CHORD ** (self.gamma - 1)
        # The floor keeps the derivative finite where the `where` below takes the chord.
        power = ops.power(ops.maximum(loss, _CHORD), self.gamma)
        return ops.where(loss < _CHORD, chord, power)


_POWERS = {"square": 2, "simple": 1, "uniform": 0}


@keras.saving.register_keras_serializable("combined_losses")
class GeneralizedDice(Counted):
    """A Dice loss over all classes together, in which small classes count as much as large ones.

    `sum_c w_c (FP_c + FN_c) / (sum_c w_c (sum p_c + sum y_c) + smooth)`. The weight `w_c` follows
    from the size `n_c` of class c in the truth of the sample, or with `over="batch"` of the batch;
    the weights are divided by their sum. A class that is absent there gets the largest weight of
    the present classes, so that its false positives have a price; if no class is present, all
    weights are equal.

    Args:
        weighting: `"square"` (default): `1 / n_c^2`; `"simple"`: `1 / n_c`; `"uniform"`: 1.
        smooth: added to the denominator, in pixels, at least 0. Default 1.0.
        include_background, over, power, log, classes, from_logits, multilabel, ignore_value: as in
            `Dice`; `log` acts on the one number of all classes.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `Dice`; values `(batch,)`, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true = np.eye(2)[[0, 0, 0, 1]].reshape(1, 2, 2, 2)
    >>> y_pred = np.eye(2)[[0, 0, 0, 0]].reshape(1, 2, 2, 2)
    >>> loss = cl.losses.GeneralizedDice(smooth=0.0)
    >>> round(float(loss(y_true, y_pred)), 4)  # (0.1 + 0.9) / (0.1 * 7 + 0.9)
    0.625

    Limit: one class is Dice. Sudre et al. 2017, arXiv 1707.03237.
    """

    def __init__(
        self,
        weighting: Literal["square", "simple", "uniform"] = "square",
        smooth: float = 1.0,
        **kwargs: Unpack[CountedArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(weighting, str) or weighting not in _POWERS:
            allowed = quoted(_POWERS, "or")
            raise ValueError(
                f"The argument `weighting` of GeneralizedDice must be one of {allowed}. "
                f"Received: {weighting!r}"
            )
        check_number("GeneralizedDice", "smooth", smooth, minimum=0)
        self.weighting = weighting
        self.smooth = smooth

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        y_pred, y_true, weight = self.chosen(y_pred, y_true, weight)
        found = sums(y_true, y_pred, weight, self.power)
        if self.power == 1:
            tp, of_true, of_pred = added_up(self.over, *found)
            size = of_true
        else:
            seen = y_true if weight is None else y_true * weight
            tp, of_true, of_pred, size = added_up(self.over, *found, backend.spatial_sum(seen))
        share, total = self._shares(size), of_true + of_pred
        wrong = at_least_zero(total - 2 * tp)  # FP + FN
        wrong, total = (ops.sum(share * each, axis=-1) for each in (wrong, total))
        return self.finished(ratio(wrong, total, self.smooth, self.log))

    def _shares(self, size: Tensor) -> Tensor:
        """The normalised weights of the classes, from their sizes, both `(batch, classes)`."""
        size = ops.stop_gradient(size)
        present = size > 0
        # Relative to the smallest present class, whose weight is the largest. So nothing overflows,
        # and 1 is the weight of absent classes, too.
        sizes = ops.where(present, size, math.inf)
        smallest = over_axes(ops.min, sizes, keepdims=True)
        ratio = ops.where(present, smallest / ops.where(present, size, 1.0), 1.0)
        weight = ops.power(ratio, _POWERS[self.weighting])
        return weight / ops.sum(weight, axis=-1, keepdims=True)
