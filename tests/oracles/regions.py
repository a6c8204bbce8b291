"""Twins of `combined_losses.losses.regions`: sample by sample, class by class, pixel by pixel."""

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


def _first(channels, include_background):
    return 0 if include_background or channels == 1 else 1


def _counts(y, p, counted):
    """TP, FP and FN of one sample and class, in a loop over its pixels."""
    tp = fp = fn = 0.0
    for pixel in np.ndindex(*p.shape):
        if counted[pixel]:
            tp += p[pixel] * y[pixel]
            fp += p[pixel] * (1 - y[pixel])
            fn += (1 - p[pixel]) * y[pixel]
    return tp, fp, fn


def _by_pixel(y, counted, by_tp, by_fp, by_fn):
    """The slopes by the probabilities, from those by the counts."""
    return np.where(counted, by_tp * y + by_fp * (1 - y) - by_fn * y, 0.0)


def _overlap(
    of_counts,
    y_true,
    y_pred,
    class_weight=None,
    include_background=True,
    from_logits=False,
    ignore_value=None,
    multilabel=False,
):
    """`of_counts(tp, fp, fn)` gives a value and its three slopes."""
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    channels = range(_first(p.shape[-1], include_background), p.shape[-1])
    price = {c: 1.0 if class_weight is None else class_weight[c] for c in channels}
    for n in range(len(p)):
        for c in channels:
            share = price[c] / sum(price.values())
            y, counted = y_true[n, ..., c], _counted(y_true[n, ..., c], ignore_value)
            value, *slopes = of_counts(*_counts(y, p[n, ..., c], counted))
            values[n] += share * value
            slope[n, ..., c] = share * _by_pixel(y, counted, *slopes)
    return values, back(slope)


def _index(tp, fp, fn, fp_weight, fn_weight, smooth):
    wrong = fp_weight * fp + fn_weight * fn
    value, by_n, by_d = _ratio(wrong, tp + wrong + smooth)
    return value, by_d, fp_weight * (by_n + by_d), fn_weight * (by_n + by_d)


def dice(y_true, y_pred, smooth=1.0, **arguments):
    def of_counts(tp, fp, fn):
        value, by_n, by_d = _ratio(fp + fn, 2 * tp + fp + fn + smooth)
        return value, 2 * by_d, by_n + by_d, by_n + by_d

    return _overlap(of_counts, y_true, y_pred, **arguments)


def jaccard(y_true, y_pred, smooth=1.0, **arguments):
    return tversky(y_true, y_pred, 1.0, 1.0, smooth, **arguments)


def tversky(y_true, y_pred, fp_weight=0.5, fn_weight=0.5, smooth=1.0, **arguments):
    def of_counts(*counts):
        return _index(*counts, fp_weight, fn_weight, smooth)

    return _overlap(of_counts, y_true, y_pred, **arguments)


def focal_tversky(
    y_true, y_pred, gamma=0.75, fp_weight=0.3, fn_weight=0.7, smooth=1.0, **arguments
):
    def of_counts(*counts):
        x, *slopes = _index(*counts, fp_weight, fn_weight, smooth)
        factor = 1e-6 ** (gamma - 1) if x < 1e-6 else gamma * x ** (gamma - 1)
        value = x * factor if x < 1e-6 else x**gamma
        return value, *(factor * slope for slope in slopes)

    return _overlap(of_counts, y_true, y_pred, **arguments)


def _class_weights(sizes, weighting):
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    present = [1 / size**power for size in sizes if size > 0]
    weights = [1 / size**power if size > 0 else max(present, default=1.0) for size in sizes]
    return [weight / sum(weights) for weight in weights]


