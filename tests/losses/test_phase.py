"""What the options of `STFT` claim: the phase as a term, and high tones that count more."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.oracles import spectra as oracles

SMALL = {"fft_size": 64, "hop": 16, "window": 48}
ALONE = {"phase": 1.0, "weights": {"convergence": 0.0, "log_magnitude": 0.0}}
TIME = np.arange(160, dtype="float32")
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, 160)).astype("float32")


def stft(**arguments):
    return cl.losses.STFT(**{**SMALL, **arguments})


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


def tone(phase=0.0):
    return np.sin(0.5 * TIME + phase, dtype="float32")[None]


# Phase.


@pytest.mark.parametrize("angle", [0.3, 1.0, np.pi / 2, np.pi])
def test_a_tone_is_charged_for_its_angle(angle):
    """1 - cos of it; the ends, which are mirrored, add a little."""
    close(value(stft(**ALONE), tone(), tone(angle)), 1 - np.cos(angle), rtol=0.1, atol=0.02)


def test_the_opposite_sign_is_2_and_equal_signals_are_0():
    close(value(stft(**ALONE), Y_TRUE, -Y_TRUE), 2.0, rtol=1e-4)
    assert 0 <= value(stft(**ALONE), Y_TRUE, Y_TRUE) < 1e-8
    close(slope(stft(**ALONE), Y_TRUE, Y_TRUE), 0 * Y_TRUE, atol=1e-7)


@pytest.mark.parametrize("error", [1e-2, 1e-3])
def test_a_small_error_is_not_lost_in_rounding(error):
    """As the difference of two sums of products, float32 would have no digit of the smaller."""
    y_pred = (Y_TRUE + error * Y_PRED).astype("float32")
    expected, _ = oracles.stft(Y_TRUE, y_pred, *SMALL.values(), ALONE["weights"], phase=1.0)
    close(value(stft(**ALONE, reduction="none"), Y_TRUE, y_pred), expected, rtol=1e-3, atol=0)


def test_the_phase_leads_out_of_silence():
    found = slope(stft(phase=1.0), tone(), 0 * tone())
    assert np.sum(found * tone()) < -0.1
    np.testing.assert_array_equal(slope(stft(), tone(), 0 * tone()), 0 * tone())


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_extremes_are_finite(scale):
    for y_true, y_pred in ((scale * Y_TRUE, Y_PRED), (Y_TRUE, scale * Y_PRED)):
        assert np.isfinite(value(stft(**ALONE), y_true, y_pred))
        assert np.all(np.isfinite(slope(stft(**ALONE), y_true, y_pred)))


def test_it_is_a_part_whose_weight_can_be_set_and_is_saved():
    loss = stft(phase=0.5)
    assert loss.component_names == ("convergence", "log_magnitude", "phase")
    composite = cl.CompositeLoss({"s": loss})
    assert composite.weight_of("s/phase") == 0.5
    parts = composite.components(Y_TRUE, Y_PRED)
    found = {name: float(keras.ops.convert_to_numpy(part)) for name, part in parts.items()}
    expected = found["s/convergence"] + found["s/log_magnitude"] + 0.5 * found["s/phase"]
    close(found["s"], expected)
    composite.set_weight("s/phase", 0.0)
    again = cl.CompositeLoss.from_config(composite.get_config())
    assert again.weight_of("s/phase") == 0.0
    close(value(again, Y_TRUE, Y_PRED), value(stft(), Y_TRUE, Y_PRED))


def test_every_resolution_has_it():
    loss = cl.losses.MultiResolutionSTFT([64, 32], [16, 8], [48, 32], phase=0.5)
    assert [name for name in loss.component_names if "phase" in name] == [
        "fft_64/phase",
        "fft_32/phase",
    ]
    one = cl.losses.MultiResolutionSTFT([64], [16], [48], phase=0.5, pre_emphasis=0.3)
    close(value(one, Y_TRUE, Y_PRED), value(stft(phase=0.5, pre_emphasis=0.3), Y_TRUE, Y_PRED))


def test_single_parts_have_weights_that_are_saved():
    made = cl.losses.MultiResolutionSTFT
    loss = made([64, 32], [16, 8], [48, 32], {"convergence": 0.5, "fft_32/convergence": 0.0})
    assert loss.part_weights["fft_64/convergence"] == 0.5
    assert loss.part_weights["fft_32/convergence"] == 0.0
    assert loss.part_weights["fft_32"] == 0.5
    assert loss.get_config()["weights"] == {"convergence": 0.5, "fft_32/convergence": 0.0}
    composite = cl.CompositeLoss({"s": loss})
    composite.set_weight("s/fft_64", 0.25)
    composite.set_weight("s/fft_32/log_magnitude", 3.0)
    again = cl.CompositeLoss.from_config(composite.get_config())
    for path in ("s/fft_64", "s/fft_32", "s/fft_32/log_magnitude", "s/fft_32/convergence"):
        assert again.weight_of(path) == composite.weight_of(path)
    close(value(again, Y_TRUE, Y_PRED), value(composite, Y_TRUE, Y_PRED))
    with raises(ValueError, "'fft_64/log_magnitude'", "Received: {'fft_16': 1.0}"):
        made([64, 32], [16, 8], [48, 32], {"fft_16": 1.0})


def test_a_weight_of_a_term_that_is_not_there_is_an_error():
    for make in (stft, cl.losses.MultiResolutionSTFT):
        with raises(ValueError, "'convergence'", "'log_magnitude'", "Received: {'phase': 1.0}"):
            make(weights={"phase": 1.0})


# Pre-emphasis.


def test_pre_emphasis_is_made_before_anything_else():
    def by_hand(y):
        return np.concatenate([y[:, :1], y[:, 1:] - np.float32(0.7) * y[:, :-1]], axis=1)

    found = value(stft(pre_emphasis=0.7), Y_TRUE, Y_PRED)
    close(found, value(stft(), by_hand(Y_TRUE), by_hand(Y_PRED)))


def test_high_tones_count_more():
    y_true = tone() + np.sin(2.5 * TIME, dtype="float32")
    missing = [value(stft(pre_emphasis=c), y_true, tone()) for c in (0.0, 0.5, 0.95)]
    assert missing[0] < missing[1] < missing[2]


@pytest.mark.parametrize("options", [{"phase": 1.0}, {"pre_emphasis": 0.9}])
@pytest.mark.parametrize("what", ["weights", "mask"])
def test_what_does_not_count_is_silent(options, what):
    keep = np.broadcast_to(TIME < 112, (3, 160))
    y_true, y_pred = np.where(keep, Y_TRUE, np.nan), np.where(keep, Y_PRED, np.inf)
    loss, weight = stft(**options, reduction="none"), keep.astype("float32")
    expected = value(loss, *(np.where(keep, y, 0) for y in (Y_TRUE, Y_PRED)), weight)
    if what == "mask":
        close(value(loss, y_true, masked(y_pred, keep)), expected)
        return
    close(value(loss, y_true, y_pred, weight), expected)
    back = slope(stft(**options), y_true, y_pred, weight)
    assert np.all(back[~keep] == 0)
    assert np.all(np.isfinite(back))


def test_a_channel_of_which_nothing_counts_is_not_in_the_mean():
    y_true, y_pred = (np.stack([y, 3 * y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    weight = np.ones_like(y_true)
    weight[..., 1] = 0
    close(value(stft(**ALONE), y_true, y_pred, weight), value(stft(**ALONE), Y_TRUE, Y_PRED))
