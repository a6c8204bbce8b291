"""What the regression losses claim: limits, prices, slopes at kinks and at extremes."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises
from tests.oracles import regression

Charbonnier = cl.losses.Charbonnier
Error = cl.losses.AsymmetricError
Expectile = cl.losses.Expectile
Linex = cl.losses.Linex
Penalty = cl.losses.UnderestimationPenalty
Pinball = cl.losses.Pinball

RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 5, 4)).astype("float32")


def close(actual, expected, rtol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-7)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def one(number):
    return np.array([[number]], "float32")


MAE, MSE = keras.losses.mean_absolute_error, keras.losses.mean_squared_error

LIMITS = {
    "(1, 1, 2) is MSE": (Error(1, 1, 2), 1, MSE),
    "(1, 1, 1) is MAE": (Error(1, 1, 1), 1, MAE),
    "(q, 1 - q, 1) is the pinball loss": (Error(0.9, 1 - 0.9, 1), 1, Pinball(0.9)),
    "(t, 1 - t, 2) is the expectile loss": (Error(0.2, 1 - 0.2, 2), 1, Expectile(0.2)),
    "(w, 0, 1) is the penalty": (Error(2.5, 0, 1), 1, Penalty(2.5)),
    "pinball of 0.5 is half MAE": (Pinball(0.5), 0.5, MAE),
    "pinball of 1 is the penalty": (Pinball(1 - 1e-12), 1, Penalty(1.0)),
    "expectile of 0.5 is half MSE": (Expectile(0.5), 0.5, MSE),
    "linex of 0 is MSE": (Linex(1e-9), 1, MSE),
    "linex of -0 is MSE": (Linex(-1e-9), 1, MSE),
    "charbonnier of 0 is MAE": (Charbonnier(1e-15), 1, MAE),
}


@pytest.mark.parametrize("loss, factor, other", LIMITS.values(), ids=LIMITS)
def test_limits(loss, factor, other):
    values = ops.convert_to_numpy(loss.call(ops.array(Y_TRUE), ops.array(Y_PRED)))
    other = other.call if isinstance(other, cl.losses.Loss) else other
    close(values, factor * ops.convert_to_numpy(other(ops.array(Y_TRUE), ops.array(Y_PRED))))


def test_the_penalty_prices_predictions_below_the_target():
    """The mistake of one of the six programs was to price the other side."""
    assert value(Penalty(weight=2.0), one(3), one(1)) == 4.0
    assert value(Penalty(weight=2.0), one(1), one(3)) == 0.0


def test_over_prediction_is_free_for_the_penalty():
    y_pred = Y_TRUE + np.abs(Y_PRED)
    assert value(Penalty(weight=100.0), Y_TRUE, y_pred) == 0.0
    np.testing.assert_array_equal(slope(Penalty(), Y_TRUE, y_pred), np.zeros_like(y_pred))


DEGREES = {
    "penalty": (Penalty(), 1),
    "error": (Error(power=1.7), 1.7),
    "pinball": (Pinball(0.2), 1),
    "expectile": (Expectile(0.2), 2),
}


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("loss, power", DEGREES.values(), ids=DEGREES)
def test_they_are_homogeneous_in_the_error(loss, power, scale):
    shifted = Y_TRUE + scale * (Y_PRED - Y_TRUE)
    close(value(loss, Y_TRUE, shifted), scale**power * value(loss, Y_TRUE, Y_PRED), 1e-5)


EVERY = {
    "penalty": Penalty(),
    "error": Error(),
    "error of power 1.3": Error(power=1.3),
    "pinball": Pinball(0.3),
    "expectile": Expectile(0.3),
    "linex": Linex(0.7),
    "charbonnier": Charbonnier(0.1),
}


@pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
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


@pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
def test_every_slope_at_an_error_of_0_is_0(loss):
    np.testing.assert_array_equal(slope(loss, Y_TRUE, Y_TRUE), np.zeros((5, 4)))


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
    close(value(Expectile(0.5), y_true, y_pred), 45_000.0)
    assert np.isfinite(value(Linex(), y_true, y_pred))  # its slope is beyond 65504
    for loss in (Error(), Expectile(), Pinball(), Charbonnier()):
        assert np.all(np.isfinite(gradient(lambda p, loss=loss: loss(y_true, p), y_pred)))


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 3, 2), (5, 2, 2, 3)])
def test_values_have_the_shape_of_all_axes_but_the_last(shape):
    y_true, y_pred = RNG.normal(size=(2, *shape)).astype("float32")
    expected = shape[:-1] if len(shape) > 1 else shape
    for loss in EVERY.values():
        assert value(type(loss)(reduction="none"), y_true, y_pred).shape == expected


# Quantiles.

QUANTILES = [0.1, 0.5, 0.9]


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.83])
def test_pinball_is_that_of_scikit_learn(quantile):
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.mean_pinball_loss(Y_TRUE, Y_PRED, alpha=quantile)
    close(value(Pinball(quantile), Y_TRUE, Y_PRED), expected)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.83])
def test_the_minimum_of_pinball_is_the_quantile(quantile):
    """Among 101 numbers just one leaves `q` of the others below it."""
    y_true = np.sort(RNG.normal(size=101)).astype("float32")
    losses = [value(Pinball(quantile), y_true, np.full_like(y_true, y)) for y in y_true]
    assert np.argmin(losses) == int(quantile * 101)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.83])
def test_the_minimum_of_expectile_is_the_expectile(level):
    """Of the numbers 0 and 1: t (1 - m) = (1 - t) m has the solution m = t."""
    slopes = slope(Expectile(level), np.array([0, 1], "float32"), np.full(2, level, "float32"))
    close(slopes.sum(), 0.0)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("kind", [list, tuple])
def test_several_quantiles_are_the_mean_over_their_columns(kind, shape):
    y_true, y_pred = Y_TRUE[:, 0].reshape(shape), Y_PRED[:, :3]
    loss = Pinball(kind(QUANTILES), reduction="none")
    single = [
        value(Pinball(q, reduction="none"), Y_TRUE[:, 0], y_pred[:, k])
        for k, q in enumerate(QUANTILES)
    ]
    close(value(loss, y_true, y_pred), np.mean(single, axis=0))


def test_targets_belong_to_rows_where_there_are_as_many_columns():
    """(3,) beside (3, 3) is where broadcasting would be silent."""
    y_true = np.array([1.0, 2.0, 3.0], "float32")
    rows = np.broadcast_to(y_true[:, None], (3, 3))
    assert value(Pinball(QUANTILES), y_true, rows) == 0.0
    assert value(Pinball(QUANTILES), y_true, rows.T) > 0.0


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 1)])
def test_a_list_of_one_quantile_keeps_its_column(shape):
    y_true, y_pred = RNG.normal(size=shape), RNG.normal(size=(5, 3, 1))
    values = value(Pinball([0.9], reduction="none"), y_true, y_pred)
    expected, _ = regression.pinball(y_true.reshape(5, 3, 1), y_pred, [0.9])
    assert values.shape == (5, 3)
    close(values, expected, 1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2), (4,), (5, 1, 1), (5, 3, 3)])
def test_another_target_beside_several_quantiles_is_an_error(shape):
    received = f"Received: y_true of shape {shape} and y_pred of shape (5, 3)"
    with raises(ValueError, "(5, 1) or (5,)", "broadcast", "Reshape the targets", received):
        Pinball(QUANTILES).call(ops.ones(shape), ops.ones((5, 3)))


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2), (5, 3, 4)])
def test_predictions_need_a_column_for_each_quantile(shape):
    received = f"Received: y_pred of shape {shape}"
    with raises(ValueError, "(batch, ..., 3)", "Dense(3)", received):
        Pinball(QUANTILES).call(ops.ones((5, 1)), ops.ones(shape))


# The sides of Linex, the tip of Charbonnier.


@pytest.mark.parametrize("sharpness", [1e-6, 1e-3, 0.5, 1.0, 7.0, 1e6])
def test_linex_is_right_over_many_sizes_of_the_error(sharpness):
    """From the series to the tangent, and at both changes: |a e| of 0.1 and of 20."""
    sizes = np.array([1e-6, 1e-3, 0.05, 0.0999, 0.1, 0.1001, 1, 5, 19.9, 20, 20.1, 100, 1e6])
    error = (np.concatenate([-sizes, sizes]) / sharpness).astype("float32")[:, None]
    for sign in (1, -1):
        loss, none = Linex(sign * sharpness, reduction="none"), np.zeros_like(error)
        values, slopes = regression.linex(error, none, sign * sharpness)
        np.testing.assert_allclose(value(loss, error, none), values, rtol=1e-5)
        np.testing.assert_allclose(slope(loss, error, none), slopes, rtol=1e-5)


def test_the_sign_of_the_sharpness_chooses_the_dear_side():
    assert value(Linex(1.0), one(5), one(0)) > 10 * value(Linex(1.0), one(0), one(5))
    mirrored = value(Linex(1.7), -Y_TRUE, -Y_PRED)
    close(value(Linex(-1.7), Y_TRUE, Y_PRED), mirrored)


@pytest.mark.parametrize("error", [21.0, 1e3, 1e8])
def test_linex_is_sloped_at_any_error(error):
    """By its tangent: a slope that does not grow any more, and never 0."""
    dear, cheap = slope(Linex(), one(error), one(0)), slope(Linex(), one(0), one(error))
    close(dear, -2 * np.expm1([[20.0]]))
    close(cheap, [[2.0]])


def test_charbonnier_is_epsilon_where_nothing_is_wrong():
    close(value(Charbonnier(0.25), Y_TRUE, Y_TRUE), 0.25)


def test_charbonnier_lies_between_the_absolute_error_and_epsilon_more():
    absolute = np.abs(Y_TRUE - Y_PRED).mean()
    assert absolute < value(Charbonnier(0.25), Y_TRUE, Y_PRED) < absolute + 0.25


@pytest.mark.parametrize("epsilon", [1e-15, 1e-3, 1.0])
@pytest.mark.parametrize("size", [0.0, *SIZES])
def test_the_slope_of_charbonnier_is_that_of_a_hypotenuse(size, epsilon):
    expected = -size / np.hypot(size, epsilon)
    np.testing.assert_allclose(slope(Charbonnier(epsilon), one(size), one(0)), [[expected]], 1e-5)
