"""Twins of `combined_losses.losses.boxes`: box by box, with numbers that carry their gradient."""

import dataclasses
import math

import numpy as np

from tests.oracles.classification import _log


@dataclasses.dataclass(frozen=True)
class Number:
    """A number and its derivatives by the four numbers of the predicted box."""

    value: float
    slope: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(4))

    def __add__(self, other):
        return Number(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other):
        return Number(self.value - other.value, self.slope - other.slope)

    def __mul__(self, other):
        slope = self.slope * other.value + self.value * other.slope
        return Number(self.value * other.value, slope)

    def __truediv__(self, other):
        quotient = self.value / other.value
        return Number(quotient, (self.slope - quotient * other.slope) / other.value)


ONE, HALF = Number(1.0), Number(0.5)


def largest(a, b):
    """The larger one; in between where they are the same."""
    if a.value == b.value:
        return Number(a.value, (a.slope + b.slope) / 2)
    return a if a.value > b.value else b


def smallest(a, b):
    return Number(0.0) - largest(Number(0.0) - a, Number(0.0) - b)


def at_least(a, floor):
    return a if a.value > floor else Number(floor)


def size_of(a):
    """The magnitude; its slope at 0 is 0."""
    return Number(abs(a.value), np.sign(a.value) * a.slope)


def exp(a):
    return Number(math.exp(a.value), math.exp(a.value) * a.slope)


def power(a, exponent):
    if a.value == 0:
        return Number(0.0)
    return Number(a.value**exponent, exponent * a.value ** (exponent - 1) * a.slope)


def corners(box, format):
    """`x1, y1, x2, y2` of four numbers."""
    a, b, c, d = box
    return {
        "xyxy": (a, b, c, d),
        "yxyx": (b, a, d, c),
        "xywh": (a, b, a + c, b + d),
        "center_xywh": (a - HALF * c, b - HALF * d, a + HALF * c, b + HALF * d),
    }[format]


def sides(box):
    x1, y1, x2, y2 = box
    return x2 - x1, y2 - y1


def area(box):
    width, height = sides(box)
    return at_least(width, 0.0) * at_least(height, 0.0)


def shared(true, pred):
    lows = [largest(t, p) for t, p in zip(true[:2], pred[:2], strict=True)]
    highs = [smallest(t, p) for t, p in zip(true[2:], pred[2:], strict=True)]
    return (*lows, *highs)


def enclosing(true, pred):
    lows = [smallest(t, p) for t, p in zip(true[:2], pred[:2], strict=True)]
    highs = [largest(t, p) for t, p in zip(true[2:], pred[2:], strict=True)]
    return (*lows, *highs)


def union(true, pred):
    return area(true) + area(pred) - area(shared(true, pred))


def overlap(true, pred):
    return area(shared(true, pred)) / at_least(union(true, pred), 1e-12)


def ways_between(true, pred):
    return [HALF * (pred[i] + pred[i + 2]) - HALF * (true[i] + true[i + 2]) for i in (0, 1)]


def spans_of(box):
    return [at_least(side, 0.0) for side in sides(box)]


def distance(true, pred):
    """The squared distance of the centres, as a share of that of the farthest corners."""
    ways, spans = ways_between(true, pred), spans_of(enclosing(true, pred))
    squares = spans[0] * spans[0] + spans[1] * spans[1]
    return (ways[0] * ways[0] + ways[1] * ways[1]) / at_least(squares, 1e-12)


def angle(box):
    width, height = (at_least(side, 1e-7) for side in sides(box))
    squares = width.value**2 + height.value**2
    slope = (height.value * width.slope - width.value * height.slope) / squares
    return Number(math.atan2(width.value, height.value), slope)


def loss_of_iou(true, pred):
    return ONE - overlap(true, pred)


def loss_of_giou(true, pred):
    whole = area(enclosing(true, pred))
    return ONE - overlap(true, pred) + (whole - union(true, pred)) / at_least(whole, 1e-12)


def loss_of_diou(true, pred):
    return ONE - overlap(true, pred) + distance(true, pred)


def loss_of_ciou(true, pred):
    difference = angle(true) - angle(pred)
    v = Number(4 / math.pi**2) * difference * difference
    alpha = v.value / max(1 - overlap(true, pred).value + v.value, 1e-12)
    return loss_of_diou(true, pred) + Number(alpha) * v


def loss_of_eiou(true, pred):
    found = loss_of_diou(true, pred)
    spans = zip(spans_of(true), spans_of(pred), spans_of(enclosing(true, pred)), strict=True)
    for t, p, whole in spans:
        found = found + (t - p) * (t - p) / at_least(whole * whole, 1e-12)
    return found


def loss_of_siou(true, pred, theta=4.0):
    dx, dy = ways_between(true, pred)
    g = Number(2.0) - Number(2.0) * size_of(dx * dy) / at_least(dx * dx + dy * dy, 1e-12)
    found, zero = Number(0.0), Number(0.0)
    for way, whole in zip((dx, dy), spans_of(enclosing(true, pred)), strict=True):
        found = found + ONE - exp(zero - g * way * way / at_least(whole * whole, 1e-12))
    for t, p in zip(spans_of(true), spans_of(pred), strict=True):
        unlike = size_of(t - p) / at_least(largest(t, p), 1e-12)
        found = found + power(ONE - exp(zero - unlike), theta)
    return ONE - overlap(true, pred) + HALF * found


def _twin(loss):
    def twin(y_true, y_pred, format="xyxy", **arguments):
        values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
        for index in np.ndindex(*values.shape):
            true = [Number(float(number)) for number in y_true[index]]
            pred = [
                Number(float(number), slope)
                for number, slope in zip(y_pred[index], np.eye(4), strict=True)
            ]
            found = loss(corners(true, format), corners(pred, format), **arguments)
            values[index], gradient[index] = found.value, found.slope
        return values, gradient

    return twin


iou, giou, diou, ciou = map(_twin, (loss_of_iou, loss_of_giou, loss_of_diou, loss_of_ciou))
eiou, siou = map(_twin, (loss_of_eiou, loss_of_siou))


def distribution_focal(y_true, y_pred, low=0.0, high=None, from_logits=False):
    """Cross-entropy with the two bins around each target."""
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    y_true = np.reshape(y_true, values.shape)
    last = y_pred.shape[-1] - 1
    high = last if high is None else high
    for index in np.ndindex(*values.shape):
        place = min(max((float(y_true[index]) - low) / (high - low) * last, 0.0), last)
        first, row = min(math.floor(place), last - 1), np.float64(y_pred[index])
        shares = {first: first + 1 - place, first + 1: place - first}
        for k, share in shares.items():
            if from_logits:
                values[index] += share * (
                    np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[k]
                )
                gradient[index] += share * np.exp(row - row.max()) / np.exp(row - row.max()).sum()
                gradient[index][k] -= share
            else:
                log, slope = _log(row[k])
                values[index] -= share * log
                gradient[index][k] -= share * slope
    return values, gradient
