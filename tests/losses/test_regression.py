"""What the regression losses claim: limits, prices, slopes at kinks and at extremes."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient

Error = cl.losses.AsymmetricError
Penalty = cl.losses.UnderestimationPenalty

RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 5, 4)).astype("float32")


def close(actual, expected, rtol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-7)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def one(number):
    return np.array([[number]], "float32")


def pinball(quantile):
    def loss(y_true, y_pred):
        error = y_true - y_pred
        return np.maximum(quantile * error, (quantile - 1) * error).mean(axis=-1)

    return loss


def expectile(level):
    def loss(y_true, y_pred):
        error = y_true - y_pred
        return (np.abs(level - (error < 0)) * error**2).mean(axis=-1)

    return loss


LIMITS = {
    "(1, 1, 2) is MSE": ((1, 1, 2), keras.losses.mean_squared_error),
    "(1, 1, 1) is MAE": ((1, 1, 1), keras.losses.mean_absolute_error),
    "(0.9, 0.1, 1) is the pinball loss": ((0.9, 1 - 0.9, 1), pinball(0.9)),
    "(0.2, 0.8, 2) is the expectile loss": ((0.2, 1 - 0.2, 2), expectile(0.2)),
    "(w, 0, 1) is the penalty": ((2.5, 0, 1), Penalty(2.5, reduction="none")),
}


@pytest.mark.parametrize("arguments, other", LIMITS.values(), ids=LIMITS)
def test_limits_of_the_asymmetric_error(arguments, other):
    expected = ops.convert_to_numpy(other(Y_TRUE, Y_PRED))
    close(value(Error(*arguments, reduction="none"), Y_TRUE, Y_PRED), expected)


def test_the_penalty_prices_predictions_below_the_target():
    """The mistake of one of the six programs was to price the other side."""
    assert value(Penalty(weight=2.0), one(3), one(1)) == 4.0
    assert value(Penalty(weight=2.0), one(1), one(3)) == 0.0


def test_over_prediction_is_free_for_the_penalty():
    y_pred = Y_TRUE + np.abs(Y_PRED)
    assert value(Penalty(weight=100.0), Y_TRUE, y_pred) == 0.0
    np.testing.assert_array_equal(slope(Penalty(), Y_TRUE, y_pred), np.zeros_like(y_pred))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_both_are_homogeneous_in_the_error(scale):
    """Degree 1 for the penalty, degree `power` for the error."""
    shifted = Y_TRUE + scale * (Y_PRED - Y_TRUE)
    close(value(Penalty(), Y_TRUE, shifted), scale * value(Penalty(), Y_TRUE, Y_PRED), 1e-5)
    power = value(Error(power=1.7), Y_TRUE, Y_PRED)
    close(value(Error(power=1.7), Y_TRUE, shifted), scale**1.7 * power, 1e-5)


@pytest.mark.parametrize("loss", [Penalty(), Error(), Error(power=1.3)])
def test_only_the_difference_counts(loss):
    close(value(loss, Y_TRUE + 1, Y_PRED + 1), value(loss, Y_TRUE, Y_PRED), 1e-5)


def test_swapping_the_sides_swaps_the_prices():
    swapped = value(Error(0.3, 4.0, 1.5), -Y_TRUE, -Y_PRED)
    close(value(Error(4.0, 0.3, 1.5), Y_TRUE, Y_PRED), swapped)


@pytest.mark.parametrize("weight", [0, 0.0])
def test_a_price_of_0_is_free(weight):
    assert value(Penalty(weight), Y_TRUE, Y_PRED) == 0.0
    assert value(Error(weight, weight), Y_TRUE, Y_PRED) == 0.0


@pytest.mark.parametrize("power", [1, 1.0, 1.01, 1.5, 2, 3.0, 7.5])
def test_the_slope_at_an_error_of_0_is_0(power):
    np.testing.assert_array_equal(slope(Error(power=power), Y_TRUE, Y_TRUE), np.zeros((5, 4)))
    np.testing.assert_array_equal(slope(Penalty(), Y_TRUE, Y_TRUE), np.zeros((5, 4)))


# Powers and slopes of these are normal float32 numbers.
SIZES = [1e-15, 1e-6, 1e-3, 1.0, 1e3, 1e8]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("power", [1, 1.5, 2, 3.0])
def test_slopes_are_right_over_many_sizes_of_the_error(power, size):
    loss = Error(2.0, 3.0, power)
    below, above = slope(loss, one(size), one(0)), slope(loss, one(0), one(size))
    expected = power * np.float64(size) ** (power - 1)
    np.testing.assert_allclose([below, above], [[[-2 * expected]], [[3 * expected]]], rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_values_are_right_over_many_sizes_of_the_error(size):
    for power in (1, 1.5, 2):
        expected = 2 * np.float64(size) ** power
        np.testing.assert_allclose(value(Error(2.0, 3.0, power), one(size), one(0)), expected, 1e-5)
    np.testing.assert_allclose(value(Penalty(2.0), one(size), one(0)), 2 * size, rtol=1e-5)


def test_float16_errors_do_not_overflow():
    """300 squared is beyond the largest float16, 65504."""
    y_true, y_pred = np.full((2, 2), 300, "float16"), np.zeros((2, 2), "float16")
    close(value(Error(1.0, 1.0, 2.0), y_true, y_pred), 90_000.0)
    assert np.all(np.isfinite(gradient(lambda p: Error()(y_true, p), y_pred)))


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 3, 2), (5, 2, 2, 3)])
def test_values_have_the_shape_of_all_axes_but_the_last(shape):
    y_true, y_pred = RNG.normal(size=(2, *shape)).astype("float32")
    expected = shape[:-1] if len(shape) > 1 else shape
    for loss in (Penalty(reduction="none"), Error(reduction="none")):
        assert value(loss, y_true, y_pred).shape == expected
