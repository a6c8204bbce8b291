"""The base of losses that compare two signals by their short-time spectra."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from combined_losses._core.alignment import fits, is_per_sample
from combined_losses._core.batch import Batch
from combined_losses._core.checks import at_least, check_equal_shapes
from combined_losses._core.keras_types import Reduction
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import accumulating
from combined_losses.losses.parts import OfParts
from combined_losses.losses.spectra.arguments import check_resolution, check_weights
from combined_losses.losses.spectra.signals import channels_first, check_signal, pre_emphasised
from combined_losses.losses.spectra.terms import FLOOR, SpectralTerm


class Spectral(OfParts):
    """A sum of terms of two signals' short-time spectra (abstract).

    Args:
        terms: the terms by their names, in their order.
        defaults: the weight of each term that `weights` leaves out.
        fft_size, hop, window, weights, reduction, name, dtype: as in `combined_losses.losses.STFT`.
    """

    pre_emphasis: float = 0.0

    def __init__(
        self,
        terms: Mapping[str, SpectralTerm],
        defaults: Mapping[str, float],
        fft_size: int,
        hop: int,
        window: int,
        weights: Mapping[str, float] | None,
        reduction: Reduction,
        name: str | None,
        dtype: Dtype,
    ) -> None:
        owner = type(self).__name__
        check_resolution(owner, fft_size, hop, window, ("fft_size", "hop", "window"))
        check_weights(owner, weights, tuple(terms))
        super().__init__(terms, {**defaults, **(weights or {})}, reduction, name, dtype)
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
        """The batch of spectra, `(batch, channels, frames, bins)`."""
        batch = self.one_array(batch, label)
        check_equal_shapes(label, batch.y_true, batch.y_pred)
        batch = batch.replaced(
            y_true=self._long_enough(label, batch.y_true),
            y_pred=self._long_enough(label, batch.y_pred),
        )
        dtype = accumulating(self.dtype)

        def spectra(signal: Tensor) -> Tensor:
            return self._spectra(batch.neutralised(ops.cast(signal, dtype), 0.0))

        def of_frames(what: str, weight: Tensor) -> Tensor:
            if fits(label, what, weight, batch.y_pred):
                return self._of_frames(weight, batch)
            raise ValueError(
                f"The {what} of component '{label}' must have the shape of the signals from the "
                f"left. Received: {what} of shape {tuple(weight.shape)} and y_pred of shape "
                f"{tuple(batch.y_pred.shape)}"
            )

        return batch.view(spectra, of_frames)

    def _long_enough(self, label: str, signals: Tensor) -> Tensor:
        """The signals; raises if their shape is not that of signals, or if they are too short."""
        check_signal(label, tuple(signals.shape))
        message = (
            f"Component '{label}' continues its signals at both ends by reflection, which "
            f"takes more than fft_size // 2 = {self.fft_size // 2} time steps: give longer "
            f"ones, or a smaller `fft_size`. Received: y_pred of shape {tuple(signals.shape)}"
        )
        return at_least(signals, (1,), self.fft_size // 2 + 1, message)

    def _spectra(self, signal: Tensor) -> Tensor:
        signal = channels_first(pre_emphasised(signal, self.pre_emphasis))
        if signal.shape[0] == 0:  # no backend reflects the ends of no signals
            one = ops.zeros((1, *ops.shape(signal)[1:]), signal.dtype)
            return self._spectra_of(ops.concatenate([signal, one]))[:0]
        return self._spectra_of(signal)

    def _spectra_of(self, signal: Tensor) -> Tensor:
        real, imaginary = ops.stft(signal, self.window, self.hop, self.fft_size, self._hann)
        magnitude = ops.sqrt(ops.square(real) + ops.square(imaginary) + FLOOR)
        return self.seen(magnitude, real, imaginary)

    def seen(self, magnitude: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        """What the terms are given of the spectra, each `(batch, channels, frames, bins)`."""
        return magnitude

    def _of_frames(self, weight: Tensor, batch: Batch) -> Tensor:
        """The weights of frames, `(batch, channels, frames, 1)`, from those of time steps."""
        if is_per_sample(weight):
            return weight
        # With the reflected ends, the centre of frame k is step k * hop. That of the last frame may
        # be one step beyond the end.
        weight, steps = channels_first(weight), ops.shape(batch.y_pred)[1]
        frames = (steps - self.fft_size % 2) // self.hop + 1
        centres = ops.minimum(ops.arange(frames) * self.hop, ops.shape(weight)[2] - 1)
        return ops.expand_dims(ops.take(weight, centres, axis=2), -1)
