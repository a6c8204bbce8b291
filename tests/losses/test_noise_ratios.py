"""What `SNR` and `ErrorToSignal` claim: errors below the signal, in decibels and as a share."""

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked

SNR, ErrorToSignal = cl.losses.SNR, cl.losses.ErrorToSignal
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, 100)).astype("float32")
BOTH = {
    "SNR": SNR,
    "SNR with the mean": lambda **kwargs: SNR(zero_mean=False, **kwargs),
    "ErrorToSignal": ErrorToSignal,
    "ErrorToSignal of high tones": lambda **kwargs: ErrorToSignal(0.9, **kwargs),
}
both = pytest.mark.parametrize("key", BOTH)


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


def centred(y):
    return y - y.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("decibels", [-60, -20, 0, 20])
def test_snr_is_the_level_of_the_error(decibels):
    """Of an error that has the form of the signal, whatever the level of both."""
    share = 10 ** (decibels / 20)
    for level in (1.0, 1e4):
        y_true = level * np.float64(Y_TRUE)
        close(value(SNR(), y_true, (1 - share) * y_true), decibels, atol=1e-3)
        found = value(ErrorToSignal(), y_true, (1 - share) * y_true)
        close(10 * np.log10(found), decibels, atol=1e-3)


def test_snr_hears_the_level_that_si_sdr_does_not():
    close(value(SNR(), Y_TRUE, 0.5 * Y_TRUE), 20 * np.log10(0.5))
    assert value(cl.losses.SISDR(), Y_TRUE, 0.5 * Y_TRUE) < -80


def test_an_offset_is_not_heard_unless_the_mean_counts():
    expected = value(SNR(), Y_TRUE, Y_PRED)
    close(value(SNR(), Y_TRUE + 3, Y_PRED - 5), expected, rtol=1e-4)
    assert value(SNR(zero_mean=False), Y_TRUE, Y_PRED + 3) > expected + 1


def test_snr_is_the_logarithm_of_the_share():
    shares = value(ErrorToSignal(reduction="none"), centred(Y_TRUE), centred(Y_PRED))
    close(value(SNR(reduction="none"), Y_TRUE, Y_PRED), 10 * np.log10(shares))


@both
def test_equal_signals_are_stationary(key):
    loss = BOTH[key]()
    found = value(loss, Y_TRUE, Y_TRUE)
    assert found < -80 if "SNR" in key else found == 0
    assert np.isfinite(found)
    np.testing.assert_array_equal(slope(loss, Y_TRUE, Y_TRUE), 0 * Y_TRUE)


@both
def test_silence(key):
    """As prediction: 0 dB, a share of 1, and a slope out of it. As truth: a pull to silence."""
    loss, silence = BOTH[key](), 0 * Y_TRUE
    close(value(loss, Y_TRUE, silence), 0.0 if "SNR" in key else 1.0)
    outwards = slope(loss, centred(Y_TRUE), silence)
    assert np.sum(outwards * centred(Y_TRUE)) < -0.1
    assert np.isfinite(value(loss, silence, Y_PRED))
    inwards = slope(loss, silence, centred(Y_PRED))
    assert np.all(np.isfinite(inwards))
    assert np.sum(inwards * centred(Y_PRED)) > 0


def test_high_tones_count_more_with_pre_emphasis():
    time = np.arange(400.0)
    y_true = np.sin(0.2 * time)[None]
    low, high = (y_true + 0.1 * np.sin(pitch * time)[None] for pitch in (0.3, 3.0))
    close(value(ErrorToSignal(), y_true, low), value(ErrorToSignal(), y_true, high), rtol=0.05)
    assert value(ErrorToSignal(0.95), y_true, high) > 20 * value(ErrorToSignal(0.95), y_true, low)


@both
def test_channels_are_compared_one_by_one(key):
    loss = BOTH[key]()
    y_true, y_pred = (np.stack([y, y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    close(value(loss, y_true, y_pred), value(loss, Y_TRUE, Y_PRED))
    close(value(loss, y_true[..., :1], y_pred[..., 0]), value(loss, Y_TRUE, Y_PRED))
    weight = np.ones_like(y_true)
    weight[..., 1] = 0
    close(value(loss, y_true, 3 * y_pred, weight), value(loss, Y_TRUE, 3 * Y_PRED))


@both
def test_steps_that_do_not_count_are_cut_off(key):
    keep = np.arange(100) < 70
    loss = BOTH[key](reduction="none")
    y_true, y_pred = (np.where(keep, y, np.nan).astype("float32") for y in (Y_TRUE, Y_PRED))
    expected = value(loss, Y_TRUE[:, :70], Y_PRED[:, :70])
    weight = np.broadcast_to(keep, (3, 100)).astype("float32")
    close(value(loss, y_true, y_pred, weight), expected)
    close(value(loss, y_true, masked(np.nan_to_num(y_pred), weight > 0)), expected)
    back = gradient(lambda p: loss(y_true, p, weight), y_pred)
    assert np.all(back[:, 70:] == 0)
    assert np.all(np.isfinite(back))


def test_a_step_that_does_not_count_is_silent_for_the_next():
    weight = np.ones_like(Y_TRUE)
    weight[:, 40] = 0
    silent = [np.where(weight > 0, y, 0) for y in (Y_TRUE, Y_PRED)]
    loss = ErrorToSignal(0.9)
    close(value(loss, Y_TRUE, Y_PRED, weight), value(loss, *silent, weight))
    assert np.all(slope(loss, Y_TRUE, Y_PRED, weight)[:, 40] == 0)


@pytest.mark.parametrize("loss", [SNR, ErrorToSignal])
def test_two_steps_are_one_of_weight_2(loss):
    y_true, y_pred = (np.concatenate([y, y[:, :1]], axis=1) for y in (Y_TRUE, Y_PRED))
    weight = np.ones_like(Y_TRUE)
    weight[:, 0] = 2
    close(value(loss(), Y_TRUE, Y_PRED, weight), value(loss(), y_true, y_pred), rtol=1e-4)
