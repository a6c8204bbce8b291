"""Spectra: signals compared by their short-time spectra, or up to scale. Values `(batch,)`.

`STFT` and `MultiResolutionSTFT` report their parts: in a composite as `{"spectrum":
MultiResolutionSTFT()}` the logs hold `spectrum_loss`, `spectrum/fft_1024_loss`,
`spectrum/fft_1024/convergence_loss` and so on, all from one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.alignment import fits, is_per_sample
from combined_losses._core.batch import Batch
from combined_losses._core.checks import (
    at_least,
    check_equal_shapes,
    check_flag,
    check_number,
)
from combined_losses._core.keras_types import KerasLoss, LossArguments, Reduction
from combined_losses._core.loss import Loss
from combined_losses._core.names import make_unique
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import accumulating, decibels, div, weighted_mean
from combined_losses.losses.parts import OfParts
from combined_losses.losses.stft_arguments import (
    TERMS,
    check_resolution,
    check_weights,
    resolutions_of,
)

__all__ = ["SISDR", "STFT", "MultiResolutionSTFT"]


@keras.saving.register_keras_serializable("combined_losses")
class STFT(OfParts):
    """How far two signals' short-time spectra differ, in magnitude and not in phase.

    The sum of two terms, which the logs show as parts. With the magnitudes Y and P of one sample,
    `convergence` is `||Y - P|| / ||Y||` (Frobenius norms), in which loud frames and bins dominate;
    `log_magnitude` is the mean of `|log Y - log P|` over frames and bins, in which quiet ones count
    as much. Use it for audio and other oscillating signals: a shift in phase, which the ear does
    not hear, is a large error for a waveform loss. Add a waveform loss such as `"mae"` if the phase
    matters too.

    The magnitude is `sqrt(re^2 + im^2 + 1e-8)`, so that a quiet prediction keeps its gradient. An
    exactly silent prediction has gradient 0, because no direction is better than another: add a
    waveform loss if predictions may begin at 0.

    Args:
        fft_size: samples of the Fourier transform, an integer of at least 1. Default 1024.
        hop: samples from one frame to the next, an integer of at least 1. Default 256.
        window: samples of the periodic Hann window, centred in the transform; an integer from 2 to
            `fft_size`. Default 1024.
        weights: None (default): 1 for both terms; or a dict of numbers of at least 0, such as
            `{"convergence": 0.0}`; a term that it leaves out has 1. They can be set later:
            `set_weight("convergence", 0.5)`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, time)` or `(batch, time, channels)`, equal; `time` above
    `fft_size // 2`, because the signals are reflected by that much at both ends. Channels are
    compared one by one and averaged. Values `(batch,)`, of at least 0, without a unit. If the truth
    is silent, `convergence` is as large as `||P|| / (1e-4 sqrt(frames * bins))`: give such samples
    the weight 0, or the term a small one. Weights and masks of single time steps act inside: steps
    of weight 0 are silent in both signals, and a frame has the weight of its centre.

    Raises:
        ValueError: if an argument is outside its range, the shapes differ, or a signal is too
            short.

    Example: a tone of half the amplitude; one of another phase, which differs only in the reflected
    ends; and one of another pitch.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> time = np.arange(4096, dtype="float32")[None]
    >>> loss, tone = cl.losses.STFT(weights={"log_magnitude": 0.0}), np.sin(0.3 * time)
    >>> others = 0.5 * tone, np.cos(0.3 * time), np.sin(0.33 * time)
    >>> [round(float(loss(tone, other)), 2) for other in others]
    [0.5, 0.34, 1.35]

    Arik, Jun & Diamos 2018, arXiv 1808.06719.
    """

    def __init__(
        self,
        fft_size: int = 1024,
        hop: int = 256,
        window: int = 1024,
        weights: Mapping[str, float] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        owner = type(self).__name__
        check_resolution(owner, fft_size, hop, window, ("fft_size", "hop", "window"))
        check_weights(owner, weights)
        terms: dict[str, KerasLoss] = dict(
            zip(TERMS, (_Convergence(), _LogMagnitude()), strict=True)
        )
        super().__init__(terms, weights, reduction, name, dtype)
        self.fft_size = fft_size
        self.hop = hop
        self.window = window
        self.weights = weights
        # The "hann" of `ops.stft` is not periodic on TensorFlow if its length is odd.
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi / window * np.arange(window))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "weights": self.weights_now(config["weights"])}

    def see(self, batch: Batch, label: str) -> Batch:
        """The batch of magnitudes, `(batch, channels, frames, bins)`."""
        batch = self.one_array(batch, label)
        check_equal_shapes(label, batch.y_true, batch.y_pred)
        batch = batch.replaced(
            y_true=self._long_enough(label, batch.y_true),
            y_pred=self._long_enough(label, batch.y_pred),
        )
        dtype = accumulating(self.dtype)

        def magnitude(signal: Tensor) -> Tensor:
            return self._magnitude(batch.neutralised(ops.cast(signal, dtype), 0.0))

        def of_frames(what: str, weight: Tensor) -> Tensor:
            if fits(label, what, weight, batch.y_pred):
                return self._of_frames(weight, batch)
            raise ValueError(
                f"The {what} of component '{label}' must have the shape of the signals from the "
                f"left. Received: {what} of shape {tuple(weight.shape)} and y_pred of shape "
                f"{tuple(batch.y_pred.shape)}"
            )

        return batch.view(magnitude, of_frames)

    def _long_enough(self, label: str, signals: Tensor) -> Tensor:
        """The signals; raises if their shape is not that of signals, or if they are too short."""
        _check_signal(label, tuple(signals.shape))
        message = (
            f"Component '{label}' continues its signals at both ends by reflection, which "
            f"takes more than fft_size // 2 = {self.fft_size // 2} time steps: give longer "
            f"ones, or a smaller `fft_size`. Received: y_pred of shape {tuple(signals.shape)}"
        )
        return at_least(signals, (1,), self.fft_size // 2 + 1, message)

    def _magnitude(self, signal: Tensor) -> Tensor:
        signal = _channels_first(signal)
        if signal.shape[0] == 0:  # no backend reflects the ends of no signals
            one = ops.zeros((1, *ops.shape(signal)[1:]), signal.dtype)
            return self._magnitude_of(ops.concatenate([signal, one]))[:0]
        return self._magnitude_of(signal)

    def _magnitude_of(self, signal: Tensor) -> Tensor:
        real, imaginary = ops.stft(signal, self.window, self.hop, self.fft_size, self._hann)
        return ops.sqrt(ops.square(real) + ops.square(imaginary) + 1e-8)

    def _of_frames(self, weight: Tensor, batch: Batch) -> Tensor:
        """The weights of frames, `(batch, channels, frames, 1)`, from those of time steps."""
        if is_per_sample(weight):
            return weight
        # With the reflected ends, the centre of frame k is step k * hop. That of the last frame may
        # be one step beyond the end.
        weight, steps = _channels_first(weight), ops.shape(batch.y_pred)[1]
        frames = (steps - self.fft_size % 2) // self.hop + 1
        centres = ops.minimum(ops.arange(frames) * self.hop, ops.shape(weight)[2] - 1)
        return ops.expand_dims(ops.take(weight, centres, axis=2), -1)


@keras.saving.register_keras_serializable("combined_losses")
class MultiResolutionSTFT(OfParts):
    """The mean of `STFT` at several resolutions, each a part of its own.

    A long window resolves tones, a short one moments: a signal can be wrong and still look right at
    one resolution, but hardly at all of them. The parts are named by their size, `fft_1024` and so
    on, and have the parts of `STFT`: `fft_1024/convergence`, `fft_1024/log_magnitude`.

    Args:
        fft_sizes, hops, windows: lists of equal length, one number for each resolution, as in
            `STFT`. Defaults `(1024, 2048, 512)`, `(120, 240, 50)`, `(600, 1200, 240)`.
        weights: those of the two terms at every resolution, as in `STFT`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `STFT`, `time` above half of the largest transform; values `(batch,)`.

    Raises:
        ValueError: if an argument is outside its range, the shapes differ, or a signal is too
            short.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.losses.MultiResolutionSTFT((64, 32), hops=(16, 8), windows=(64, 32))
    >>> loss.component_names[:3]
    ('fft_64', 'fft_64/convergence', 'fft_64/log_magnitude')

    Limit: with one resolution it is `STFT`. Yamamoto, Song & Kim 2020 (Parallel WaveGAN), arXiv
    1910.11480.
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (1024, 2048, 512),
        hops: Sequence[int] = (120, 240, 50),
        windows: Sequence[int] = (600, 1200, 240),
        weights: Mapping[str, float] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        resolutions = resolutions_of(fft_sizes, hops, windows)
        check_weights("MultiResolutionSTFT", weights)
        parts: dict[str, KerasLoss] = {}
        for fft_size, hop, window in resolutions:
            part = make_unique(f"fft_{fft_size}", parts)
            parts[part] = STFT(fft_size, hop, window, weights, name=part, dtype=dtype)
        super().__init__(parts, [1 / len(parts)] * len(parts), reduction, name, dtype)
        self.fft_sizes = fft_sizes
        self.hops = hops
        self.windows = windows
        self.weights = weights

    def see(self, batch: Batch, label: str) -> Batch:
        return batch


