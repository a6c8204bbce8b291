"""Twins of `combined_losses.losses.images`: the formulas, window by window."""

import numpy as np


def _window(size, sigma, axes=2):
    places = np.indices([size] * axes) - (size - 1) / 2
    window = np.exp(-np.sum(places**2, axis=0) / (2 * sigma**2))
    return window / window.sum()


def over_windows(y_true, y_pred, window, at, counts=None):
    """What a function of two windows and their factors gives, averaged, and the gradient.

    Args:
        y_true, y_pred: `(batch, spatial..., channels)`.
        window: the factors, of one size along each spatial axis.
        at: of two windows and their factors, which sum to 1, the value and its slopes.
        counts: how much each pixel and channel counts; None: 1.
    """
    y, p = np.float64(y_true), np.float64(y_pred)
    m = np.ones(p.shape) if counts is None else np.float64(counts)
    y, p = np.where(m > 0, y, 0.0), np.where(m > 0, p, 0.0)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    size, total = len(window), np.zeros(len(p))
    places = [side - size + 1 for side in p.shape[1:-1]]
    for n, *corner, c in np.ndindex(len(p), *places, p.shape[-1]):
        here = (n, *(slice(i, i + size) for i in corner), c)
        factors = window * m[here]
        seen = factors.sum()
        if seen > 1e-6 * m[n].max():
            value, slope = at(y[here], p[here], factors / seen)
            values[n] += seen * value
            gradient[here] += seen * slope
            total[n] += seen
    total[total == 0] = 1.0
    return values / total, gradient / total.reshape(-1, *[1] * (p.ndim - 1))


def _at_a_position(y, p, window, c1, c2):
    """Luminance and contrast-structure of one window and one channel, and their slopes by `p`."""
    my, mp = np.sum(window * y), np.sum(window * p)
    vy, vp = np.sum(window * (y - my) ** 2), np.sum(window * (p - mp) ** 2)
    covariance = np.sum(window * (y - my) * (p - mp))
    of_means, of_variances = my**2 + mp**2 + c1, vy + vp + c2
    luminance = (2 * my * mp + c1) / of_means
    structure = (2 * covariance + c2) / of_variances
    # d mp = window, d vp = 2 window (p - mp) and d cov = window (y - my), by each pixel of p.
    by_luminance = window * (2 * my - luminance * 2 * mp) / of_means
    by_structure = window * (2 * (y - my) - structure * 2 * (p - mp)) / of_variances
    return luminance, structure, by_luminance, by_structure


def _similarity(y, p, window, c1, c2, whole):
    """The mean SSIM of one channel, or of its structure alone, and the gradient by `p`."""
    size = len(window)
    rows, columns = y.shape[0] - size + 1, y.shape[1] - size + 1
    total, slope = 0.0, np.zeros(p.shape)
    for i, j in np.ndindex(rows, columns):
        here = slice(i, i + size), slice(j, j + size)
        luminance, cs, by_luminance, by_cs = _at_a_position(y[here], p[here], window, c1, c2)
        total += luminance * cs if whole else cs
        slope[here] += luminance * by_cs + cs * by_luminance if whole else by_cs
    return total / (rows * columns), slope / (rows * columns)


def _constants(max_value, k1, k2):
    return (k1 * max_value) ** 2, (k2 * max_value) ** 2


def ssim(
    y_true,
    y_pred,
    max_value=1.0,
    filter_size=11,
    filter_sigma=1.5,
    k1=0.01,
    k2=0.03,
    ignore_value=None,
    counts=None,
):
    constants = _constants(max_value, k1, k2)
    window = _window(filter_size, filter_sigma, np.ndim(y_pred) - 2)
    if ignore_value is not None:
        counts = (y_true != ignore_value) * (1.0 if counts is None else counts)

    def at(y, p, factors):
        luminance, cs, by_luminance, by_cs = _at_a_position(y, p, factors, *constants)
        return 1 - luminance * cs, -(luminance * by_cs + cs * by_luminance)

    return over_windows(y_true, y_pred, window, at, counts)


