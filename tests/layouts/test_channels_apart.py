"""Losses that compare channel by channel: a label that is missing in one takes none of another."""

import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import Masked
from tests.composite.children import value
from tests.gradients import gradient
from tests.wrappers.numpy_twins import close, normal

THERE = np.random.default_rng(1).random((3, 40, 2)) < 0.6
THERE[1, :, 0] = False  # a channel without any label


def noise_ratio(y_true, y_pred):
    return 10 * np.log10(np.mean((y_true - y_pred) ** 2) + 1e-10)


def distortion(y_true, y_pred, epsilon=1e-8):
    y_true, y_pred = y_true - y_true.mean(), y_pred - y_pred.mean()
    target = (y_pred @ y_true) / (y_true @ y_true + epsilon) * y_true
    error = target - y_pred
    return -10 * np.log10((target @ target + epsilon) / (error @ error + epsilon))


def of_peak(y_true, y_pred, there):
    """One mean over all that is there."""
    return np.mean(
        [
            noise_ratio(*(a[b] for a in (t, p)))
            for t, p, b in zip(y_true, y_pred, there, strict=False)
        ]
    )


def of_signals(y_true, y_pred, there):
    """The mean over the channels that have any label, each of its own steps."""
    found = []
    for t, p, b in zip(y_true, y_pred, there, strict=True):
        each = [distortion(t[b[:, c], c], p[b[:, c], c]) for c in range(2) if b[:, c].any()]
        found.append(np.mean(each))
    return np.mean(found)


@pytest.mark.parametrize(
    "make, twin",
    [(cl.losses.PeakSignalToNoise, of_peak), (cl.losses.SISDR, of_signals)],
    ids=["peak signal to noise", "sisdr"],
)
def test_labels_are_missing_channel_by_channel(make, twin):
    y_true, y_pred = normal(3, 40, 2, seed=3), normal(3, 40, 2, seed=4)
    expected = twin(*(np.float64(a) for a in (y_true, y_pred)), THERE)
    holes, loss = np.where(THERE, y_true, np.nan), Masked(make())
    close(value(loss, holes, y_pred), expected)
    close(value(make(), y_true, y_pred, THERE.astype("float32")), expected)
    slope = gradient(lambda p: loss(holes, p), y_pred)
    assert np.all(np.isfinite(slope)) and np.all((slope != 0) == THERE)
