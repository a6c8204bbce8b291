"""What the losses of pixel counts claim: limits, slopes without an object, classes, extremes."""

from fractions import Fraction

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.losses.compiled import slope, values
from tests.messages import raises

Dice, Jaccard, Tversky = cl.losses.Dice, cl.losses.Jaccard, cl.losses.Tversky
FocalTversky, Generalized = cl.losses.FocalTversky, cl.losses.GeneralizedDice

RNG = np.random.default_rng(0)
Y_TRUE = np.eye(3, dtype="float32")[RNG.permuted(np.tile(np.arange(20) % 3, (4, 1)), axis=1)]
Y_TRUE = Y_TRUE.reshape(4, 4, 5, 3)
Y_PRED = RNG.dirichlet([1.0, 1.0, 1.0], (4, 4, 5)).astype("float32")
MASK, SHARE = Y_TRUE[..., 1:2], Y_PRED[..., 1:2]  # of one class

CLASSES = {c.__name__: c for c in (Dice, Jaccard, Tversky, FocalTversky, Generalized)}
every = pytest.mark.parametrize("loss", CLASSES.values(), ids=CLASSES)
CLASSWISE = [c for c in CLASSES.values() if c is not Generalized]
classwise = pytest.mark.parametrize("loss", CLASSWISE, ids=lambda c: c.__name__)