class _Convergence(Loss):
    """`||Y - P|| / ||Y||` over frames and bins, averaged over the channels with any weight."""

    neutral_target = 1.0

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        ratio = _norm(y_true - y_pred, sample_weight, 1e-24) / _norm(y_true, sample_weight, 1.0)
        if sample_weight is None:
            return ops.mean(ratio, axis=1)
        counts = ops.cast(ops.any(sample_weight > 0, axis=(2, 3)), ratio.dtype)
        return div(ops.sum(counts * ratio, axis=1), ops.sum(counts, axis=1))


def _norm(magnitude: Tensor, weight: Tensor | None, floor: float) -> Tensor:
    """The norm; where its square is below 1e-24, the constant `sqrt(floor)`.

    The slope of a norm of 0 would be 0 / 0.
    """
    squares = ops.square(magnitude)
    total = ops.sum(squares if weight is None else weight * squares, axis=(2, 3))
    return ops.sqrt(ops.where(total > 1e-24, total, floor))


class _LogMagnitude(Loss):
    """The mean of `|log Y - log P|` over channels, frames and bins."""

    neutral_target = 1.0

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        difference = ops.log(y_true) - ops.log(y_pred)
        # |d| with the slope 0 at d = 0; relu(d) + relu(-d) would take one more pass over the array.
        distance = ops.stop_gradient(ops.sign(difference)) * difference
        return weighted_mean(distance, sample_weight, axis=(1, 2, 3))


