"""`MelSTFT` compares the spectra of two signals in bands as wide as the ear hears them."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._backend import backend
from combined_losses._core.checks import check_number, is_integer
from combined_losses._core.keras_types import Reduction
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses.losses.spectra.base import Spectral
from combined_losses.losses.spectra.terms import Convergence, LogMagnitude

__all__ = ["MelSTFT"]


@keras.saving.register_keras_serializable("combined_losses")
class MelSTFT(Spectral):
    """How far two signals' short-time spectra differ in bands as wide as the ear hears them.

    The magnitudes of `STFT` are added up in bands, triangles that are evenly spaced and overlap on
    the mel scale `2595 log10(1 + f / 700)`, with a peak of 1. The value is the sum of the two terms
    of `STFT` on these sums Y and P, which the logs show as parts: `convergence` is
    `||Y - P|| / ||Y||`, `log_magnitude` the mean of `|log((Y + 1e-5) / (P + 1e-5))|`. Use it for
    vocoders and other speech: it weighs low tones as the ear does, and does not ask where in a band
    the energy lies. Add `MultiResolutionSTFT` or a waveform loss if that matters.

    Args:
        sample_rate: samples per second, above 0. Default 16000.
        mels: the number of bands, an integer of at least 1. Default 80.
        fft_size, hop, window: as in `STFT`. Defaults 1024, 256, 1024.
        low, high: where the lowest band begins and the highest ends, in Hz, with
            `0 <= low < high <= sample_rate / 2`. Defaults 0 and None, which is `sample_rate / 2`.
        weights: those of the two terms, as in `STFT`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: as in `STFT`. Values `(batch,)`, of at least 0, without a unit. If the truth is silent,
    `convergence` is large: give such samples the weight 0. An exactly silent prediction has
    gradient 0, as in `STFT`. A band without a bin of the transform counts as equal in both signals.

    Raises:
        ValueError: if an argument is outside its range, the shapes differ, or a signal is too
            short.

    Warns:
        UserWarning: if a band holds no bin.

    Example: a tone of half the amplitude; one within the same band; and one an octave higher.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> time = np.arange(8000) / 16000
    >>> tone = lambda pitch: np.sin(2 * np.pi * pitch * time)[None]
    >>> loss = cl.losses.MelSTFT(mels=20, weights={"log_magnitude": 0.0})
    >>> others = 0.5 * tone(440), tone(450), tone(880)
    >>> [round(float(loss(tone(440), other)), 2) for other in others]
    [0.5, 0.08, 1.34]

    The bands are those of torchaudio (`mel_scale="htk"`, `norm=None`). librosa's are narrower and
    normalised by default; `tf.signal`'s are triangles in mel, not in Hz. Davis & Mermelstein 1980;
    as a loss Kong, Kim & Bae 2020 (HiFi-GAN), arXiv 2010.05646.
    """

    def __init__(
        self,
        sample_rate: float = 16000,
        mels: int = 80,
        *,
        fft_size: int = 1024,
        hop: int = 256,
        window: int = 1024,
        low: float = 0.0,
        high: float | None = None,
        weights: Mapping[str, float] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        _check_bands(sample_rate, mels, low, high)
        terms = {"convergence": Convergence(), "log_magnitude": LogMagnitude(floor=1e-5)}
        given = (weights, reduction, name, dtype)
        super().__init__(terms, dict.fromkeys(terms, 1.0), fft_size, hop, window, *given)
        self.sample_rate = sample_rate
        self.mels = mels
        self.low = low
        self.high = high
        points = _points_in_hertz(mels, low, sample_rate / 2 if high is None else high)
        self._filters = _triangles(points, np.fft.rfftfreq(fft_size, 1 / sample_rate))
        self._warn_of_empty_bands()

    def _warn_of_empty_bands(self) -> None:
        empty = int(np.sum(~np.any(self._filters > 0, axis=1)))
        if empty:
            warnings.warn(
                f"{empty} of the {self.mels} bands of MelSTFT hold no bin, which makes them equal "
                "in all signals: give a smaller `mels`, or a larger `fft_size`. "
                f"Received: mels={self.mels!r}, fft_size={self.fft_size!r}",
                stacklevel=3,
            )

    def seen(self, magnitude: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        filters = ops.convert_to_tensor(self._filters, magnitude.dtype)
        rows = ops.reshape(magnitude, (-1, self._filters.shape[1]))
        bands = backend.products(rows, filters)
        return ops.reshape(bands, (*ops.shape(magnitude)[:-1], self.mels))


def _check_bands(sample_rate: float, mels: int, low: float, high: float | None) -> None:
    check_number("MelSTFT", "sample_rate", sample_rate, minimum=0, exclusive=True)
    if not is_integer(mels) or mels < 1:
        raise ValueError(
            f"The argument `mels` of MelSTFT must be an integer of at least 1. Received: {mels!r}"
        )
    why = "it is the highest frequency that `sample_rate` allows"
    half = sample_rate / 2
    if high is not None:
        check_number("MelSTFT", "high", high, minimum=0, exclusive=True, maximum=half, why=why)
    check_number("MelSTFT", "low", low, minimum=0, below=half if high is None else high)


def _points_in_hertz(mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Where the bands begin, peak and end, evenly on the mel scale: `mels + 2` frequencies."""
    first, last = (2595 * np.log10(1 + end / 700) for end in (low, high))
    points: NDArray[np.float64] = 700 * (10 ** (np.linspace(first, last, mels + 2) / 2595) - 1)
    return points


def _triangles(points: NDArray[np.float64], bins: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Triangles over the frequencies of the bins, `(bands, bins)`, linear in Hz, of peak 1."""
    begin, peak, end = (points[i : len(points) - 2 + i, None] for i in range(3))
    rising, falling = (bins - begin) / (peak - begin), (end - bins) / (end - peak)
    return np.maximum(0, np.minimum(rising, falling))
