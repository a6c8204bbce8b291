"""Twins of `combined_losses.losses.regions`: sample by sample, class by class, pixel by pixel."""

import functools

import numpy as np
from scipy import ndimage


def activated(y_pred, from_logits, multilabel=False):
    """The probabilities, and what takes a gradient by them back to one by `y_pred`."""
    z = np.float64(y_pred)
    if not from_logits:
        return z, lambda slope: slope
    if multilabel or z.shape[-1] == 1:
        p = 1 / (1 + np.exp(-z))
        return p, lambda slope: slope * p * (1 - p)
    p = np.exp(z - z.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    return p, lambda slope: p * (slope - np.sum(p * slope, axis=-1, keepdims=True))


def _ratio(n, d):
    """n / d, 0 where d is not above 0, and the slopes by n and by d."""
    return (n / d, 1 / d, -n / d**2) if d > 0 else (0.0, 0.0, 0.0)


def _counted(y_true, ignore_value):
    if ignore_value is None:
        return np.ones(y_true.shape, bool)
    return ~np.isnan(y_true) if np.isnan(ignore_value) else y_true != ignore_value


def of_the_batch(twin):
    """The twin of a loss that counts pixels, also with `over="batch"`: all pixels as one sample.

    Its last argument `weight` has a number for each entry.
    """

    @functools.wraps(twin)
    def measure(y_true, y_pred, *args, over="sample", sample_weight=None, **arguments):
        if over == "sample":
            return twin(y_true, y_pred, *args, **arguments, weight=np.ones(y_true.shape))
        samples = len(y_true)
        own = np.ones(samples) if sample_weight is None else np.float64(sample_weight)
        weight = np.broadcast_to(own.reshape(-1, *[1] * (y_true.ndim - 1)), y_true.shape)
        joined = [np.reshape(a, (1, -1, y_true.shape[-1])) for a in (y_true, y_pred, weight)]
        values, slope = twin(*joined[:2], *args, **arguments, weight=joined[2])
        # Every sample is given the number, so the gradient of their sum is that many times its own.
        return np.full(samples, values[0]), samples * slope.reshape(y_pred.shape)

    return measure


def _channels(number, include_background=True, classes=None):
    if classes is not None:
        return classes
    return range(0 if include_background or number == 1 else 1, number)


def _counts(y, p, weight, power=1):
    """TP, FP, FN and TN of one sample and class, in a loop over its pixels."""
    tp = fp = fn = tn = 0.0
    for pixel in np.ndindex(*p.shape):
        if weight[pixel] > 0:
            tp += weight[pixel] * p[pixel] * y[pixel]
            fp += weight[pixel] * p[pixel] ** power * (1 - y[pixel])
            fn += weight[pixel] * (1 - p[pixel]) ** power * y[pixel]
            tn += weight[pixel] * (1 - p[pixel]) * (1 - y[pixel])
    return tp, fp, fn, tn


def _by_pixel(y, p, weight, slopes, power=1):
    """The slopes by the probabilities, from those by the counts."""
    by_tp, by_fp, by_fn, by_tn = slopes
    alarm = by_fp * power * p ** (power - 1) * (1 - y)
    missed = by_fn * power * (1 - p) ** (power - 1) * y
    return np.where(weight > 0, weight * (by_tp * y + alarm - missed - by_tn * (1 - y)), 0.0)


def _logarithm(value, log):
    """A loss or minus the logarithm of what it leaves, and its slope by the loss."""
    if not log:
        return value, 1.0
    left = 1 - value
    if left < 1e-7:
        return -(np.log(1e-7) + (left - 1e-7) / 1e-7), 1e7
    return -np.log(left), 1 / left


def _overlap(
    of_counts,
    y_true,
    y_pred,
    class_weight=None,
    include_background=True,
    from_logits=False,
    ignore_value=None,
    multilabel=False,
    power=1,
    log=False,
    classes=None,
    weight=None,
):
    """`of_counts(tp, fp, fn, tn)` gives a value and its four slopes."""
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    channels = _channels(p.shape[-1], include_background, classes)
    price = {c: 1.0 if class_weight is None else class_weight[c] for c in channels}
    for n in range(len(p)):
        for c in channels:
            share, own = price[c] / sum(price.values()), (n, ..., c)
            y, counted = y_true[own], weight[own] * _counted(y_true[own], ignore_value)
            value, *slopes = of_counts(*_counts(y, p[own], counted, power))
            value, steeper = _logarithm(value, log)
            values[n] += share * value
            slope[own] = share * steeper * _by_pixel(y, p[own], counted, slopes, power)
    return values, back(slope)


def _index(tp, fp, fn, fp_weight, fn_weight, smooth):
    wrong = fp_weight * fp + fn_weight * fn
    value, by_n, by_d = _ratio(wrong, tp + wrong + smooth)
    return value, by_d, fp_weight * (by_n + by_d), fn_weight * (by_n + by_d), 0.0


@of_the_batch
def dice(y_true, y_pred, smooth=1.0, **arguments):
    def of_counts(tp, fp, fn, tn):
        value, by_n, by_d = _ratio(fp + fn, 2 * tp + fp + fn + smooth)
        return value, 2 * by_d, by_n + by_d, by_n + by_d, 0.0

    return _overlap(of_counts, y_true, y_pred, **arguments)


def jaccard(y_true, y_pred, smooth=1.0, **arguments):
    return tversky(y_true, y_pred, 1.0, 1.0, smooth, **arguments)


@of_the_batch
def tversky(y_true, y_pred, fp_weight=0.5, fn_weight=0.5, smooth=1.0, **arguments):
    def of_counts(tp, fp, fn, tn):
        return _index(tp, fp, fn, fp_weight, fn_weight, smooth)

    return _overlap(of_counts, y_true, y_pred, **arguments)


@of_the_batch
def focal_tversky(
    y_true, y_pred, gamma=0.75, fp_weight=0.3, fn_weight=0.7, smooth=1.0, **arguments
):
    def of_counts(tp, fp, fn, tn):
        x, *slopes = _index(tp, fp, fn, fp_weight, fn_weight, smooth)
        factor = 1e-6 ** (gamma - 1) if x < 1e-6 else gamma * x ** (gamma - 1)
        value = x * factor if x < 1e-6 else x**gamma
        return value, *(factor * slope for slope in slopes)

    return _overlap(of_counts, y_true, y_pred, **arguments)


@of_the_batch
def matthews_correlation(y_true, y_pred, smooth=1.0, **arguments):
    def of_counts(tp, fp, fn, tn):
        a, d = tp + smooth, tn + smooth
        sides = [a + fp, a + fn, d + fp, d + fn]
        if min(sides) <= 0:
            return float(sum(sides) > 0), 0.0, 0.0, 0.0, 0.0
        root = np.prod(np.sqrt(sides))
        phi = (a * d - fp * fn) / root
        # d phi / dx = dN / dx / root - phi / 2 * (the sum of 1 / side over the sides with x)
        inverse = [phi / 2 / side for side in sides]
        by_tp = d / root - inverse[0] - inverse[1]
        by_fp = -fn / root - inverse[0] - inverse[2]
        by_fn = -fp / root - inverse[1] - inverse[3]
        by_tn = a / root - inverse[2] - inverse[3]
        return 1 - phi, -by_tp, -by_fp, -by_fn, -by_tn

    return _overlap(of_counts, y_true, y_pred, **arguments)


def _class_weights(sizes, weighting):
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    present = [1 / size**power for size in sizes if size > 0]
    weights = [1 / size**power if size > 0 else max(present, default=1.0) for size in sizes]
    return [weight / sum(weights) for weight in weights]


@of_the_batch
def generalized_dice(
    y_true,
    y_pred,
    weighting="square",
    smooth=1.0,
    include_background=True,
    from_logits=False,
    ignore_value=None,
    multilabel=False,
    power=1,
    log=False,
    classes=None,
    weight=None,
):
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    channels = _channels(p.shape[-1], include_background, classes)
    for n in range(len(p)):
        counted = weight[n] * _counted(y_true[n], ignore_value)
        own = [(y_true[n, ..., c], p[n, ..., c], counted[..., c]) for c in channels]
        counts = [_counts(*each, power)[:3] for each in own]
        sizes = [np.sum(np.where(w > 0, w * y, 0)) for y, _, w in own]
        shares = _class_weights(sizes, weighting)
        wrong = sum(w * (fp + fn) for w, (_, fp, fn) in zip(shares, counts, strict=True))
        total = wrong + sum(w * 2 * tp for w, (tp, _, _) in zip(shares, counts, strict=True))
        value, by_n, by_d = _ratio(wrong, total + smooth)
        values[n], steeper = _logarithm(value, log)
        for c, w, each in zip(channels, shares, own, strict=True):
            slopes = 2 * w * by_d, w * (by_n + by_d), w * (by_n + by_d), 0.0
            slope[n, ..., c] = steeper * _by_pixel(*each, slopes, power)
    return values, back(slope)


def _lovasz(errors, truth, weight):
    """The value of one sample and class, and the slope by every error: both from the set function.

    The k largest errors are one set of wrong pixels; its Jaccard loss is what is not found of the
    truth, plus what is wrongly added, over the union of truth and additions.
    """
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    value, before, slope, wrong = 0.0, 0.0, np.zeros(len(errors)), []
    size = sum(weight * truth)
    for i in order:
        wrong.append(i)
        missed = sum(weight[k] * truth[k] for k in wrong)
        added = sum(weight[k] * (1 - truth[k]) for k in wrong)
        jaccard = (missed + added) / (size + added)
        if errors[i] > 0:
            value += errors[i] * (jaccard - before)
            slope[i] = jaccard - before
        before = jaccard
    return value, slope


@of_the_batch
def lovasz_hinge(y_true, y_pred, ignore_value=None, weight=None):
    y_true, z = np.float64(y_true), np.float64(y_pred)
    values, slope = np.zeros(len(z)), np.zeros(z.shape)
    for n, c in np.ndindex(len(z), z.shape[-1]):
        y, own = y_true[n, ..., c], weight[n, ..., c]
        counted = _counted(y, ignore_value) & (own > 0)
        sign = 2 * y[counted] - 1
        error = 1 - z[n, ..., c][counted] * sign
        value, by_error = _lovasz(error, y[counted], own[counted])
        values[n] += value / z.shape[-1]
        slope[n, ..., c][counted] = -sign * by_error / z.shape[-1]
    return values, slope


@of_the_batch
def lovasz_softmax(
    y_true, y_pred, from_logits=False, ignore_value=None, multilabel=False, weight=None
):
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    for n in range(len(p)):
        counted = _counted(y_true[n], ignore_value) & (weight[n] > 0)
        sizes = np.where(counted, y_true[n], 0).reshape(-1, p.shape[-1]).sum(axis=0)
        every = multilabel or p.shape[-1] == 1
        used = [c for c in range(p.shape[-1]) if every or sizes[c] > 0]
        for c in used:
            y, own = y_true[n, ..., c], counted[..., c]
            errors = np.abs(y - p[n, ..., c])[own]
            value, by_error = _lovasz(errors, y[own], weight[n, ..., c][own])
            values[n] += value / len(used)
            slope[n, ..., c][own] = np.sign(p[n, ..., c] - y)[own] * by_error / len(used)
    return values, back(slope)


def _erode(x):
    """The least of every pixel and its neighbours along the spatial axes."""
    cross = ndimage.generate_binary_structure(x.ndim - 2, 1)[None, ..., None]
    return ndimage.minimum_filter(x, footprint=cross, mode="constant", cval=np.inf)


def _open(x):
    size = (1, *[3] * (x.ndim - 2), 1)
    return ndimage.maximum_filter(_erode(x), size=size, mode="constant", cval=-np.inf)


def skeleton(x, iterations):
    x = np.float64(x)
    line = np.maximum(x - _open(x), 0)
    for _ in range(iterations):
        x = _erode(x)
        d = np.maximum(x - _open(x), 0)
        line = line + np.maximum(d - line * d, 0)
    return line


def centerline_dice(
    y_true,
    y_pred,
    iterations=3,
    smooth=1.0,
    from_logits=False,
    ignore_value=None,
    multilabel=False,
    over="sample",
    sample_weight=None,
    step=1e-6,
):
    """The gradient by central differences in float64: the data must have no ties."""
    y = np.float64(y_true)
    counted = np.float64(_counted(y, ignore_value))
    if over == "batch" and sample_weight is not None:
        counted = counted * np.float64(sample_weight).reshape(-1, *[1] * (y.ndim - 1))
    y = np.where(counted > 0, y, 0)
    axes = tuple(range(0 if over == "batch" else 1, y.ndim - 1))

    def measure(z):
        p = np.where(counted > 0, activated(z, from_logits, multilabel)[0], 0)
        line_p, line_y = (skeleton(mask, iterations) * counted for mask in (p, y))
        precision = ((line_p * y).sum(axes) + smooth) / (line_p.sum(axes) + smooth)
        recall = ((line_y * p).sum(axes) + smooth) / (line_y.sum(axes) + smooth)
        value = np.mean(1 - 2 * precision * recall / (precision + recall), axis=-1)
        return np.broadcast_to(value, (len(y),))

    z, gradient = np.float64(y_pred), np.zeros(y_pred.shape)
    samples = range(len(z)) if over == "batch" else [slice(None)]  # which do not see each other
    for n in samples:
        for pixel in np.ndindex(*z.shape[1:]):
            shift = np.zeros(z.shape)
            shift[n, *pixel] = step
            change = (measure(z + shift) - measure(z - shift)) / (2 * step)
            gradient[n, *pixel] = change.sum() if over == "batch" else change
    return measure(z), gradient
