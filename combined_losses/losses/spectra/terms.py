"""The terms in which two spectra differ, `(batch, channels, frames, bins)`. Values `(batch,)`."""

from keras import ops

from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import weighted_mean
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

    def magnitude(self, spectra: Tensor) -> Tensor:
        return ops.split(spectra, 3, axis=-1)[0] if self.several else spectra


class Convergence(SpectralTerm):
    """`||Y - P|| / ||Y||` over frames and bins, averaged over the channels with any weight."""

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        y_true, y_pred = self.magnitude(y_true), self.magnitude(y_pred)
        ratio = _norm(y_true - y_pred, sample_weight, 1e-24) / _norm(y_true, sample_weight, 1.0)
        return mean_of_channels(ratio, sample_weight, (2, 3))


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

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        difference = self._log(y_true) - self._log(y_pred)
        # |d| with the slope 0 at d = 0; relu(d) + relu(-d) would take one more pass over the array.
        distance = ops.stop_gradient(ops.sign(difference)) * difference
        return weighted_mean(distance, sample_weight, axis=(1, 2, 3))

    def _log(self, spectra: Tensor) -> Tensor:
        magnitude = self.magnitude(spectra)
        return ops.log(magnitude + self.floor if self.floor else magnitude)


class Phase(SpectralTerm):
    """`sum (|Y| |P| - Re(Y conj P)) / sum |Y|^2` over frames and bins, averaged over channels."""

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        (true, *y_parts), (pred, *p_parts) = (ops.split(s, 3, axis=-1) for s in (y_true, y_pred))
        apart = sum(ops.square(y - p) for y, p in zip(y_parts, p_parts, strict=True))
        # |Y - P|^2 = |Y|^2 + |P|^2 - 2 Re(Y conj P), and with the floor e the magnitudes have
        # (|Y| - |P|)^2 = |Y|^2 + |P|^2 + 2 e - 2 |Y| |P|. Half of the difference, plus e, is the
        # numerator. It is rounded like the error, not like the signal: 0 is nearly reached.
        lack = (apart - ops.square(true - pred)) / 2 + FLOOR
        ratio = _total(lack, sample_weight) / _positive(_total(ops.square(true), sample_weight))
        return mean_of_channels(ratio, sample_weight, (2, 3))


def _positive(total: Tensor) -> Tensor:
    """The sum, or 1 where nothing counts."""
    return ops.where(total > 0, total, 1.0)
