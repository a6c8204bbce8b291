"""What the losses of spectra claim: what they hear, what they do not, and what silence does."""

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
TERMS = ("convergence", "log_magnitude")
STEPS = 160

TIME = np.arange(STEPS, dtype="float32")
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, STEPS)).astype("float32")


def stft(**arguments):
    return cl.losses.STFT(**{**SMALL, **arguments})


def only(term):
    return stft(weights={other: float(other == term) for other in TERMS})


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


def tone(frequency=0.5, phase=0.0):
    return np.sin(frequency * TIME + phase, dtype="float32")[None]


def parts(loss, *data):
    found = cl.CompositeLoss({"s": loss}).components(*data)
    return {name: float(keras.ops.convert_to_numpy(part)) for name, part in found.items()}


# What is heard.


def test_half_as_loud_is_half_the_norm_and_log_2():
    found = parts(stft(), Y_TRUE, Y_TRUE / 2)
    close(found["s/convergence"], 0.5)
    close(found["s/log_magnitude"], np.log(2), rtol=1e-4)
    close(found["s"], 0.5 + np.log(2), rtol=1e-4)


@pytest.mark.parametrize("window", [3, 31, 48, 63, 64])
def test_the_window_is_periodic_of_any_length(window):
    """That of TensorFlow, `tf.signal.hann_window`, is symmetric where the length is odd."""
    expected, _ = oracles.stft(Y_TRUE, Y_PRED, 64, 16, window)
    close(value(stft(window=window, reduction="none"), Y_TRUE, Y_PRED), expected, rtol=2e-5)


def test_the_phase_is_not_heard():
    """But at the ends, where the signal is continued by its mirror image."""
    loss = only("convergence")
    assert value(loss, tone(), tone(phase=1.0)) < 0.25 * value(loss, tone(), tone(0.9))
    assert value(stft(), Y_TRUE, -Y_TRUE) < 1e-12


def test_the_quiet_is_heard_by_the_logarithm_alone():
    """A second tone a thousand times quieter than the first."""
    y_true = tone() + 1e-3 * tone(1.5)
    convergence, log_magnitude = (value(only(term), y_true, tone()) for term in TERMS)
    assert 0 < 20 * convergence < log_magnitude


def test_equal_signals_cost_nothing_and_are_stationary():
    assert value(stft(), Y_TRUE, Y_TRUE) < 1e-12
    np.testing.assert_array_equal(slope(stft(), Y_TRUE, Y_TRUE), 0 * Y_TRUE)