def generalized_dice(
    y_true,
    y_pred,
    weighting="square",
    smooth=1.0,
    include_background=True,
    from_logits=False,
    ignore_value=None,
    multilabel=False,
):
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    channels = range(_first(p.shape[-1], include_background), p.shape[-1])
    for n in range(len(p)):
        counted = _counted(y_true[n], ignore_value)
        counts = [_counts(y_true[n, ..., c], p[n, ..., c], counted[..., c]) for c in channels]
        weights = _class_weights([tp + fn for tp, _, fn in counts], weighting)
        pairs = list(zip(weights, counts, strict=True))
        wrong = sum(w * (fp + fn) for w, (tp, fp, fn) in pairs)
        total = sum(w * (2 * tp + fp + fn) for w, (tp, fp, fn) in pairs)  # w (sum p + sum y)
        values[n], by_n, by_d = _ratio(wrong, total + smooth)
        for c, w in zip(channels, weights, strict=True):
            slopes = 2 * w * by_d, w * (by_n + by_d), w * (by_n + by_d)
            slope[n, ..., c] = _by_pixel(y_true[n, ..., c], counted[..., c], *slopes)
    return values, back(slope)


def _lovasz(errors, truth):
    """The value of one sample and class, and the slope by every error: both from the set function.

    The k largest errors are one set of wrong pixels; its Jaccard loss is what is not found of the
    truth, plus what is wrongly added, over the union of truth and additions.
    """
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    value, before, slope, wrong = 0.0, 0.0, np.zeros(len(errors)), []
    for i in order:
        wrong.append(i)
        missed, added = sum(truth[k] for k in wrong), sum(1 - truth[k] for k in wrong)
        jaccard = (missed + added) / (sum(truth) + added)
        if errors[i] > 0:
            value += errors[i] * (jaccard - before)
            slope[i] = jaccard - before
        before = jaccard
    return value, slope


def lovasz_hinge(y_true, y_pred, ignore_value=None):
    y_true, z = np.float64(y_true), np.float64(y_pred)
    values, slope = np.zeros(len(z)), np.zeros(z.shape)
    for n, c in np.ndindex(len(z), z.shape[-1]):
        y, counted = y_true[n, ..., c], _counted(y_true[n, ..., c], ignore_value)
        sign = 2 * y[counted] - 1
        value, by_error = _lovasz(1 - z[n, ..., c][counted] * sign, y[counted])
        values[n] += value / z.shape[-1]
        slope[n, ..., c][counted] = -sign * by_error / z.shape[-1]
    return values, slope


def lovasz_softmax(y_true, y_pred, from_logits=False, ignore_value=None, multilabel=False):
    y_true = np.float64(y_true)
    p, back = activated(y_pred, from_logits, multilabel)
    values, slope = np.zeros(len(p)), np.zeros(p.shape)
    for n in range(len(p)):
        counted = _counted(y_true[n], ignore_value)
        sizes = np.where(counted, y_true[n], 0).reshape(-1, p.shape[-1]).sum(axis=0)
        used = [c for c in range(p.shape[-1]) if p.shape[-1] == 1 or sizes[c] > 0]
        for c in used:
            y, own = y_true[n, ..., c], counted[..., c]
            value, by_error = _lovasz(np.abs(y - p[n, ..., c])[own], y[own])
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
    step=1e-6,
):
    """The gradient by central differences in float64: the data must have no ties."""
    y = np.float64(y_true)
    counted = _counted(y, ignore_value)
    y = np.where(counted, y, 0)
    axes = tuple(range(1, y.ndim - 1))

    def measure(z):
        p = np.where(counted, activated(z, from_logits, multilabel)[0], 0)
        line_p, line_y = skeleton(p, iterations), skeleton(y, iterations)
        precision = ((line_p * y).sum(axes) + smooth) / (line_p.sum(axes) + smooth)
        recall = ((line_y * p).sum(axes) + smooth) / (line_y.sum(axes) + smooth)
        return np.mean(1 - 2 * precision * recall / (precision + recall), axis=-1)

    z, gradient = np.float64(y_pred), np.zeros(y_pred.shape)
    for pixel in np.ndindex(*z.shape[1:]):  # the samples do not see each other: all at once
        shift = np.zeros(z.shape)
        shift[:, *pixel] = step
        gradient[:, *pixel] = (measure(z + shift) - measure(z - shift)) / (2 * step)
    return measure(z), gradient
