"""How do I fit what is heard, and not only what is large? Two decaying tones, one of them quiet.

The second tone has a hundredth of the amplitude of the first: a ten thousandth of the squared error
of the waveform, and clearly heard. Score: by how many decibels its level is off, over its decay.
"""

import keras
import numpy as np
from keras import layers, ops
from scipy import signal

import combined_losses as cl

RATE, STEPS = 8000, 2000
TIME = np.arange(STEPS) / RATE
LOUD, QUIET = 437.0, 2213.0  # Hz


def two_tones():
    loud = np.exp(-8 * TIME) * np.sin(2 * np.pi * LOUD * TIME)
    return loud + 0.01 * np.exp(-4 * TIME) * np.sin(2 * np.pi * QUIET * TIME + 1)


def waves():
    """Sines and cosines of 100 pitches and three decays, `(steps, 600)`; none is that of a tone."""
    angle = 2 * np.pi * TIME[:, None] * np.arange(40, 4040, 40)
    both = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return np.concatenate([both * np.exp(-decay * TIME[:, None]) for decay in (2, 6, 18)], axis=1)


def level(sound):
    """Of the quiet tone over time, in dB."""
    pitches, _, spectrum = signal.stft(sound, RATE, nperseg=256)
    near = np.argmin(np.abs(pitches - QUIET))
    return 20 * np.log10(np.abs(spectrum[near, 2:-2]))


def fit(loss, steps):
    x, y = waves()[None].astype("float32"), two_tones()[None, :, None].astype("float32")
    model = cl.Sequential(
        [keras.Input(x.shape[1:]), layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    # One signal, ten steps in an epoch.
    model.fit(*(np.repeat(a, 10, axis=0) for a in (x, y)), 1, epochs=steps // 10, verbose=0)
    sound = ops.convert_to_numpy(model(x))[0, :, 0]
    return float(np.abs(level(sound) - level(two_tones())).mean())


def main(steps=400):
    both = {"wave": "mse", "spectrum": cl.losses.STFT(fft_size=512, hop=128, window=512)}
    return {
        "off, waveform alone (dB)": fit(cl.CompositeLoss({"wave": "mse"}), steps),
        "off, with the spectrum (dB)": fit(cl.CompositeLoss(both), steps),
    }


if __name__ == "__main__":
    print(main())
