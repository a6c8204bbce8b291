"""What `MelSTFT` claims: bands as wide as the ear hears them."""

import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked
from tests.oracles import spectra as oracles

SMALL = {"sample_rate": 8000, "mels": 12, "fft_size": 64, "hop": 16, "window": 48}
TERMS = ("convergence", "log_magnitude")
TIME = np.arange(160) / 8000
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, 160)).astype("float32")


def mel(**arguments):
    return cl.losses.MelSTFT(**{**SMALL, **arguments})


def only(term):
    return mel(weights={other: float(other == term) for other in TERMS})


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


def tone(hertz, time=TIME):
    return np.sin(2 * np.pi * hertz * time)[None].astype("float32")


def test_the_name_and_the_parts():
    loss = cl.losses.MelSTFT()
    assert loss.name == "mel_stft"
    assert loss.component_names == TERMS


@pytest.mark.parametrize(
    "bands",
    [
        (8000, 12, 65, 0.0, None),
        (16000, 80, 1024, 0.0, None),
        (22050, 40, 512, 50.0, 7600.0),
    ],
)
def test_the_bands_are_triangles_in_hertz(bands):
    """Between the first and the last peak each bin belongs to two bands, with shares of sum 1."""
    rate, mels, fft_size, low, high = bands
    loss = cl.losses.MelSTFT(rate, mels, fft_size=fft_size, low=low, high=high, window=32)
    filters = loss._filters
    np.testing.assert_allclose(filters, oracles.bands(*bands), atol=1e-12)
    first, last = (int(np.argmax(filters[band])) for band in (0, -1))
    np.testing.assert_allclose(filters.sum(axis=0)[first + 1 : last], 1.0, atol=1e-12)


def test_within_a_band_the_pitch_is_not_heard_and_beyond_it_is():
    time = np.arange(4000) / 16000
    loss = cl.losses.MelSTFT(mels=10, weights={"log_magnitude": 0.0})
    near, far = (value(loss, tone(2400, time), tone(hertz, time)) for hertz in (2420, 3600))
    assert 10 * near < far
    bins = cl.losses.STFT(weights={"log_magnitude": 0.0})
    assert value(bins, tone(2400, time), tone(2420, time)) > 10 * near


def test_half_as_loud_is_half_the_norm_and_log_2():
    close(value(only("convergence"), Y_TRUE, Y_TRUE / 2), 0.5, rtol=1e-4)
    close(value(only("log_magnitude"), Y_TRUE, Y_TRUE / 2), np.log(2), rtol=1e-3)


def test_equal_signals_and_the_opposite_sign_cost_nothing():
    assert value(mel(), Y_TRUE, Y_TRUE) < 1e-12
    assert value(mel(), Y_TRUE, -Y_TRUE) < 1e-12
    np.testing.assert_array_equal(slope(mel(), Y_TRUE, Y_TRUE), 0 * Y_TRUE)


def test_only_exact_silence_is_stationary():
    np.testing.assert_array_equal(slope(mel(), tone(500), 0 * tone(500)), 0 * tone(500))
    for loudness in (1e-3, 1e-6, 1e-10):
        quiet = loudness * tone(600)
        found = np.float64(slope(mel(), tone(500), quiet))
        assert np.all(np.isfinite(found))
        assert np.sum(found * quiet) < 0


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e6])
def test_extremes_are_finite(scale):
    for y_true, y_pred in ((scale * Y_TRUE, Y_PRED), (Y_TRUE, scale * Y_PRED)):
        assert np.isfinite(value(mel(), y_true, y_pred))
        assert np.all(np.isfinite(slope(mel(), y_true, y_pred)))


def test_a_band_without_a_bin_warns_and_is_equal_in_both():
    with pytest.warns(UserWarning, match="2 of the 4 bands of MelSTFT hold no bin") as caught:
        loss = mel(mels=4, low=260.0, high=440.0)
    assert caught[0].filename == __file__
    found = value(loss, Y_TRUE, Y_PRED)
    expected, _ = oracles.mel_stft(Y_TRUE, Y_PRED, **{**SMALL, "mels": 4}, low=260.0, high=440.0)
    close(found, expected.mean(), rtol=1e-4)
    assert np.all(np.isfinite(slope(loss, Y_TRUE, Y_PRED)))


@pytest.mark.parametrize("what", ["weights", "mask"])
def test_what_does_not_count_is_silent(what):
    keep = np.broadcast_to(np.arange(160) < 112, (3, 160))
    y_true, y_pred = np.where(keep, Y_TRUE, np.nan), np.where(keep, Y_PRED, np.inf)
    loss, weight = mel(reduction="none"), keep.astype("float32")
    expected = value(loss, *(np.where(keep, y, 0) for y in (Y_TRUE, Y_PRED)), weight)
    counted = masked(y_pred, keep) if what == "mask" else y_pred
    close(value(loss, y_true, counted, *([] if what == "mask" else [weight])), expected)


def test_channels_are_compared_one_by_one():
    y_true, y_pred = (np.stack([y, 3 * y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    alone = [value(mel(), y_true[..., c], y_pred[..., c]) for c in (0, 1)]
    close(value(mel(), y_true, y_pred), np.mean(alone))
