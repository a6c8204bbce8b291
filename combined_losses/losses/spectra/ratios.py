"""Signal and error compared as waveforms: the ratio of their powers."""

from typing import Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.loss import Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import decibels, weighted_mean
from combined_losses.losses.spectra.signals import (
    check_pre_emphasis,
    check_signal,
    mean_of_channels,
    pre_emphasised,
)

__all__ = ["SISDR", "SNR", "ErrorToSignal"]


class WaveformRatio(Loss):
    """A ratio of powers, one for each channel (abstract)."""

    neutral_target = 1.0

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)  # channels are compared one by one

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        check_signal(self.name, tuple(y_pred.shape))
        values = self.of_channels(y_true, y_pred, sample_weight)
        if len(values.shape) == 1:
            return values
        # A channel whose steps all have the weight 0 is left out.
        return mean_of_channels(values, sample_weight, (1,))

    def of_channels(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        """The values, `(batch,)` or `(batch, channels)`, of signals `(batch, time, ...)`."""
        raise NotImplementedError


class Decibels(WaveformRatio):
    """A ratio in decibels (abstract).

    Args:
        zero_mean, epsilon, reduction, name, dtype: as in `combined_losses.losses.SNR`.
    """

    def __init__(
        self, zero_mean: bool = True, epsilon: float = 1e-8, **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_flag(type(self).__name__, "zero_mean", zero_mean)
        check_number(type(self).__name__, "epsilon", epsilon, minimum=0, exclusive=True)
        self.zero_mean = zero_mean
        self.epsilon = epsilon

    def centred(self, signal: Tensor, weight: Tensor | None) -> Tensor:
        if not self.zero_mean:
            return signal
        return signal - weighted_mean(signal, weight, axis=1, keepdims=True)


@keras.saving.register_keras_serializable("combined_losses")
class SISDR(Decibels):
    """Minus the scale-invariant ratio of signal to distortion, in decibels.

    With the target `t` and the prediction `x`, `a = <x, t> / (<t, t> + eps)` is the level of the
    target in the prediction, and the value is `-10 log10((||a t||^2 + eps) / (||a t - x||^2 +
    eps))`. Use it to separate or clean signals whose level does not matter: scaling the prediction
    changes nothing. If the level matters, add a waveform or `STFT` loss.

    Args:
        zero_mean: whether the mean of each signal is subtracted first. Default True.
        epsilon: a constant that keeps the value of silent signals finite, in units of squared
            amplitude, above 0. Default 1e-8.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, time)` or `(batch, time, channels)`, equal; channels are
    compared one by one and averaged. Values `(batch,)`, in dB, the lower the better: -20 is an
    error of a tenth of the amplitude; the value of equal signals is finite. A silent truth pulls
    the prediction to silence. An exactly silent prediction has gradient 0, because no direction is
    better than another, so start from another one. Weights and masks of single time steps act
    inside the means and sums.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: noise of a tenth of the amplitude, orthogonal to the signal.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> signal, noise = np.array([[1.0, 1.0, -1.0, -1.0]]), np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> loss = cl.losses.SISDR()
    >>> round(float(loss(signal, signal + 0.1 * noise)), 3)
    -20.0
    >>> round(float(loss(signal, 7 * (signal + 0.1 * noise))), 3)
    -20.0

    Le Roux, Wisdom, Erdogan & Hershey 2019, arXiv 1811.02508.
    """

    def of_channels(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        y_true, y_pred = self.centred(y_true, weight), self.centred(y_pred, weight)
        power = _inner(y_true, y_true, weight)
        level = _inner(y_pred, y_true, weight) / (power + self.epsilon)
        distortion = ops.expand_dims(level, 1) * y_true - y_pred
        ratio = (_inner(distortion, distortion, weight) + self.epsilon) / (
            # ||a t||^2 = a^2 <t, t>
            ops.square(level) * power + self.epsilon
        )
        return decibels(ratio)


@keras.saving.register_keras_serializable("combined_losses")
class SNR(Decibels):
    """Minus the ratio of signal to noise, in decibels.

    With the target `t` and the prediction `x` the value is
    `-10 log10((||t||^2 + eps) / (||t - x||^2 + eps))`. Use it to clean or separate signals whose
    level matters: a prediction of half the amplitude has an error. If the level does not matter,
    use `SISDR`.

    Args:
        zero_mean: whether the mean of each signal is subtracted first. Default True.
        epsilon: a constant that keeps the value of silent signals finite, in units of squared
            amplitude, above 0. Default 1e-8.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, time)` or `(batch, time, channels)`, equal; channels are
    compared one by one and averaged. Values `(batch,)`, in dB, the lower the better: -20 is an
    error of a tenth of the amplitude, and a silent prediction has 0; the value of equal signals is
    finite. A silent truth pulls the prediction to silence. Weights and masks of single time steps
    act inside the means and sums.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: noise of a tenth of the amplitude; and half of the amplitude.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> signal, noise = np.array([[1.0, 1.0, -1.0, -1.0]]), np.array([[1.0, -1.0, 1.0, -1.0]])
    >>> loss = cl.losses.SNR()
    >>> round(float(loss(signal, signal + 0.1 * noise)), 3)
    -20.0
    >>> round(float(loss(signal, 0.5 * signal)), 3)
    -6.021

    torchmetrics' `signal_noise_ratio(zero_mean=True)` is minus it; auraloss' `SNRLoss` is the same.
    With `zero_mean=False` it is `10 log10` of `ErrorToSignal`, but for epsilon. Le Roux, Wisdom,
    Erdogan & Hershey 2019, arXiv 1811.02508.
    """

    def of_channels(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        y_true, y_pred = self.centred(y_true, weight), self.centred(y_pred, weight)
        error, power = _power(y_true - y_pred, weight), _power(y_true, weight)
        return decibels((error + self.epsilon) / (power + self.epsilon))


@keras.saving.register_keras_serializable("combined_losses")
class ErrorToSignal(WaveformRatio):
    """The power of the error as a share of the power of the signal.

    With the target `t` and the prediction `x` the value is `||t - x||^2 / (||t||^2 + eps)`. Use it
    to model devices such as guitar amplifiers, where quiet and loud passages shall count alike;
    with `pre_emphasis` high tones count more, as for the ear.

    Args:
        pre_emphasis: the share of the step before that is subtracted from each step of both
            signals, from 0 (default) to 1. 0.95 and above are usual for guitars.
        epsilon: a constant that keeps the value of silent signals finite, in units of squared
            amplitude, above 0. Default 1e-8.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, time)` or `(batch, time, channels)`, equal; channels are
    compared one by one and averaged. Values `(batch,)`, of at least 0, without a unit: 0 is
    perfect, a silent prediction has 1. With a silent truth the value is `||x||^2 / eps`, which is
    huge: give such samples the weight 0, or use an `STFT` loss. Weights and masks of single time
    steps act inside the sums; a step of weight 0 is silent for the step after it.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: an error of a tenth of the amplitude, and silence.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> signal = np.sin(np.arange(100.0))[None]
    >>> loss = cl.losses.ErrorToSignal(pre_emphasis=0.95)
    >>> round(float(loss(signal, 0.9 * signal)), 4), round(float(loss(signal, 0 * signal)), 4)
    (0.01, 1.0)

    auraloss' `ESRLoss` is it without `pre_emphasis`. Wright, Damskägg & Välimäki 2019 (DAFx-19).
    """

    def __init__(
        self, pre_emphasis: float = 0.0, *, epsilon: float = 1e-8, **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_pre_emphasis("ErrorToSignal", pre_emphasis)
        check_number("ErrorToSignal", "epsilon", epsilon, minimum=0, exclusive=True)
        self.pre_emphasis = pre_emphasis
        self.epsilon = epsilon

    def of_channels(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        true, error = self._emphasised(y_true, weight), self._emphasised(y_true - y_pred, weight)
        return _power(error, weight) / (_power(true, weight) + self.epsilon)

    def _emphasised(self, signal: Tensor, weight: Tensor | None) -> Tensor:
        if weight is not None:
            signal = ops.where(weight > 0, signal, 0.0)
        return pre_emphasised(signal, self.pre_emphasis)


def _power(signal: Tensor, weight: Tensor | None) -> Tensor:
    return _inner(signal, signal, weight)


def _inner(a: Tensor, b: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted inner product over time."""
    return ops.sum(a * b if weight is None else weight * a * b, axis=1)