def close(actual, expected, rtol=5e-6, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def same(one, other, y_true=Y_TRUE, y_pred=Y_PRED):
    """Two losses, `(class, arguments)`, agree in values and slopes."""
    (a, a_arguments), (b, b_arguments) = one, other
    close(values(a, y_true, y_pred, **a_arguments), values(b, y_true, y_pred, **b_arguments))
    slopes = [slope(c, y_true, y_pred, **kwargs) for c, kwargs in (one, other)]
    close(*slopes, rtol=2e-5)


# Limits.


@pytest.mark.parametrize("smooth", [0.0, 1e-5, 0.7, 30.0])
def test_the_family_has_two_members_with_names(smooth):
    """Twice the counts, and so twice the smoothing, is Dice."""
    halves = {"fp_weight": 0.5, "fn_weight": 0.5, "smooth": smooth}
    same((Tversky, halves), (Dice, {"smooth": 2 * smooth}))
    ones = {"fp_weight": 1.0, "fn_weight": 1.0, "smooth": smooth}
    same((Tversky, ones), (Jaccard, {"smooth": smooth}))


@pytest.mark.parametrize("prices", [(0.3, 0.7), (2.0, 0.1)])
def test_a_power_of_1_is_no_power(prices):
    arguments = dict(zip(("fp_weight", "fn_weight"), prices, strict=True))
    same((FocalTversky, {"gamma": 1.0, **arguments}), (Tversky, arguments))


@pytest.mark.parametrize("loss", [Dice, Jaccard, Tversky])
@pytest.mark.parametrize("channels", [1, 3])
def test_truth_and_prediction_can_be_exchanged(loss, channels):
    """A truth of 0 has its slope, too: it may be what another network predicts."""
    y, p = Y_TRUE[..., :channels], Y_PRED[..., :channels]
    close(values(loss, y, p), values(loss, p, y))
    by_truth = gradient(lambda truth: loss()(truth, p), y)
    close(by_truth, gradient(lambda prediction: loss()(p, prediction), y))
    assert np.all(by_truth[y == 0] != 0)


@every
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_an_empty_batch_is_0(loss, channels):
    nothing = np.zeros((0, 4, 5, channels), "float32")
    assert value(loss(), nothing, nothing) == 0
    assert gradient(lambda p: loss()(nothing, p), nothing).shape == nothing.shape


@pytest.mark.parametrize("gamma", [0.2, 0.75, 1.0, 3.0])
def test_the_power_is_that_of_every_class(gamma):
    arguments = {"fp_weight": 0.4, "fn_weight": 0.9}
    of_class = [
        values(Tversky, Y_TRUE[..., c, None], Y_PRED[..., c, None], **arguments) for c in range(3)
    ]
    expected = np.mean(np.power(of_class, gamma), axis=0)
    close(values(FocalTversky, Y_TRUE, Y_PRED, gamma=gamma, **arguments), expected)


def test_jaccard_and_dice_order_predictions_alike():
    dice = values(Dice, MASK, SHARE, smooth=0.0)
    close(values(Jaccard, MASK, SHARE, smooth=0.0), 2 * dice / (1 + dice))


def test_the_prices_are_those_of_false_alarms_and_of_misses():
    y_true = np.array([1.0, 1.0, 0.0, 0.0, 0.0], "float32").reshape(1, 5, 1)
    y_pred = np.array([1.0, 0.0, 1.0, 1.0, 0.0], "float32").reshape(1, 5, 1)
    loss = Tversky(fp_weight=3.0, fn_weight=0.5, smooth=0.0)  # FP = 2, FN = 1, TP = 1
    close(value(loss, y_true, y_pred), 6.5 / 7.5)


@pytest.mark.parametrize("weighting", ["square", "simple", "uniform"])
def test_generalized_dice_of_one_class_is_dice(weighting):
    same(
        (Generalized, {"weighting": weighting, "smooth": 0.7}), (Dice, {"smooth": 0.7}), MASK, SHARE
    )


def test_uniform_weights_are_one_class_of_all_pixels():
    """Each of 3 classes has the weight 1/3, which makes 3 pixels of smoothing one."""
    y_true, y_pred = Y_TRUE.reshape(4, 60, 1), Y_PRED.reshape(4, 60, 1)
    expected = values(Dice, y_true, y_pred, smooth=6.0)
    close(values(Generalized, Y_TRUE, Y_PRED, weighting="uniform", smooth=2.0), expected)


@every
def test_twice_the_image_with_twice_the_smoothing_is_the_same(loss):
    """The smoothing is a number of pixels."""
    twice = values(loss, *(np.tile(a, (1, 2, 1, 1)) for a in (Y_TRUE, Y_PRED)), smooth=1.4)
    close(values(loss, Y_TRUE, Y_PRED, smooth=0.7), twice)


# Without an object, or nothing but it.


@pytest.mark.parametrize("smooth", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("loss", [Dice, Jaccard, Generalized], ids=lambda c: c.__name__)
def test_false_alarms_without_an_object_are_pushed_down(loss, smooth):
    """By smooth / (sum p + smooth)^2 each."""
    total = SHARE.sum((1, 2, 3), dtype="float64")
    empty = np.zeros_like(MASK)
    close(values(loss, empty, SHARE, smooth=smooth), total / (total + smooth))
    expected = smooth / (total + smooth) ** 2
    slopes = slope(loss, empty, SHARE, smooth=smooth)
    close(slopes, np.broadcast_to(expected.reshape(4, 1, 1, 1), slopes.shape), rtol=2e-5)


@every
def test_nothing_where_nothing_is_costs_nothing(loss):
    empty = np.zeros_like(MASK)
    assert np.all(values(loss, empty, empty) == 0)
    slopes = slope(loss, empty, empty)
    assert np.all(np.isfinite(slopes)) and np.all(slopes > 0)


@every
def test_without_smoothing_an_empty_truth_has_no_slope(loss):
    empty = np.zeros_like(MASK)
    for y_pred, expected in ((empty, 0.0), (SHARE, 1.0)):
        close(values(loss, empty, y_pred, smooth=0.0), expected)
        close(slope(loss, empty, y_pred, smooth=0.0), 0.0)


@every
def test_an_object_everywhere(loss):
    full = np.ones_like(MASK)
    assert np.all(values(loss, full, full) == 0)
    close(values(loss, full, 0 * full, smooth=0.0), 1.0)
    assert np.all(slope(loss, full, SHARE) < 0)


@pytest.mark.parametrize("smooth", [0.0, 1e-5, 1.0])
@every
def test_a_perfect_prediction_is_exactly_0_with_a_finite_slope(loss, smooth):
    assert np.all(values(loss, Y_TRUE, Y_TRUE, smooth=smooth) == 0)
    assert np.all(np.isfinite(slope(loss, Y_TRUE, Y_TRUE, smooth=smooth)))


@pytest.mark.parametrize("gamma", [0.01, 0.75, 1.0, 4.0])
def test_near_perfection_the_power_is_a_chord(gamma):
    """X = e / (1 - e + e), e exact in float32; below 1e-6 the loss is proportional to it."""
    arguments = {"gamma": gamma, "fp_weight": 1.0, "fn_weight": 1.0, "smooth": 0.0}
    one = np.ones((1, 1, 1), "float32")
    for error in (2.0**-22, 2.0**-21, 2.0**-19, 2.0**-10):
        expected = error * 1e-6 ** (gamma - 1) if error < 1e-6 else error**gamma
        close(values(FocalTversky, one, one - error, **arguments), expected, atol=0)
        factor = 1e-6 ** (gamma - 1) if error < 1e-6 else gamma * error ** (gamma - 1)
        close(slope(FocalTversky, one, one - error, **arguments), -factor, atol=0)


def test_small_errors_keep_an_absolute_accuracy():
    """All of 400 pixels are 2^-20 short: FN / (2 TP + FN) = e / (2 - e), whose slope is exact."""
    y_true, error = np.ones((1, 20, 20, 1), "float32"), 2.0**-20
    close(values(Dice, y_true, y_true - error, smooth=0.0), error / (2 - error), rtol=0, atol=1e-6)
    close(slope(Dice, y_true, y_true - error, smooth=0.0), -2 / 400 / (2 - error) ** 2, atol=0)


@pytest.mark.parametrize("shape", [(1, 256, 256, 256, 1), (1, 128, 256, 256, 2)])
def test_sums_over_16_million_pixels_keep_six_digits(shape):
    y_pred = RNG.uniform(size=shape).astype("float32")
    y_true = (RNG.uniform(size=shape) < 0.7).astype("float32")
    axes, wide = (1, 2, 3), y_pred.astype("float64")
    total = wide.sum(axes) + y_true.sum(axes, dtype="float64") + 1
    wrong = np.abs(wide - y_true).sum(axes)
    close(values(Dice, y_true, y_pred), (wrong / total).mean(-1), rtol=0, atol=1e-6)
    expected = ((1 - 2 * y_true) * total - wrong) / total**2 / shape[-1]
    close(slope(Dice, y_true, y_pred) / expected, 1, rtol=1e-5)


# Ranges and signs.


@every
def test_it_lies_between_0_and_1(loss):
    hard = np.eye(3, dtype="float32")[RNG.integers(0, 3, (4, 4, 5))]
    soft = RNG.uniform(0, 1, Y_PRED.shape).astype("float32")
    for y_true in (Y_TRUE, soft, np.zeros_like(Y_TRUE), np.ones_like(Y_TRUE)):
        for y_pred in (Y_PRED, soft, hard, np.zeros_like(Y_PRED), np.ones_like(Y_PRED)):
            found = values(loss, y_true, y_pred)
            assert np.all(found >= 0) and np.all(found <= 1)


@every
def test_more_of_the_object_and_less_beside_it_is_better(loss):
    slopes = slope(loss, Y_TRUE, Y_PRED)
    assert np.all(slopes[Y_TRUE == 1] < 0) and np.all(slopes[Y_TRUE == 0] > 0)


@every
def test_only_the_counts_matter(loss):
    """Not the place of a pixel, nor whether the image is flat or a volume."""
    expected = values(loss, Y_TRUE, Y_PRED)
    order = RNG.permutation(20)
    for shape in ((4, 20, 3), (4, 2, 2, 5, 3)):
        arrays = [a.reshape(4, 20, 3)[:, order].reshape(shape) for a in (Y_TRUE, Y_PRED)]
        close(values(loss, *arrays), expected)


# Logits.


@every
def test_logits_go_through_a_sigmoid_or_a_softmax(loss):
    z = RNG.normal(size=Y_PRED.shape).astype("float32")
    shares = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    close(values(loss, Y_TRUE, z, from_logits=True), values(loss, Y_TRUE, shares))
    single = z[..., :1]
    sigmoid = 1 / (1 + np.exp(-single))
    close(values(loss, MASK, single, from_logits=True), values(loss, MASK, sigmoid))


@every
def test_logits_that_are_surely_right_or_wrong(loss):
    # A softmax may round 1 to the float below, as TensorFlow's does on some processors; the power
    # of FocalTversky makes that 4e-6.
    rounding = {"atol": (2.0**-24) ** 0.75} if loss is FocalTversky else {}
    for y_true in (Y_TRUE, MASK):
        for sign, expected in ((1, 0.0), (-1, 1.0)):
            z = sign * 100 * (2 * y_true - 1)
            found = values(loss, y_true, z, from_logits=True, smooth=0.0)
            close(found, expected, **rounding)
            assert np.all(np.isfinite(slope(loss, y_true, z, from_logits=True)))


@every
def test_logits_that_are_nearly_sure_keep_a_slope(loss):
    """A share of 5e-5 of the slope; of a sigmoid at 100 float32 leaves nothing."""
    for sign in (1, -1):
        slopes = slope(loss, MASK, sign * 10 * (2 * MASK - 1), from_logits=True)
        assert np.all(slopes[MASK == 1] < 0) and np.all(slopes[MASK == 0] > 0)
        slopes = slope(loss, Y_TRUE, sign * 5 * (2 * Y_TRUE - 1), from_logits=True)
        assert np.all(slopes[Y_TRUE == 1] < 0)


# Classes.


@classwise
def test_it_is_the_mean_of_the_classes(loss):
    of_class = [values(loss, Y_TRUE[..., c, None], Y_PRED[..., c, None]) for c in range(3)]
    close(values(loss, Y_TRUE, Y_PRED), np.mean(of_class, axis=0))
    weights = [0.5, 0.0, 2.0]
    expected = np.average(of_class, axis=0, weights=weights)
    close(values(loss, Y_TRUE, Y_PRED, class_weight=weights), expected)


@classwise
def test_class_weights_are_normalised(loss):
    expected = values(loss, Y_TRUE, Y_PRED, class_weight=[1, 2, 3])
    for weights in ((0.1, 0.2, 0.3), np.array([10.0, 20.0, 30.0])):
        close(values(loss, Y_TRUE, Y_PRED, class_weight=weights), expected)
    alike = values(loss, Y_TRUE, Y_PRED, class_weight=[7.0, 7.0, 7.0])
    close(alike, values(loss, Y_TRUE, Y_PRED))


@every
def test_the_background_may_be_left_out(loss):
    expected = values(loss, Y_TRUE[..., 1:], Y_PRED[..., 1:])
    close(values(loss, Y_TRUE, Y_PRED, include_background=False), expected)
    slopes = slope(loss, Y_TRUE, Y_PRED, include_background=False)
    assert np.all(slopes[..., 0] == 0) and np.all(slopes[..., 1:] != 0)


@every
def test_an_only_channel_is_no_background(loss):
    same((loss, {"include_background": False}), (loss, {}), MASK, SHARE)


@classwise
def test_the_weight_of_a_background_that_is_left_out_does_not_matter(loss):
    weights = [[first, 1.0, 3.0] for first in (0.0, 5.0)]
    found = [
        values(loss, Y_TRUE, Y_PRED, class_weight=w, include_background=False) for w in weights
    ]
    close(*found)
    close(found[0], values(loss, Y_TRUE[..., 1:], Y_PRED[..., 1:], class_weight=[1.0, 3.0]))


@pytest.mark.backend_free
@classwise
def test_weights_that_are_all_0_where_they_count_are_an_error(loss):
    with raises(ValueError, "`class_weight`", "one above 0 among those that count", "[1.0, 0.0]"):
        loss(class_weight=[1.0, 0.0], include_background=False)
    loss(class_weight=[1.0, 0.0])


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0] * 4])
@classwise
def test_weights_of_another_number_of_classes_are_an_error(loss, weights):
    with raises(ValueError, "`class_weight`", loss.__name__, "3 channels", f"Received: {weights}"):
        loss(class_weight=weights)(Y_TRUE, Y_PRED)


