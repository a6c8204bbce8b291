"""The terms in which two spectra differ, `(batch, channels, frames, bins)`. Values `(batch,)`."""

from keras import ops

from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, weighted_mean
from combined_losses.losses.spectra.signals import mean_of_channels

FLOOR = 1e-8  # added to the square of each magnitude


class SpectralTerm(Loss):
    """A term of magnitudes (abstract).

    Args:
        several: whether each array holds three spectra one after another along its last axis:
            magnitudes, real parts and imaginary parts.
    """

    neutral_target = 1.0

    def __init__(self, several: bool = False) -> None:
        super().__init__()
        self.several = several

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        if not self.several:
            return self.of_spectra([y_true], [y_pred], sample_weight)
        weight = None if sample_weight is None else ops.split(sample_weight, 3, axis=-1)[0]
        true, pred = (ops.split(spectra, 3, axis=-1) for spectra in (y_true, y_pred))
        return self.of_spectra(true, pred, weight)

    def of_spectra(self, true: list[Tensor], pred: list[Tensor], weight: Tensor | None) -> Tensor:
        """The values, of magnitudes and, if there are several, real and imaginary parts."""
        raise NotImplementedError


class Convergence(SpectralTerm):
    """`||Y - P|| / ||Y||` over frames and bins, averaged over the channels with any weight."""

    def of_spectra(self, true: list[Tensor], pred: list[Tensor], weight: Tensor | None) -> Tensor:
        ratio = _norm(true[0] - pred[0], weight, 1e-24) / _norm(true[0], weight, 1.0)
        return mean_of_channels(ratio, weight, (2, 3))


def _norm(magnitude: Tensor, weight: Tensor | None, floor: float) -> Tensor:
    """The norm; where its square is below 1e-24, the constant `sqrt(floor)`.

    The slope of a norm of 0 would be 0 / 0.
    """
    total = _total(ops.square(magnitude), weight)
    return ops.sqrt(ops.where(total > 1e-24, total, floor))


def _total(x: Tensor, weight: Tensor | None) -> Tensor:
    return ops.sum(x if weight is None else weight * x, axis=(2, 3))


class LogMagnitude(SpectralTerm):
    """The mean of `|log Y - log P|` over channels, frames and bins.

    Args:
        floor: what is added to both before the logarithm. Default 0.
        several: as in `SpectralTerm`.
    """

    def __init__(self, several: bool = False, floor: float = 0.0) -> None:
        super().__init__(several)
        self.floor = floor

    def of_spectra(self, true: list[Tensor], pred: list[Tensor], weight: Tensor | None) -> Tensor:
        difference = self._log(true[0]) - self._log(pred[0])
        # |d| with the slope 0 at d = 0; relu(d) + relu(-d) would take one more pass over the array.
        distance = ops.stop_gradient(ops.sign(difference)) * difference
        return weighted_mean(distance, weight, axis=(1, 2, 3))

    def _log(self, magnitude: Tensor) -> Tensor:
        return ops.log(magnitude + self.floor if self.floor else magnitude)


class Phase(SpectralTerm):
    """`sum (|Y| |P| - Re(Y conj P)) / sum |Y|^2` over frames and bins, averaged over channels."""

    def of_spectra(self, true: list[Tensor], pred: list[Tensor], weight: Tensor | None) -> Tensor:
        size, real, imaginary = (y - p for y, p in zip(true, pred, strict=True))
        apart = ops.square(real) + ops.square(imaginary)
        # |Y - P|^2 = |Y|^2 + |P|^2 - 2 Re(Y conj P), and with the floor e the magnitudes have
        # (|Y| - |P|)^2 = |Y|^2 + |P|^2 + 2 e - 2 |Y| |P|. Half of the difference, plus e, is the
        # numerator. It is rounded like the error, not like the signal: 0 is nearly reached.
        lack = (apart - ops.square(size)) / 2 + FLOOR
        ratio = div(_total(lack, weight), _total(ops.square(true[0]), weight))
        return mean_of_channels(ratio, weight, (2, 3))