FIVE = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _halved(image):
    """Means of 2 x 2 pixels, of those that are there; and the way back of a gradient."""
    halves = tuple((side + 1) // 2 for side in image.shape)
    places = list(np.ndindex(*halves))
    half, shape = np.zeros(halves), image.shape
    for i, j in places:
        half[i, j] = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean()

    def back(slope):
        whole = np.zeros(shape)
        for i, j in places:
            cell = whole[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            cell += slope[i, j] / cell.size
        return whole

    return half, back


def _multi_scale(y, p, powers, window, c1, c2):
    """The product of one channel, and its gradient by `p`."""
    similarities, slopes, ways_back = [], [], []
    for scale in range(len(powers)):
        last = scale == len(powers) - 1
        similarity, slope = _similarity(y, p, window, c1, c2, last)
        for back in ways_back[::-1]:
            slope = back(slope)
        floored = similarity < 1e-6
        similarities.append(1e-6 if floored else similarity)
        slopes.append(np.zeros(slope.shape) if floored else slope)
        if not last:
            (y, _), (p, back) = _halved(y), _halved(p)
            ways_back.append(back)
    product = np.prod(np.power(similarities, powers))
    terms = zip(powers, similarities, slopes, strict=True)
    return product, sum(product * power / s * slope for power, s, slope in terms)


def multi_scale_ssim(
    y_true,
    y_pred,
    max_value=1.0,
    power_factors=FIVE,
    filter_size=11,
    filter_sigma=1.5,
    k1=0.01,
    k2=0.03,
):
    y, p = np.float64(y_true), np.float64(y_pred)
    window, constants = _window(filter_size, filter_sigma), _constants(max_value, k1, k2)
    values, gradient = np.ones(len(p)), np.zeros(p.shape)
    channels = p.shape[-1]
    for n, c in np.ndindex(len(p), channels):
        pair = y[n, ..., c], p[n, ..., c]
        product, slope = _multi_scale(*pair, power_factors, window, *constants)
        values[n] -= product / channels
        gradient[n, ..., c] = -slope / channels
    return values, gradient


def total_variation(y_true, y_pred):
    """Pair by pair of neighbours."""
    p = np.float64(y_pred)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    for axis in range(1, p.ndim - 1):
        pairs = p[0].size // p.shape[axis] * (p.shape[axis] - 1)
        for here in np.ndindex(*p.shape):
            if here[axis] + 1 == p.shape[axis]:
                continue
            ahead = (*here[:axis], here[axis] + 1, *here[axis + 1 :])
            step = p[ahead] - p[here]
            values[here[0]] += abs(step) / pairs
            gradient[ahead] += np.sign(step) / pairs
            gradient[here] -= np.sign(step) / pairs
    return values, gradient


def peak_signal_to_noise(y_true, y_pred, max_value=1.0):
    y, p = np.float64(y_true), np.float64(y_pred)
    values, gradient = np.zeros(len(p)), np.zeros(p.shape)
    for n in range(len(p)):
        ratio = np.mean((p[n] - y[n]) ** 2) / max_value**2 + 1e-10
        values[n] = 10 * np.log10(ratio)
        by_ratio = 10 / (np.log(10) * ratio)
        gradient[n] = by_ratio * 2 * (p[n] - y[n]) / (p[n].size * max_value**2)
    return values, gradient


def focal_frequency(y_true, y_pred, alpha=1.0):
    """Frequency by frequency, each as a sum over the pixels."""
    difference = np.float64(y_pred) - np.float64(y_true)
    values, gradient = np.zeros(len(difference)), np.zeros(difference.shape)
    _, height, width, channels = difference.shape
    row, column = np.indices((height, width))
    for n, c in np.ndindex(len(difference), channels):
        image, spectrum = difference[n, ..., c], np.zeros((height, width), complex)
        for u, v in np.ndindex(height, width):
            waves = np.exp(-2j * np.pi * (u * row / height + v * column / width))
            spectrum[u, v] = np.sum(image * waves) / np.sqrt(height * width)
        largest = np.abs(spectrum).max()
        weight = (np.abs(spectrum) / largest) ** alpha if largest else np.zeros((height, width))
        scale = 1 / (height * width * channels)
        values[n] += scale * np.sum(weight * np.abs(spectrum) ** 2)
        for u, v in np.ndindex(height, width):
            # d |F|^2 = 2 Re(conj(F) dF)
            waves = np.exp(-2j * np.pi * (u * row / height + v * column / width))
            by = np.real(np.conj(spectrum[u, v]) * waves) / np.sqrt(height * width)
            gradient[n, ..., c] += 2 * scale * weight[u, v] * by
    return values, gradient
