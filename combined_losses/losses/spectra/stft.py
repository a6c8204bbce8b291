"""`STFT` and `MultiResolutionSTFT` compare the bins of short-time spectra.

They report their parts: in a composite as `{"spectrum": MultiResolutionSTFT()}` the logs hold
`spectrum_loss`, `spectrum/fft_1024_loss`, `spectrum/fft_1024/convergence_loss` and so on, all from
one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import KerasLoss, Reduction
from combined_losses._core.names import make_unique
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses.losses.parts import OfParts
from combined_losses.losses.spectra.arguments import (
    check_weights,
    resolutions_of,
    weights_of_part,
)
from combined_losses.losses.spectra.base import Spectral
from combined_losses.losses.spectra.signals import check_pre_emphasis
from combined_losses.losses.spectra.terms import Convergence, LogMagnitude, Phase, SpectralTerm

__all__ = ["STFT", "MultiResolutionSTFT"]


@keras.saving.register_keras_serializable("combined_losses")
class STFT(Spectral):
    """How far two signals' short-time spectra differ, in magnitude and, if you wish, in phase.

    The sum of two terms, which the logs show as parts. With the magnitudes Y and P of one sample,
    `convergence` is `||Y - P|| / ||Y||` (Frobenius norms), in which loud frames and bins dominate;
    `log_magnitude` is the mean of `|log Y - log P|` over frames and bins, in which quiet ones count
    as much. Use it for audio and other oscillating signals: a shift in phase, which the ear does
    not hear, is a large error for a waveform loss. If the phase matters too, add a waveform loss
    such as `"mae"`, or the term `phase`, `sum (|Y| |P| - Re(Y conj P)) / sum |Y|^2` of the complex
    spectra: 0 for equal phases, and 2 for a signal of the opposite sign.

    The magnitude is `sqrt(re^2 + im^2 + 1e-8)`, so that a quiet prediction keeps its gradient. An
    exactly silent prediction has gradient 0 in both magnitude terms, because no direction is better
    than another: add a waveform loss or `phase` if predictions may begin at 0.

    Args:
        fft_size: samples of the Fourier transform, an integer of at least 1. Default 1024.
        hop: samples from one frame to the next, an integer of at least 1. Default 256.
        window: samples of the periodic Hann window, centred in the transform; an integer from 2 to
            `fft_size`. Default 1024.
        weights: None (default): 1 for both terms; or a dict of numbers of at least 0, such as
            `{"convergence": 0.0}`; a term that it leaves out has 1. They can be set later:
            `set_weight("convergence", 0.5)`.
        pre_emphasis: the share of the step before that is subtracted from each step of both
            signals, from 0 (default) to 1. It makes high tones count more: 0.85 to 0.97 for speech.
        phase: the weight of the term `phase`, at least 0. Default 0: there is no such term, and
            `weights` may not name it. Above 0, a weight of it in `weights` counts instead.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, time)` or `(batch, time, channels)`, equal; `time` above
    `fft_size // 2`, because the signals are reflected by that much at both ends. Channels are
    compared one by one and averaged. Values `(batch,)`, of at least 0, without a unit. If the truth
    is silent, `convergence` is as large as `||P|| / (1e-4 sqrt(frames * bins))`, and `phase` is
    large, too: give such samples the weight 0, or the terms a small one. Weights and masks of
    single time steps act inside: steps of weight 0 are silent in both signals, and a frame has the
    weight of its centre.

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
        *,
        pre_emphasis: float = 0.0,
        phase: float = 0.0,
    ) -> None:
        _check_options(type(self).__name__, weights, pre_emphasis, phase)
        given = (weights, reduction, name, dtype)
        super().__init__(_terms(phase), _defaults(phase), fft_size, hop, window, *given)
        self.pre_emphasis = pre_emphasis
        self.phase = phase

    def seen(self, magnitude: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        if self.phase == 0:
            return magnitude
        return ops.concatenate([magnitude, real, imaginary], axis=-1)


def _terms(phase: float) -> dict[str, SpectralTerm]:
    several = phase > 0
    terms: dict[str, SpectralTerm] = {
        "convergence": Convergence(several),
        "log_magnitude": LogMagnitude(several),
    }
    return {**terms, "phase": Phase(several)} if several else terms


def _check_options(
    owner: str,
    weights: Mapping[str, float] | None,
    pre_emphasis: float,
    phase: float,
    parts: Sequence[str] = (),
) -> None:
    """Raises if an argument is outside its range; `parts` are those that have the terms."""
    check_pre_emphasis(owner, pre_emphasis)
    check_number(owner, "phase", phase, minimum=0)
    terms = tuple(_defaults(phase))
    check_weights(owner, weights, (*terms, *parts, *(f"{p}/{t}" for p in parts for t in terms)))


def _defaults(phase: float) -> dict[str, float]:
    """The weights of the terms that no `weights` name."""
    weights = {"convergence": 1.0, "log_magnitude": 1.0}
    return {**weights, "phase": phase} if phase > 0 else weights


@keras.saving.register_keras_serializable("combined_losses")
class MultiResolutionSTFT(OfParts):
    """The mean of `STFT` at several resolutions, each a part of its own.

    A long window resolves tones, a short one moments: a signal can be wrong and still look right at
    one resolution, but hardly at all of them. The parts are named by their size, `fft_1024` and so
    on, and have the parts of `STFT`: `fft_1024/convergence`, `fft_1024/log_magnitude`.

    Args:
        fft_sizes, hops, windows: lists of equal length, one number for each resolution, as in
            `STFT`. Defaults `(1024, 2048, 512)`, `(120, 240, 50)`, `(600, 1200, 240)`.
        weights: those of the terms at every resolution, as in `STFT`; or of single parts by their
            paths, such as `{"fft_512/phase": 0.0, "fft_1024": 0.5}`. A resolution that it leaves
            out has one over the number of resolutions.
        pre_emphasis, phase: as in `STFT`, at every resolution. Defaults 0.
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
        *,
        pre_emphasis: float = 0.0,
        phase: float = 0.0,
    ) -> None:
        resolutions = resolutions_of(fft_sizes, hops, windows)
        named: dict[str, tuple[int, int, int]] = {}
        for resolution in resolutions:
            named[make_unique(f"fft_{resolution[0]}", named)] = resolution
        _check_options("MultiResolutionSTFT", weights, pre_emphasis, phase, [*named])
        given = weights or {}
        parts: dict[str, KerasLoss] = {
            part: STFT(
                *resolution,
                weights_of_part(given, part, _defaults(phase)),
                name=part,
                dtype=dtype,
                pre_emphasis=pre_emphasis,
                phase=phase,
            )
            for part, resolution in named.items()
        }
        shares = {part: given.get(part, 1 / len(parts)) for part in parts}
        super().__init__(parts, shares, reduction, name, dtype)
        self.fft_sizes = fft_sizes
        self.hops = hops
        self.windows = windows
        self.weights = weights
        self.pre_emphasis = pre_emphasis
        self.phase = phase

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "weights": self.weights_now(config["weights"])}

    def see(self, batch: Batch, label: str) -> Batch:
        return batch