@keras.saving.register_keras_serializable("combined_losses")
class SISDR(Loss):
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

    neutral_target = 1.0

    def __init__(
        self, zero_mean: bool = True, epsilon: float = 1e-8, **kwargs: Unpack[LossArguments]
    ) -> None:
        super().__init__(**kwargs)
        check_flag("SISDR", "zero_mean", zero_mean)
        check_number("SISDR", "epsilon", epsilon, minimum=0, exclusive=True)
        self.zero_mean = zero_mean
        self.epsilon = epsilon

    @property
    def traits(self) -> Traits:
        return super().traits._replace(apart=True)  # channels are compared one by one

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        _check_signal(self.name, tuple(y_pred.shape))
        weight = sample_weight
        if self.zero_mean:
            y_true, y_pred = (
                signal - weighted_mean(signal, weight, axis=1, keepdims=True)
                for signal in (y_true, y_pred)
            )
        power = _inner(y_true, y_true, weight)
        level = _inner(y_pred, y_true, weight) / (power + self.epsilon)
        distortion = ops.expand_dims(level, 1) * y_true - y_pred
        ratio = (_inner(distortion, distortion, weight) + self.epsilon) / (
            # ||a t||^2 = a^2 <t, t>
            ops.square(level) * power + self.epsilon
        )
        values = decibels(ratio)
        if len(values.shape) == 1:
            return values
        # A channel whose steps all have the weight 0 is left out.
        counts = None if weight is None else ops.cast(ops.any(weight > 0, axis=1), values.dtype)
        return weighted_mean(values, counts, axis=1)


def _inner(a: Tensor, b: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted inner product over time."""
    return ops.sum(a * b if weight is None else weight * a * b, axis=1)


def _channels_first(signal: Tensor) -> Tensor:
    """`(batch, channels, time)` from `(batch, time)` or `(batch, time, channels)`."""
    return ops.expand_dims(signal, 1) if len(signal.shape) == 2 else ops.swapaxes(signal, 1, 2)


def _check_signal(label: str, shape: tuple[int | None, ...]) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"Component '{label}' compares signals (batch, time) or (batch, time, channels). "
            f"Received: y_pred of shape {shape}"
        )
