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


def _magnitudes(signal, fft_size, hop, window):
    """Magnitudes, real and imaginary parts of one channel, `(frames, bins)` each."""
    cosines, sines = _waves(fft_size)
    frames = np.array([frame for _, frame, _ in _frames(signal, fft_size, hop, window)])
    real, imaginary = frames @ cosines.T, frames @ sines.T
    return np.sqrt(real**2 + imaginary**2 + 1e-8), real, imaginary


def _back(by_real, by_imaginary, signal, fft_size, hop, window):
    """The gradient by a signal, of those by the real and imaginary parts of its spectra."""
    cosines, sines = _waves(fft_size)
    gradient = np.zeros(len(signal) + 2 * (fft_size // 2))
    frames = _frames(signal, fft_size, hop, window)
    for (hann, _, begin), re, im in zip(frames, by_real, by_imaginary, strict=True):
        gradient[begin : begin + fft_size] += hann * (re @ cosines + im @ sines)
    return _unpadded(gradient, fft_size // 2)


def _two_terms(true, pred, weights, floor=0.0):
    """Value and gradient by `pred` of both terms, of what stands for magnitudes."""
    error, size = (np.sqrt(max(np.sum(a**2), 1e-24)) for a in (true - pred, true))
    of_convergence = (pred - true) / (error * size) if error > 1e-12 else 0 * pred
    distance = np.log(pred + floor) - np.log(true + floor)
    slope = weights[0] * of_convergence
    slope = slope + weights[1] * np.sign(distance) / (pred + floor) / pred.size
    return weights[0] * error / size + weights[1] * np.mean(np.abs(distance)), slope


def _channel(y_true, y_pred, fft_size, hop, window, weights, phase):
    """Value and gradient of one channel of one sample."""
    resolution = fft_size, hop, window
    true, true_re, true_im = _magnitudes(y_true, *resolution)
    pred, re, im = _magnitudes(y_pred, *resolution)
    value, slope = _two_terms(true, pred, weights)
    power = np.sum(true**2)
    value += phase * np.sum(true * pred - true_re * re - true_im * im) / power
    slope = (slope + phase * true / power) / pred
    by_parts = (slope * part - phase * own / power for part, own in ((re, true_re), (im, true_im)))
    return value, _back(*by_parts, y_pred, *resolution)


def _emphasised(signal, share):
    return signal - share * np.concatenate([[0], signal[:-1]])


def _emphasised_back(slope, share):
    return slope - share * np.concatenate([slope[1:], [0]])


def _by_channel(function, y_true, y_pred):
    """The mean of `function(y_true, y_pred) -> value, gradient` over the channels."""
    y_true, y_pred = (np.atleast_3d(np.float64(y)) for y in (y_true, y_pred))
    values, gradient = np.zeros(len(y_pred)), np.zeros(y_pred.shape)
    for n, c in np.ndindex(len(y_pred), y_pred.shape[-1]):
        value, slope = function(y_true[n, :, c], y_pred[n, :, c])
        values[n] += value / y_pred.shape[-1]
        gradient[n, :, c] = slope / y_pred.shape[-1]
    return values, gradient


def _after_emphasis(function, share):
    """`function` of two channels that are emphasised first, with the gradient before that."""

    def emphasised(t, x):
        value, slope = function(_emphasised(t, share), _emphasised(x, share))
        return value, _emphasised_back(slope, share)

    return emphasised


def _numbers(weights, phase=0.0):
    found = {"convergence": 1.0, "log_magnitude": 1.0, "phase": phase, **(weights or {})}
    return (found["convergence"], found["log_magnitude"]), found["phase"]


def stft(
    y_true, y_pred, fft_size=1024, hop=256, window=1024, weights=None, pre_emphasis=0.0, phase=0.0
):
    numbers, phase = _numbers(weights, phase)

    def of_channel(t, p):
        return _channel(t, p, fft_size, hop, window, numbers, phase)

    values, gradient = _by_channel(_after_emphasis(of_channel, pre_emphasis), y_true, y_pred)
    return values, gradient.reshape(y_pred.shape)


def multi_resolution_stft(
    y_true,
    y_pred,
    fft_sizes=(1024, 2048, 512),
    hops=(120, 240, 50),
    windows=(600, 1200, 240),
    weights=None,
    pre_emphasis=0.0,
    phase=0.0,
):
    found = [
        stft(y_true, y_pred, *resolution, weights, pre_emphasis, phase)
        for resolution in zip(fft_sizes, hops, windows, strict=True)
    ]
    return tuple(np.mean(parts, axis=0) for parts in zip(*found, strict=True))


def _mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def bands(sample_rate, mels, fft_size, low, high):
    """The bands, `(mels, bins)`, number by number."""
    high, found = high or sample_rate / 2, np.zeros((mels, fft_size // 2 + 1))
    step = (_mel(high) - _mel(low)) / (mels + 1)
    points = [700 * (10 ** ((_mel(low) + k * step) / 2595) - 1) for k in range(mels + 2)]
    for m, k in np.ndindex(found.shape):
        hertz, (begin, peak, end) = k * sample_rate / fft_size, points[m : m + 3]
        if begin < hertz <= peak:
            found[m, k] = (hertz - begin) / (peak - begin)
        elif peak < hertz < end:
            found[m, k] = (end - hertz) / (end - peak)
    return found


def mel_stft(
    y_true,
    y_pred,
    sample_rate=16000,
    mels=80,
    fft_size=1024,
    hop=256,
    window=1024,
    low=0.0,
    high=None,
    weights=None,
):
    filters = bands(sample_rate, mels, fft_size, low, high)
    resolution, (numbers, _) = (fft_size, hop, window), _numbers(weights)

    def of_channel(t, p):
        true, (pred, re, im) = _magnitudes(t, *resolution)[0], _magnitudes(p, *resolution)
        value, slope = _two_terms(true @ filters.T, pred @ filters.T, numbers, floor=1e-5)
        slope = slope @ filters / pred
        return value, _back(slope * re, slope * im, p, *resolution)

    values, gradient = _by_channel(of_channel, y_true, y_pred)
    return values, gradient.reshape(y_pred.shape)


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


def _noise(t, x, zero_mean, epsilon):
    """Minus the ratio of signal to noise in dB of one channel, and its gradient by `x`."""
    if zero_mean:
        t, x = t - t.mean(), x - x.mean()
    error = np.sum((x - t) ** 2) + epsilon
    slope = 20 / np.log(10) * (x - t) / error
    value = 10 * np.log10(error / (np.sum(t**2) + epsilon))
    return value, slope - slope.mean() if zero_mean else slope


def snr(y_true, y_pred, zero_mean=True, epsilon=1e-8):
    values, gradient = _by_channel(lambda t, x: _noise(t, x, zero_mean, epsilon), y_true, y_pred)
    return values, gradient.reshape(y_pred.shape)


def error_to_signal(y_true, y_pred, pre_emphasis=0.0, epsilon=1e-8):
    def of_channel(t, x):
        power = np.sum(t**2) + epsilon
        return np.sum((x - t) ** 2) / power, 2 * (x - t) / power

    values, gradient = _by_channel(_after_emphasis(of_channel, pre_emphasis), y_true, y_pred)
    return values, gradient.reshape(y_pred.shape)
