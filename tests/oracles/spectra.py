"""Twins of `combined_losses.losses.spectra`: frame by frame, with the Fourier sums written out."""

import functools

import numpy as np


def _frames(signal, fft_size, hop, window):
    """The windowed frames of one channel, and the step of the padded signal where each begins."""
    half, hann = fft_size // 2, np.zeros(fft_size)
    start = (fft_size - window) // 2
    hann[start : start + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(signal, half, mode="reflect")
    begins = range(0, len(padded) - fft_size + 1, hop)
    return [(hann, hann * padded[b : b + fft_size], b) for b in begins]


def _unpadded(gradient, half):
    """The gradient by a signal, of that by its reflected continuation."""
    steps = len(gradient) - 2 * half
    index = np.pad(np.arange(steps), half, mode="reflect")
    return np.bincount(index, gradient, steps)


@functools.cache
def _waves(fft_size):
    """The cosines and minus the sines of every bin."""
    angles = 2 * np.pi / fft_size * np.outer(np.arange(fft_size // 2 + 1), np.arange(fft_size))
    return np.cos(angles), -np.sin(angles)


def _channel(y_true, y_pred, fft_size, hop, window, weights):
    """Value and gradient of one channel of one sample."""
    pairs = zip(*(_frames(x, fft_size, hop, window) for x in (y_true, y_pred)), strict=True)
    true, pred, back = [], [], []
    cosines, sines = _waves(fft_size)
    for (_, frame, _), (hann, other, begin) in pairs:
        true.append(np.sqrt((cosines @ frame) ** 2 + (sines @ frame) ** 2 + 1e-8))
        re, im = cosines @ other, sines @ other
        pred.append(np.sqrt(re**2 + im**2 + 1e-8))
        back.append((hann, begin, re, im))
    true, pred = np.array(true), np.array(pred)
    error, size = (np.sqrt(max(np.sum(a**2), 1e-24)) for a in (true - pred, true))
    of_convergence = (pred - true) / (error * size) if error > 1e-12 else 0 * pred
    distance = np.log(pred) - np.log(true)
    slope = weights[0] * of_convergence + weights[1] * np.sign(distance) / pred / pred.size
    gradient = np.zeros(len(y_pred) + 2 * (fft_size // 2))
    for row, magnitude, (hann, begin, re, im) in zip(slope, pred, back, strict=True):
        by_frame = (row * re / magnitude) @ cosines + (row * im / magnitude) @ sines
        gradient[begin : begin + fft_size] += hann * by_frame
    value = weights[0] * error / size + weights[1] * np.mean(np.abs(distance))
    return value, _unpadded(gradient, fft_size // 2)


def _by_channel(function, y_true, y_pred):
    """The mean of `function(y_true, y_pred) -> value, gradient` over the channels."""
    y_true, y_pred = (np.atleast_3d(np.float64(y)) for y in (y_true, y_pred))
    values, gradient = np.zeros(len(y_pred)), np.zeros(y_pred.shape)
    for n, c in np.ndindex(len(y_pred), y_pred.shape[-1]):
        value, slope = function(y_true[n, :, c], y_pred[n, :, c])
        values[n] += value / y_pred.shape[-1]
        gradient[n, :, c] = slope / y_pred.shape[-1]
    return values, gradient


def stft(y_true, y_pred, fft_size=1024, hop=256, window=1024, weights=None):
    found = {"convergence": 1.0, "log_magnitude": 1.0, **(weights or {})}
    numbers = found["convergence"], found["log_magnitude"]
    values, gradient = _by_channel(
        lambda t, p: _channel(t, p, fft_size, hop, window, numbers), y_true, y_pred
    )
    return values, gradient.reshape(y_pred.shape)


def multi_resolution_stft(
    y_true,
    y_pred,
    fft_sizes=(1024, 2048, 512),
    hops=(120, 240, 50),
    windows=(600, 1200, 240),
    weights=None,
):
    found = [
        stft(y_true, y_pred, *resolution, weights)
        for resolution in zip(fft_sizes, hops, windows, strict=True)
    ]
    return tuple(np.mean(parts, axis=0) for parts in zip(*found, strict=True))


def _ratio(t, x, zero_mean, epsilon):
    """Minus the ratio in dB of one channel, and its gradient by `x`."""
    if zero_mean:
        t, x = t - t.mean(), x - x.mean()
    power = t @ t
    level = (x @ t) / (power + epsilon)
    rest = level * t - x
    above, below = rest @ rest + epsilon, level**2 * power + epsilon
    by_level = t / (power + epsilon)  # d level / d x
    by_rest = 2 * ((rest @ t) * by_level - rest)  # d above / d x
    slope = by_rest / above - 2 * level * power * by_level / below
    slope = slope - slope.mean() if zero_mean else slope
    return 10 * np.log10(above / below), 10 / np.log(10) * slope


def sisdr(y_true, y_pred, zero_mean=True, epsilon=1e-8):
    values, gradient = _by_channel(lambda t, x: _ratio(t, x, zero_mean, epsilon), y_true, y_pred)
    return values, gradient.reshape(y_pred.shape)
