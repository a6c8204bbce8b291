"""Losses of spectra train: two layers of convolutions, from noisy tones to clean ones.

The score is the ratio of signal to error in dB, up to scale and offset, which not all of them see;
that of the noisy tones is 6. The slope of a logarithm is steep: over seeds and backends, also from
one run to the next on several threads, the trainings end between 9 and 18.
"""

import keras
import numpy as np
from keras import layers

import combined_losses as cl
from tests.losses.training import make, rows, train

# Arguments, epochs, and whether a waveform loss is beside it: a magnitude does not know the phase.
SPECTRA = {
    "STFT": ({"fft_size": 128, "hop": 32, "window": 128}, 8, True),
    "MultiResolutionSTFT": (
        {"fft_sizes": (64, 128), "hops": (16, 32), "windows": (64, 128)},
        8,
        True,
    ),
    "MelSTFT": (
        {"sample_rate": 8000, "mels": 16, "fft_size": 128, "hop": 32, "window": 128},
        8,
        True,
    ),
    "SISDR": ({}, 40, False),
    "SNR": ({}, 15, False),
    "ErrorToSignal": ({"pre_emphasis": 0.2}, 10, False),
}
TABLES = (SPECTRA,)
STEPS = 512


def noisy_tones():
    rng = np.random.default_rng(0)
    pitch = rng.uniform(0.02, 0.2, (16, 1, 1))
    y = np.sqrt(2) * np.sin(2 * np.pi * pitch * np.arange(STEPS)[:, None])
    return (y + 0.5 * rng.normal(size=y.shape)).astype("float32"), y.astype("float32")


def decibels(y, y_pred):
    """The ratio of signal to error, with the best scale and offset of the prediction."""
    y_pred = y_pred - y_pred.mean(axis=1, keepdims=True)
    scale = np.sum(y * y_pred, axis=1, keepdims=True) / np.sum(y_pred**2, axis=1, keepdims=True)
    return 10 * np.log10(np.mean(y**2) / np.mean((y - scale * y_pred) ** 2))


@rows(SPECTRA)
def test_it_cleans_tones(key):
    arguments, epochs, wave = SPECTRA[key]
    x, y = noisy_tones()
    hidden = layers.Conv1D(8, 33, padding="same", activation="tanh")
    model = cl.Sequential([keras.Input((STEPS, 1)), hidden, layers.Conv1D(1, 33, padding="same")])
    loss = make(key, arguments)
    loss = loss + cl.as_loss("mae") if wave else loss
    before, after = train(model, loss, x, y, epochs=epochs)
    assert decibels(y, after) > 8
    assert decibels(y, before) < 4
    assert 5.5 < decibels(y, x) < 7.5
