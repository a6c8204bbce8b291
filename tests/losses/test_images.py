"""What the losses of images claim: ranges, limits, other libraries' numbers, and slopes."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter

import combined_losses as cl
from combined_losses._backend import backend, plain
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises

SSIM, MultiScale = cl.losses.SSIM, cl.losses.MultiScaleSSIM
Variation, PSNR = cl.losses.TotalVariation, cl.losses.PeakSignalToNoise
TWO = {"power_factors": (0.4, 0.6)}
SIMILARITIES = [pytest.param(SSIM, {}, id="SSIM"), pytest.param(MultiScale, TWO, id="MultiScale")]
similarities = pytest.mark.parametrize("loss, arguments", SIMILARITIES)

RNG = np.random.default_rng(0)
Y_TRUE = gaussian_filter(RNG.random((2, 26, 24, 3)), (0, 1, 1, 0)).astype("float32")
Y_TRUE = (Y_TRUE - Y_TRUE.min()) / np.ptp(Y_TRUE)
Y_PRED = Y_TRUE + RNG.normal(size=Y_TRUE.shape, scale=0.1).astype("float32")


def close(actual, expected, atol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


# Similarities.


def of_scipy(y, p, sigma=1.5, radius=5):
    """One minus the similarity of two images of one channel, where the window lies inside."""

    def mean(image):
        blurred = gaussian_filter(np.float64(image), sigma, radius=radius)
        return blurred[radius:-radius, radius:-radius]

    my, mp = mean(y), mean(p)
    vy, vp, cov = mean(y * y) - my**2, mean(p * p) - mp**2, mean(y * p) - my * mp
    c1, c2 = 0.01**2, 0.03**2
    return 1 - np.mean((2 * my * mp + c1) * (2 * cov + c2) / (my**2 + mp**2 + c1) / (vy + vp + c2))


def test_ssim_is_that_of_scipys_filters():
    y, p = np.float64(Y_TRUE), np.float64(Y_PRED)
    found = [np.mean([of_scipy(y[n, ..., c], p[n, ..., c]) for c in range(3)]) for n in (0, 1)]
    close(value(SSIM(reduction="none"), Y_TRUE, Y_PRED), found)


@pytest.mark.skipif(not hasattr(ops.image, "ssim"), reason="Keras 3.15 has it")
@pytest.mark.parametrize("size, max_value", [(11, 1.0), (8, 1.0), (7, 255.0)])
def test_ssim_is_that_of_keras(size, max_value):
    y, p = max_value * Y_TRUE, max_value * Y_PRED
    theirs = ops.image.ssim(y, p, max_val=max_value, filter_size=size, data_format="channels_last")
    ours = value(SSIM(max_value, size, reduction="none"), y, p)
    close(ours, 1 - ops.convert_to_numpy(theirs), atol=1e-5)


@similarities
def test_equal_images_are_0_and_stationary(loss, arguments):
    for y in (Y_TRUE, 0 * Y_TRUE, np.full_like(Y_TRUE, 0.3)):
        assert value(loss(**arguments), y, y) == 0.0
        np.testing.assert_array_equal(slope(loss(**arguments), y, y), 0 * y)


@similarities
def test_it_is_symmetric_and_has_no_unit(loss, arguments):
    expected = value(loss(**arguments), Y_TRUE, Y_PRED)
    close(value(loss(**arguments), Y_PRED, Y_TRUE), expected)
    for factor in (1e-12, 255.0, 1e12):
        scaled = loss(max_value=factor, **arguments)
        pair = np.float32(factor) * Y_TRUE, np.float32(factor) * Y_PRED
        close(value(scaled, *pair), expected)
        close(factor * slope(scaled, *pair), slope(loss(**arguments), Y_TRUE, Y_PRED))


@similarities
def test_far_from_0_the_variances_keep_their_digits(loss, arguments):
    offset = np.float32(1e3)  # a temperature, a pressure: k2 alone sees nothing but rounding there
    y_true, y_pred = Y_TRUE + offset, Y_PRED + offset
    expected = value(loss(**arguments, k1=1e4), y_true - offset, y_pred - offset)
    close(value(loss(**arguments, k1=1e4), y_true, y_pred), expected, atol=2e-5)


@pytest.mark.parametrize("loss", [SSIM(), cl.losses.LocalCrossCorrelation()])
@pytest.mark.parametrize("scale", [1e-20, 1e-7, 1e8])
def test_only_the_ratios_of_pixel_weights_count(loss, scale):
    weight = np.random.default_rng(3).uniform(size=Y_TRUE.shape[:3]).astype("float32")
    weight[:, :15] = 0.0
    expected = value(loss, Y_TRUE, Y_PRED, weight)
    assert expected > 0.1
    close(value(loss, Y_TRUE, Y_PRED, np.float32(scale) * weight), expected)


@similarities
def test_flips_and_turns_of_both_images_change_nothing(loss, arguments):
    expected = value(loss(**arguments), Y_TRUE, Y_PRED)
    for turn in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: a.swapaxes(1, 2)):
        turned = [np.ascontiguousarray(turn(a)) for a in (Y_TRUE, Y_PRED)]
        close(value(loss(**arguments), *turned), expected)


@similarities
def test_channels_are_averaged_and_one_may_go_without_an_axis(loss, arguments):
    of_channels = [
        value(loss(**arguments), Y_TRUE[..., c : c + 1], Y_PRED[..., c : c + 1]) for c in range(3)
    ]
    close(value(loss(**arguments), Y_TRUE, Y_PRED), np.mean(of_channels))
    first = Y_TRUE[..., 0], Y_PRED[..., 0]
    close(value(loss(**arguments), *first), of_channels[0])
    close(value(loss(**arguments), first[0], Y_PRED[..., :1]), of_channels[0])


@similarities
def test_more_noise_is_less_similar(loss, arguments):
    noise = Y_PRED - Y_TRUE
    found = [value(loss(**arguments), Y_TRUE, Y_TRUE + a * noise) for a in (0, 0.1, 0.5, 1, 3)]
    assert np.all(np.diff(found) > 0)


@similarities
def test_inverted_and_constant_images_are_finite(loss, arguments):
    """And in the range, also where rounding outweighs the smallest of constants."""
    flat = [np.full_like(Y_TRUE, c) for c in (0.0, 1e-20, 0.5, 1.0, 6e4)]
    pairs = [(Y_TRUE, 1 - Y_TRUE), *((Y_TRUE, f) for f in flat), *((f, flat[2]) for f in flat)]
    for y, p in pairs:
        for own in (loss(**arguments), loss(k1=1e-20, k2=1e-20, **arguments)):
            assert 0.0 <= value(own, y, p) <= 2.0
            assert np.all(np.isfinite(slope(own, y, p)))


def test_the_ranges_are_reached():
    board = np.indices((24, 24)).sum(axis=0) % 2
    board = np.float32(board).reshape(1, 24, 24, 1)
    assert 1.99 < value(SSIM(), board, 1 - board) <= 2.0
    close(value(MultiScale(**TWO), board, 1 - board), 1 - 1e-6**0.4, atol=1e-5)


def test_at_the_floor_of_all_scales_the_gradient_is_0():
    """As the documentation warns; beside an error of pixels there is one."""
    inverted = 1 - Y_TRUE
    np.testing.assert_array_equal(slope(MultiScale(**TWO), Y_TRUE, inverted), 0 * Y_TRUE)
    assert np.all(slope(0.84 * MultiScale(**TWO) + 0.16 * cl.as_loss("mae"), Y_TRUE, inverted))


def test_luminance_alone_for_a_window_of_one_pixel():
    my, mp, c1 = np.float64(Y_TRUE), np.float64(Y_PRED), 0.01**2
    expected = 1 - np.mean((2 * my * mp + c1) / (my**2 + mp**2 + c1))
    close(value(SSIM(filter_size=1), Y_TRUE, Y_PRED), expected)
    close(
        value(SSIM(filter_size=3, filter_sigma=1e-9), Y_TRUE, Y_PRED),
        np.mean((1 - (2 * my * mp + c1) / (my**2 + mp**2 + c1))[:, 1:-1, 1:-1]),
    )


def test_one_scale_is_ssim_of_each_channel():
    close(value(MultiScale(power_factors=[1.0]), Y_TRUE, Y_PRED), value(SSIM(), Y_TRUE, Y_PRED))
    close(value(MultiScale(power_factors=[0, 1.0]), Y_TRUE, Y_PRED), value(SSIM(), *halves()))


def halves():
    """Of 26 x 24 pixels, by hand."""
    return [a.reshape(2, 13, 2, 12, 2, 3).mean(axis=(2, 4)) for a in (Y_TRUE, Y_PRED)]


def test_the_last_window_of_an_odd_side_averages_what_is_there():
    odd = [a[:, :25, :23] for a in (Y_TRUE, Y_PRED)]
    ends = [np.pad(a, [(0, 0), (0, 1), (0, 1), (0, 0)], mode="edge") for a in odd]
    coarse = [a.reshape(2, 13, 2, 12, 2, 3).mean(axis=(2, 4)) for a in ends]
    close(value(MultiScale(power_factors=[0, 1.0]), *odd), value(SSIM(), *coarse))


@pytest.mark.parametrize("shape", [(2, 10, 24, 3), (2, 24, 10, 3), (2, 10, 24)])
def test_images_smaller_than_the_window_are_an_error(shape):
    with raises(ValueError, "SSIM needs", "at least 11", "has 10", "filter_size", f"{shape}"):
        SSIM()(np.zeros(shape), np.zeros(shape))


def test_images_too_small_for_the_scales_are_an_error():
    shape = (1, 176, 175, 3)
    with raises(
        ValueError, "at least 176", "has 175", "fewer power_factors", "smaller filter_size"
    ):
        MultiScale()(np.zeros(shape), np.zeros(shape))


NO_IMAGES = {SSIM: (2, 3, 24, 24, 24, 1), MultiScale: (2, 24, 24, 24, 1)}


@pytest.mark.parametrize("shape", [(24, 24), NO_IMAGES])
@similarities
def test_what_is_no_image_is_an_error(loss, arguments, shape):
    shape = shape if isinstance(shape, tuple) else shape[loss]
    with raises(
        ValueError, "(batch, height, width, channels)", f"Received: y_pred of shape {shape}"
    ):
        loss(**arguments)(np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("loss", [MultiScale(**TWO), Variation(), cl.losses.FocalFrequency()])
def test_what_cannot_weigh_pixels_says_so(loss):
    with pytest.raises(ValueError, match=r"cannot honour the sample_weight.*shape \(\d,\), or let"):
        loss(Y_TRUE, Y_PRED, np.ones(Y_TRUE.shape[:3], "float32"))


@similarities
def test_it_trains_where_the_size_is_unknown(loss, arguments):
    model = cl.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", loss=loss(**arguments))
    history = model.fit(Y_PRED, Y_TRUE, epochs=2, batch_size=1, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))


# Total variation.


@pytest.mark.parametrize("shape", [(3, 7, 2), (3, 4, 5, 2), (3, 4, 3, 5, 2)])
def test_variation_is_the_sum_over_the_axes_of_the_mean_steps(shape):
    field = RNG.normal(size=shape).astype("float32")
    axes = range(1, field.ndim - 1)
    means = [np.abs(np.diff(field, axis=a)).reshape(3, -1).mean(axis=1) for a in axes]
    close(value(Variation(reduction="none"), None, field), np.sum(means, axis=0))
    close(value(Variation(), None, 3 * field + 7), 3 * np.sum(means, axis=0).mean())


def test_variation_of_what_is_flat_is_0_and_stationary():
    flat = np.full((2, 4, 5, 1), 0.7, "float32")
    assert value(Variation(), None, flat) == 0.0
    np.testing.assert_array_equal(slope(Variation(), None, flat), 0 * flat)
    assert value(Variation(), None, flat[:, :1, :1]) == 0.0
    assert np.all(np.isfinite(slope(Variation(), None, flat[:, :1])))


def test_variation_of_a_ramp_is_that_of_a_step():
    ramp = np.arange(6.0).reshape(1, 6, 1)
    step = 5.0 * (np.arange(6.0).reshape(1, 6, 1) > 2)
    close(value(Variation(), None, ramp), value(Variation(), None, step))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3, 3, 3, 1)])
def test_variation_needs_one_to_three_axes(shape):
    with raises(ValueError, "one to three spatial axes", f"y_pred of shape {shape}"):
        Variation()(None, np.zeros(shape))


# Peak signal-to-noise.


@pytest.mark.parametrize("max_value", [1.0, 255.0])
def test_psnr_is_minus_that_of_keras(max_value):
    y_true, y_pred = max_value * Y_TRUE, max_value * Y_PRED
    theirs = [float(ops.psnr(y, p, max_value)) for y, p in zip(y_true, y_pred, strict=True)]
    close(value(PSNR(max_value, reduction="none"), y_true, y_pred), -np.array(theirs))


def test_ten_times_the_error_is_20_decibels():
    error = Y_PRED - Y_TRUE
    close(value(PSNR(), Y_TRUE, Y_TRUE + 10 * error) - value(PSNR(), Y_TRUE, Y_PRED), 20, 1e-4)


def test_psnr_of_equal_images_is_minus_100_and_stationary():
    close(value(PSNR(), Y_TRUE, Y_TRUE), -100.0)
    np.testing.assert_array_equal(slope(PSNR(), Y_TRUE, Y_TRUE), 0 * Y_TRUE)


@pytest.mark.parametrize("error", [1e-30, 1e-10, 1e-3, 1.0, 1e10, 1e18])
def test_psnr_is_finite(error):
    zeros = np.zeros((2, 3, 3, 1), "float32")
    assert np.isfinite(value(PSNR(), zeros, zeros + np.float32(error)))
    assert np.all(np.isfinite(slope(PSNR(), zeros, zeros + np.float32(error))))


def test_weights_of_pixels_act_inside():
    weight = RNG.integers(0, 3, Y_TRUE.shape[:3]).astype("float32")
    weight[1] = 0.0
    squared = np.square(np.float64(Y_PRED) - Y_TRUE).mean(axis=-1)
    mean = np.sum(weight[0] * squared[0]) / np.sum(weight[0])
    found = value(PSNR(reduction="none"), Y_TRUE, Y_PRED, weight)
    close(found, [10 * np.log10(mean + 1e-10), 0.0])  # no pixel counts in the second
    unknown = Y_TRUE.copy()
    unknown[weight == 0] = np.nan
    close(value(PSNR(reduction="none"), unknown, Y_PRED, weight), found)
    gradients = slope(PSNR(), unknown, Y_PRED, weight)
    assert np.all(np.isfinite(gradients))
    assert np.all(gradients[weight == 0] == 0)


WINDOW = np.array([0.2, 0.6, 0.2])


def halved(module, x):
    return module.halved(x, False)


def blurred(module, x):
    return module.blurred(x, WINDOW)


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (1, 5, 7, 1), (2, 6, 4, 2)])
@pytest.mark.parametrize("change", [halved, blurred])
def test_blurred_and_halved_images_have_the_slopes_of_the_plain_formulas(change, shape):
    def squares(module, x):  # whose slopes show the values too
        return ops.square(change(module, x))

    x = RNG.normal(size=shape).astype("float32")
    close(*(gradient(functools.partial(squares, m), x) for m in (backend, plain)))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others take plain formulas")
def test_slopes_of_images_are_differentiated_and_found_in_batches():
    import torch

    def slope_by(module):
        return torch.func.grad(lambda x: (halved(module, blurred(module, x**2)) ** 2).sum())

    def twice_by(module):
        return torch.func.grad(lambda x: slope_by(module)(x).square().sum())

    x = torch.tensor(RNG.normal(size=(3, 2, 7, 6, 2)).astype("float32"))
    for slopes in (slope_by, twice_by):
        expected = torch.stack([slopes(plain)(each) for each in x])
        close(torch.func.vmap(slopes(backend))(x), expected, atol=2e-5)
    rows = torch.func.jacrev(slope_by(backend))(x[0]).reshape(168, 168)
    close(rows, rows.T, atol=2e-5)
