"""Signals: `(batch, time)` or `(batch, time, channels)`."""

from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import weighted_mean


def check_signal(label: str, shape: tuple[int | None, ...]) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"Component '{label}' compares signals (batch, time) or (batch, time, channels). "
            f"Received: y_pred of shape {shape}"
        )


def check_pre_emphasis(owner: str, pre_emphasis: float) -> None:
    check_number(owner, "pre_emphasis", pre_emphasis, minimum=0, maximum=1)


def channels_first(signal: Tensor) -> Tensor:
    """`(batch, channels, time)` from `(batch, time)` or `(batch, time, channels)`."""
    return ops.expand_dims(signal, 1) if len(signal.shape) == 2 else ops.swapaxes(signal, 1, 2)


def pre_emphasised(signal: Tensor, share: float) -> Tensor:
    """Each step minus a share of the step before it, so that high tones count more."""
    if share == 0:
        return signal
    return ops.concatenate([signal[:, :1], signal[:, 1:] - share * signal[:, :-1]], axis=1)


def mean_of_channels(values: Tensor, weight: Tensor | None, axes: tuple[int, ...]) -> Tensor:
    """The mean of `(batch, channels)` over the channels of which anything counts.

    `axes` are those of `weight` that lie within one channel.
    """
    counts = None if weight is None else ops.cast(ops.any(weight > 0, axis=axes), values.dtype)
    return weighted_mean(values, counts, axis=1)
