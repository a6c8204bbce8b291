"""What the scale-invariant ratio claims: decibels, whatever the scale."""

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked

SISDR = cl.losses.SISDR
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, 100)).astype("float32")


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(y_true, y_pred, **arguments):
    return gradient(lambda p: SISDR(reduction="sum", **arguments)(y_true, p), y_pred)


def orthogonal_noise():
    """Of the power of the signal, and without a mean."""
    signal, noise = (y - y.mean(axis=1, keepdims=True) for y in (np.float64(Y_TRUE), Y_PRED))
    power = np.sum(signal**2, axis=1, keepdims=True)
    noise = noise - np.sum(noise * signal, axis=1, keepdims=True) / power * signal
    return noise * np.sqrt(power / np.sum(noise**2, axis=1, keepdims=True))


@pytest.mark.parametrize("decibels", [-40, -20, 0, 20])
def test_it_is_the_ratio_of_the_noise(decibels):
    y_pred = Y_TRUE + 10 ** (decibels / 20) * orthogonal_noise()
    close(value(SISDR(), Y_TRUE, y_pred), decibels, atol=1e-4)


@pytest.mark.parametrize("scale", [-3.0, 1e-2, 1e4])
def test_the_scale_is_not_seen(scale):
    close(value(SISDR(), Y_TRUE, scale * Y_PRED), value(SISDR(), Y_TRUE, Y_PRED), rtol=1e-4)
    close(value(SISDR(), scale * Y_TRUE, Y_PRED), value(SISDR(), Y_TRUE, Y_PRED), rtol=1e-4)
    radial = np.sum(slope(Y_TRUE, Y_PRED) * Y_PRED, axis=1)
    close(radial, np.zeros(3), atol=1e-4)


def test_an_offset_is_not_seen_unless_the_mean_counts():
    expected = value(SISDR(), Y_TRUE, Y_PRED)
    close(value(SISDR(), Y_TRUE + 3, Y_PRED - 5), expected, rtol=1e-4)
    assert abs(value(SISDR(zero_mean=False), Y_TRUE + 3, Y_PRED - 5) - expected) > 1
    close(slope(Y_TRUE, Y_PRED).sum(axis=1), np.zeros(3), atol=1e-4)


def test_equal_signals_are_finite():
    assert value(SISDR(), Y_TRUE, Y_TRUE) < -90
    assert np.all(np.isfinite(slope(Y_TRUE, Y_TRUE)))


def test_a_silent_truth_pulls_to_silence():
    """10 log10((||x||^2 + eps) / eps)."""
    silence, y_pred = 0 * Y_TRUE, Y_PRED - Y_PRED.mean(axis=1, keepdims=True)
    expected = 10 * np.log10((np.sum(np.float64(y_pred) ** 2, axis=1) + 1e-8) / 1e-8)
    close(value(SISDR(reduction="none"), silence, Y_PRED), expected)
    assert np.all(np.sum(slope(silence, y_pred) * y_pred, axis=1) > 0)


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_silent_prediction_is_at_0_decibels_and_stationary(level):
    silence = np.full_like(Y_PRED, level)
    close(value(SISDR(), Y_TRUE, silence), 0.0)
    np.testing.assert_array_equal(slope(Y_TRUE, silence), 0 * silence)


def test_a_quiet_prediction_is_not():
    found = slope(Y_TRUE, 1e-3 * Y_PRED)
    assert np.all(np.isfinite(found))
    assert np.abs(found).max() > 1


def test_channels_are_compared_one_by_one():
    y_true, y_pred = (np.stack([y, y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    close(value(SISDR(), y_true, y_pred), value(SISDR(), Y_TRUE, Y_PRED))
    close(value(SISDR(), y_true[..., :1], y_pred[..., 0]), value(SISDR(), Y_TRUE, Y_PRED))


@pytest.mark.parametrize("zero_mean", [True, False])
def test_steps_that_do_not_count_are_cut_off(zero_mean):
    keep = np.arange(100) < 70
    loss = SISDR(zero_mean, reduction="none")
    y_true, y_pred = (np.where(keep, y, np.nan).astype("float32") for y in (Y_TRUE, Y_PRED))
    expected = value(loss, Y_TRUE[:, :70], Y_PRED[:, :70])
    weight = np.broadcast_to(keep, (3, 100)).astype("float32")
    close(value(loss, y_true, y_pred, weight), expected)
    close(value(loss, y_true, masked(np.nan_to_num(y_pred), weight > 0)), expected)
    back = gradient(lambda p: loss(y_true, p, weight), y_pred)
    assert np.all(back[:, 70:] == 0)
    assert np.all(np.isfinite(back))


def test_two_steps_are_one_of_weight_2():
    y_true, y_pred = (np.concatenate([y, y[:, :1]], axis=1) for y in (Y_TRUE, Y_PRED))
    weight = np.ones_like(Y_TRUE)
    weight[:, 0] = 2
    close(value(SISDR(), Y_TRUE, Y_PRED, weight), value(SISDR(), y_true, y_pred), rtol=1e-4)