# The classes of generalized Dice.


def generalized(sizes, missed, added, power, smooth):
    """Its value for hard masks, in fractions, and 1 / 0 for a class without pixels."""
    weights = [Fraction(1, size**power) if size else None for size in sizes]
    largest = max((w for w in weights if w is not None), default=Fraction(1))
    weights = [largest if w is None else w for w in weights]
    errors = [m + a for m, a in zip(missed, added, strict=True)]
    totals = [2 * n - m + a for n, m, a in zip(sizes, missed, added, strict=True)]
    wrong = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
    total = sum(w * t for w, t in zip(weights, totals, strict=True)) / sum(weights)
    return float(wrong / (total + smooth))


POWERS = pytest.mark.parametrize("weighting, power", [("square", 2), ("simple", 1), ("uniform", 0)])


@POWERS
@pytest.mark.parametrize("sizes", [(14, 5, 1), (14, 6, 0), (20, 0, 0)])
def test_absent_classes_weigh_as_much_as_the_smallest(sizes, weighting, power):
    """Two pixels of the first class are called the third: 2 missed there, 2 added here."""
    truth = np.repeat(np.arange(3), sizes)
    guess = truth.copy()
    guess[:2] = 2
    y_true, y_pred = (np.eye(3, dtype="float32")[a].reshape(1, 4, 5, 3) for a in (truth, guess))
    expected = generalized(sizes, (2, 0, 0), (0, 0, 2), power, smooth=1)
    close(values(Generalized, y_true, y_pred, weighting=weighting), expected)
    assert np.all(slope(Generalized, y_true, y_pred, weighting=weighting)[..., 2] != 0)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_without_any_class_all_false_alarms_are_priced_alike(smooth):
    empty, total = np.zeros_like(Y_TRUE), 20 / 3  # each pixel has 1 of probability, 1/3 of weight
    found = values(Generalized, empty, Y_PRED, smooth=smooth)
    close(found, total / (total + smooth))
    expected = smooth / (total + smooth) ** 2 / 3
    close(slope(Generalized, empty, Y_PRED, smooth=smooth), expected, rtol=2e-5)


@POWERS
def test_one_pixel_against_a_million(weighting, power):
    """Weights that are not divided by their sum would underflow: 1e-12 beside a smooth of 1."""
    sizes, side = (2**20 - 1, 1), 2**10
    y_true = np.zeros((1, side, side, 2), "float32")
    y_true[..., 0] = 1
    y_true[0, 0, 0] = 0, 1
    y_pred = y_true.copy()
    y_pred[0, 0, 0] = 1, 0  # the one pixel is missed
    expected = generalized(sizes, (0, 1), (1, 0), power, smooth=1)
    close(values(Generalized, y_true, y_pred, weighting=weighting), expected, rtol=2e-5)