def test_channels_are_compared_one_by_one():
    y_true, y_pred = (np.stack([y, 3 * y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    alone = [value(stft(), y_true[..., c], y_pred[..., c]) for c in (0, 1)]
    close(value(stft(), y_true, y_pred), np.mean(alone))
    close(value(stft(), y_true[..., :1], y_pred[..., :1]), alone[0])
    close(value(stft(), y_true[..., 0], y_pred[..., :1]), alone[0])


# Silence.


@pytest.mark.parametrize("loudness", [1e-2, 1e-4, 1e-6, 1e-10])
def test_a_quiet_prediction_learns_to_be_louder(loudness):
    quiet = loudness * tone(phase=1.0)
    found = np.float64(slope(stft(), tone(), quiet))
    assert np.all(np.isfinite(found))
    assert np.sum(found * quiet) < 0  # a step against the gradient is one outwards


def test_only_exact_silence_is_stationary():
    found = slope(stft(), tone(), 0 * tone())
    np.testing.assert_array_equal(found, 0 * tone())


def test_a_waveform_loss_leads_out_of_silence():
    loss = stft() + cl.as_loss("mae")
    assert np.all(slope(loss, 2 + tone(), 0 * tone()) != 0)


def test_a_silent_truth_is_finite():
    """The first term divides by 1e-4 for each bin; without it, or without the sample, it counts."""
    silence, found = 0 * tone(), value(stft(), 0 * tone(), tone())
    assert 1e3 < found < 1e6
    assert np.all(np.isfinite(slope(stft(), silence, tone())))
    assert value(only("log_magnitude"), silence, tone()) < 20
    y_true, y_pred = np.concatenate([silence, tone()]), np.concatenate([tone(), tone(0.9)])
    loss = stft(reduction="mean_with_sample_weight")
    close(value(loss, y_true, y_pred, np.array([0.0, 1.0])), value(loss, tone(), tone(0.9)))


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_extremes_are_finite(scale):
    for y_true, y_pred in ((scale * Y_TRUE, Y_PRED), (Y_TRUE, scale * Y_PRED)):
        assert np.isfinite(value(stft(), y_true, y_pred))
        assert np.all(np.isfinite(slope(stft(), y_true, y_pred)))


# Parts.


def test_the_terms_are_parts_of_the_same_pass():
    loss = stft(weights={"convergence": 0.25})
    assert loss.component_names == TERMS
    found = parts(loss, Y_TRUE, Y_PRED)
    close(found["s"], 0.25 * found["s/convergence"] + found["s/log_magnitude"])


def test_every_resolution_and_every_term_is_a_part():
    loss = cl.losses.MultiResolutionSTFT((64, 32, 64), (16, 8, 10), (64, 32, 40))
    outer = ("fft_64", "fft_32", "fft_64_2")
    names = [name for size in outer for name in (size, *(f"{size}/{term}" for term in TERMS))]
    assert loss.component_names == tuple(names)
    found = parts(loss, Y_TRUE, Y_PRED)
    close(found["s"], np.mean([found[f"s/{size}"] for size in outer]))
    for size, arguments in zip(outer, ((64, 16, 64), (32, 8, 32), (64, 10, 40)), strict=True):
        close(found[f"s/{size}"], value(cl.losses.STFT(*arguments), Y_TRUE, Y_PRED))


def test_one_resolution_is_stft():
    for weights in (None, {"log_magnitude": 3.0}):
        one = cl.losses.MultiResolutionSTFT([64], [16], [48], weights)
        assert value(one, Y_TRUE, Y_PRED) == value(stft(weights=weights), Y_TRUE, Y_PRED)


def evaluated(loss):
    """A model that halves what it is given, and its logs."""
    model = cl.Sequential([keras.Input((STEPS,)), keras.layers.Rescaling(0.5)])
    model.compile("sgd", loss=loss)
    data = np.concatenate([Y_TRUE, Y_PRED[:1]])
    return model, model.evaluate(data, data, batch_size=3, verbose=0, return_dict=True)


def test_the_parts_are_in_the_logs():
    _, logs = evaluated(cl.CompositeLoss({"wave": "mae", "spectrum": stft()}))
    keys = {"spectrum_loss", "spectrum/convergence_loss", "spectrum/log_magnitude_loss"}
    assert set(logs) == {"loss", "wave_loss", *keys}
    close(logs["spectrum/convergence_loss"], 0.5)


def test_a_lone_loss_reports_its_parts_too():
    _, logs = evaluated(stft())
    assert {"convergence_loss", "log_magnitude_loss"} <= set(logs)


def test_a_term_can_be_weighed_later_and_is_saved(tmp_path):
    loss = cl.CompositeLoss({"spectrum": stft()})
    loss.set_weight("spectrum/convergence", 0.0)
    assert cl.CompositeLoss.from_config(loss.get_config()).weight_of("spectrum/convergence") == 0.0
    model, logs = evaluated(loss)
    close(logs["spectrum_loss"], logs["spectrum/log_magnitude_loss"])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.loss.weight_of("spectrum/convergence") == 0.0
    assert value(loaded.loss, Y_TRUE, Y_PRED) == value(loss, Y_TRUE, Y_PRED)


def test_the_name_is_no_name_that_a_user_chose():
    composite = cl.CompositeLoss([cl.losses.MultiResolutionSTFT(), stft(), stft(name="mine")])
    assert composite.names == ("multi_resolution_stft", "stft", "mine")


# Weights and masks of time steps.


def test_ones_change_nothing():
    expected = value(stft(reduction="none"), Y_TRUE, Y_PRED)
    close(value(stft(reduction="none"), Y_TRUE, Y_PRED, np.ones((3, STEPS), "float32")), expected)


@pytest.mark.parametrize("what", ["weights", "mask", "weights of channels"])
def test_what_does_not_count_is_silent(what):
    """Padding after 112 of 160 steps holds anything; a sample of 112 steps is nearly the same."""
    keep = np.broadcast_to(TIME < 112, (3, STEPS))
    y_true, y_pred = np.where(keep, Y_TRUE, np.nan), np.where(keep, Y_PRED, np.inf)
    loss = stft(reduction="none")
    if what == "mask":
        found = value(loss, y_true, masked(y_pred, keep))
    else:
        weight = keep.astype("float32")
        if what != "weights":
            y_true, y_pred, weight = (a[..., None] for a in (y_true, y_pred, weight))
        found = value(loss, y_true, y_pred, weight)
        back = slope(loss, y_true, y_pred, weight).reshape(3, STEPS)
        assert np.all(back[~keep] == 0)
        assert np.all(np.isfinite(back))
    silenced = [np.where(keep, y, 0) for y in (Y_TRUE, Y_PRED)]
    weight = (TIME < 112).astype("float32")[None].repeat(3, axis=0)
    close(found, value(loss, *silenced, weight))
    close(found, value(loss, Y_TRUE[:, :112], Y_PRED[:, :112]), rtol=0.2)


def test_a_frame_counts_as_its_centre():
    """Frames that are silent in both differ by nothing; where they do not count, they are no part.

    Of 21 frames, 16 steps apart, those from step 192 on see nothing of the 160 steps with a sound.
    """
    y_true, y_pred = (np.concatenate([y, 0 * y], axis=1) for y in (Y_TRUE, Y_PRED))
    weight = np.broadcast_to(np.arange(2 * STEPS) < 192, (3, 2 * STEPS)).astype("float32")
    loss = only("log_magnitude")
    whole, counted = value(loss, y_true, y_pred), value(loss, y_true, y_pred, weight)
    close(21 * whole, 12 * counted)


def test_a_sample_of_which_nothing_counts_costs_nothing():
    weight = np.ones((3, STEPS), "float32")
    weight[1] = 0
    found = value(stft(reduction="none"), Y_TRUE, Y_PRED, weight)
    assert found[1] < 1e-10
    close(found[[0, 2]], value(stft(reduction="none"), Y_TRUE[[0, 2]], Y_PRED[[0, 2]]))


def test_a_channel_of_which_nothing_counts_is_not_in_the_mean():
    y_true, y_pred = (np.stack([y, 3 * y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    weight = np.ones_like(y_true)
    weight[..., 1] = 0
    close(value(stft(), y_true, y_pred, weight), value(stft(), Y_TRUE, Y_PRED))


def test_weights_of_another_length_are_an_error():
    with raises(ValueError, "stft", "Received: sample_weight of shape (3, 7)"):
        stft()(Y_TRUE, Y_PRED, np.ones((3, 7)))
    with raises(ValueError, "stft", "Received: sample_weight of shape (3, 160, 2)"):
        stft()(Y_TRUE, Y_PRED, np.ones((3, STEPS, 2)))


# Inside others.


def test_wrappers_see_it_channel_by_channel():
    y_true, y_pred = (np.stack([y, 3 * y[::-1]], axis=-1) for y in (Y_TRUE, Y_PRED))
    one = cl.wrappers.PerChannel(stft(), names=["left", "right"], aggregation="mean")
    close(value(one, y_true, y_pred), value(stft(), y_true, y_pred))
    left = cl.wrappers.OnSlice(stft(), np.s_[..., 0])
    close(value(left, y_true, y_pred), value(stft(), Y_TRUE, Y_PRED))


def test_a_reduction_is_imposed_on_its_terms():
    composite = cl.CompositeLoss({"s": stft(), "mae": "mae"}, reduction="sum")
    expected = value(stft(reduction="none"), Y_TRUE, Y_PRED).sum()
    found = composite.components(Y_TRUE, Y_PRED)["s"]
    close(keras.ops.convert_to_numpy(found), expected)


def test_operators():
    loss = 0.5 * stft() + "mae"
    assert loss.weights == {"stft": 0.5, "mae": 1.0}


# Errors.


def test_a_signal_must_be_longer_than_half_the_transform():
    assert np.isfinite(value(stft(), Y_TRUE[:, :33], Y_PRED[:, :33]))
    with raises(ValueError, "'stft'", "fft_size // 2 = 32", "y_pred of shape (3, 32)"):
        stft()(Y_TRUE[:, :32], Y_PRED[:, :32])


@pytest.mark.parametrize("loss", [stft, cl.losses.SISDR])
def test_signals_have_two_or_three_axes(loss):
    with raises(ValueError, "(batch, time, channels)", "Received: y_pred of shape (2, 3, 1, 160)"):
        loss()(*np.ones((2, 2, 3, 1, STEPS)))


@pytest.mark.parametrize("loss", [stft, cl.losses.SISDR])
def test_signals_of_another_shape_are_an_error(loss):
    with raises(ValueError, "broadcast", "y_true of shape (3, 1) and y_pred of shape (3, 160)"):
        loss()(Y_TRUE[:, :1], Y_PRED)


def test_a_target_is_needed():
    with raises(ValueError, "'stft'", "needs a target"):
        stft()(None, Y_PRED)
