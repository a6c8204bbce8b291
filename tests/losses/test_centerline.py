"""What the centre-line loss claims: breaks and not rims, radii, ties, two and three dimensions."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._backend import backend, plain
from combined_losses.losses.regions.centerline import _dilate, _erode, skeleton
from tests.gradients import gradient
from tests.losses import compiled
from tests.oracles import regions

Line = cl.losses.CenterlineDice

RNG = np.random.default_rng(0)
Y_TRUE = (RNG.uniform(size=(2, 7, 8, 2)) < 0.5).astype("float32")
Y_PRED = RNG.uniform(0.02, 0.98, (2, 7, 8, 2)).astype("float32")
VOLUME_TRUE = (RNG.uniform(size=(2, 3, 4, 5, 1)) < 0.5).astype("float32")
VOLUME_PRED = RNG.uniform(0.02, 0.98, (2, 3, 4, 5, 1)).astype("float32")
FLAT_AND_DEEP = pytest.mark.parametrize(
    "y_true, y_pred", [(Y_TRUE, Y_PRED), (VOLUME_TRUE, VOLUME_PRED)], ids=["2-D", "3-D"]
)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


values, slope = (functools.partial(f, Line) for f in (compiled.values, compiled.slope))


def bar(width, length=8, height=9):
    """A bar of odd width, across an image, `(1, height, length, 1)`."""
    image = np.zeros((1, height, length, 1), "float32")
    middle = height // 2
    image[:, middle - width // 2 : middle + width // 2 + 1] = 1
    return image


def lines(mask, iterations):
    return ops.convert_to_numpy(skeleton(ops.convert_to_tensor(mask), iterations))


# The centre line.


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_line_of_a_bar_is_its_middle(width):
    for iterations in (width // 2, 4):
        np.testing.assert_array_equal(lines(bar(width), iterations), bar(1))
    if width > 1:  # the erosions do not reach it
        np.testing.assert_array_equal(lines(bar(width), width // 2 - 1), 0 * bar(1))


def test_the_line_of_a_tube_is_its_middle():
    tube, middle = np.zeros((2, 1, 5, 5, 6, 1), "float32")
    tube[:, 1:4, 1:4] = middle[:, 2, 2] = 1
    np.testing.assert_array_equal(lines(tube, 1), middle)


@pytest.mark.parametrize("iterations", [1, 3])
@FLAT_AND_DEEP
def test_it_is_that_of_minimum_and_maximum_filters(y_true, y_pred, iterations):
    close(lines(y_pred, iterations), regions.skeleton(y_pred, iterations))


# What is counted.


def test_a_thin_prediction_of_a_thick_vessel_is_perfect():
    assert np.all(values(bar(5), bar(1)) == 0)


def test_a_break_is_counted_once_for_each_line():
    """Of 8 pixels 2 are missing: the predicted line is right, the true one is found to 3 / 4."""
    broken = bar(1)
    broken[:, :, 3:5] = 0
    close(values(bar(1), broken, smooth=1e-6), 1 - 2 * 0.75 / 1.75)
    close(values(broken, bar(1), smooth=1e-6), 1 - 2 * 0.75 / 1.75)
    smoothed = (6 + 0.5) / (8 + 0.5)
    close(values(bar(1), broken, smooth=0.5), 1 - 2 * smoothed / (1 + smoothed))


def test_iterations_must_reach_the_radius():
    """One erosion of five pixels leaves no line: then nothing is missed."""
    missed = 0 * bar(5)
    close(values(bar(5), missed, iterations=1), 0)
    close(values(bar(5), missed, iterations=2), 1 - 2 / 9 / (1 + 1 / 9))  # Ts = 1 / (8 + 1)


def test_it_is_the_mean_of_the_channels():
    of_channel = [values(Y_TRUE[..., c, None], Y_PRED[..., c, None]) for c in range(2)]
    close(values(Y_TRUE, Y_PRED), np.mean(of_channel, axis=0))


def test_height_and_width_are_alike_and_so_are_the_directions():
    expected, slopes = values(Y_TRUE, Y_PRED), slope(Y_TRUE, Y_PRED, iterations=1)
    for move in (lambda a: a.swapaxes(1, 2), lambda a: np.flip(a, (1, 2)).copy()):
        close(values(move(Y_TRUE), move(Y_PRED)), expected)
        close(slope(move(Y_TRUE), move(Y_PRED), iterations=1), move(slopes))


def test_a_volume_of_one_slice_is_an_image():
    deep = [a[:, None] for a in (Y_TRUE, Y_PRED)]
    close(values(*deep), values(Y_TRUE, Y_PRED))
    close(slope(*deep, iterations=1)[:, 0], slope(Y_TRUE, Y_PRED, iterations=1))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has them")
def test_an_axis_of_length_1_of_unknown_size():
    import tensorflow as tf

    shape = (None, None, None, None, 2)
    signature = [tf.TensorSpec(shape), tf.TensorSpec(shape)]
    loss = tf.function(Line(reduction="none").call, input_signature=signature)
    close(loss(Y_TRUE[:, None], Y_PRED[:, None]), values(Y_TRUE, Y_PRED))


# Without an object, or nothing but it.


@FLAT_AND_DEEP
def test_without_an_object_the_line_that_is_predicted_is_pushed_down(y_true, y_pred):
    """Ts = 1 and Tp = smooth / (sum S(p) + smooth): the loss is 1 - 2 Tp / (Tp + 1).

    A constant is no line: a fainter prediction is better, not one that is lower everywhere.
    """
    empty, axes = np.zeros_like(y_true), tuple(range(1, y_true.ndim - 1))
    for smooth in (0.1, 1.0):
        right = smooth / (regions.skeleton(y_pred, 3).sum(axes) + smooth)
        close(values(empty, y_pred, smooth=smooth), np.mean(1 - 2 * right / (right + 1), axis=-1))
    slopes = slope(empty, y_pred, iterations=1)
    assert np.all(np.isfinite(slopes)) and np.all((slopes * y_pred).sum(axis=axes) > 1e-3)


@FLAT_AND_DEEP
def test_a_perfect_prediction_is_exactly_0(y_true, y_pred):
    for truth in (y_true, 0 * y_true, 0 * y_true + 1):
        assert np.all(values(truth, truth) == 0)
        assert np.all(np.isfinite(slope(truth, truth, iterations=1)))


def test_it_lies_between_0_and_1():
    for y_true in (Y_TRUE, 0 * Y_TRUE, 0 * Y_TRUE + 1):
        for y_pred in (Y_PRED, Y_TRUE, 1 - Y_TRUE, 0 * Y_PRED, 0 * Y_PRED + 1):
            for smooth in (1e-6, 1.0):
                found = values(y_true, y_pred, smooth=smooth)
                assert np.all(found >= -1e-6) and np.all(found <= 1 + 1e-6)


# Logits.


def test_logits_go_through_a_sigmoid_or_a_softmax():
    z = RNG.normal(size=Y_PRED.shape).astype("float32")
    shares = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    close(values(Y_TRUE, z, from_logits=True), values(Y_TRUE, shares))
    single, mask = z[..., :1], Y_TRUE[..., :1]
    sigmoid = 1 / (1 + np.exp(-single))
    close(values(mask, single, from_logits=True), values(mask, sigmoid))


def test_logits_that_are_surely_right_or_wrong():
    mask = Y_TRUE[..., :1]
    for size in (10.0, 100.0):
        right, wrong = (sign * size * (2 * mask - 1) for sign in (1, -1))
        close(values(mask, right, from_logits=True), 0, atol=1e-3)
        assert np.all(values(mask, wrong, from_logits=True) > 0.5)
        assert np.all(np.isfinite(slope(mask, wrong, from_logits=True, iterations=1)))
    assert np.any(slope(mask, wrong / 10, from_logits=True, iterations=1) != 0)


# Ties: they are everywhere after an erosion, and in hard masks.


@pytest.mark.parametrize("shape", [(1, 3, 3, 3, 1), (2, 4, 5, 6, 2), (2, 4, 5, 3), (2, 6, 1)])
@pytest.mark.parametrize("pool", [_dilate, _erode], ids=["dilate", "erode"])
def test_the_slopes_of_a_pool_add_up_to_the_pixels(pool, shape):
    """TensorFlow's 3-D max pool has 27 where there is 1: it gives each of what ties the whole."""
    for x in (np.full(shape, 0.5, "float32"), RNG.integers(0, 2, shape).astype("float32")):
        axes = tuple(range(1, len(shape) - 1))
        slopes = gradient(pool, x)
        close(slopes.sum(axis=axes), np.full((shape[0], shape[-1]), np.prod(shape[1:-1])))


@pytest.mark.parametrize("shape", [(2, 6, 5, 2), (1, 4, 3, 5, 1), (2, 1, 2, 1), (2, 7, 1)])
@pytest.mark.parametrize("pool", ["least_of_three", "greatest_of_three"])
def test_neighbours_share_their_slope_as_by_the_plain_formula(pool, shape):
    upstream = ops.convert_to_tensor(RNG.normal(size=shape).astype("float32"))
    for x in (RNG.uniform(size=shape), RNG.integers(0, 3, shape), np.ones(shape)):
        for axis in range(1, len(shape) - 1):
            slopes = []
            for module in (backend, plain):
                chosen = functools.partial(getattr(module, pool), axis=axis)
                slopes.append(_slope_of_product(chosen, upstream, x.astype("float32")))
            close(*slopes)


def _slope_of_product(function, upstream, x):
    return gradient(lambda x: function(x) * upstream, x)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others take plain formulas")
def test_slopes_of_choices_are_differentiated_and_found_in_batches():
    import torch

    def lines(choices, x):
        eroded = choices.lesser(choices.least_of_three(x**2, 0), choices.least_of_three(x**3, 1))
        return (choices.greatest_of_three(eroded, 0) ** 2).sum()

    def found(choices, x):
        slope = torch.func.grad(functools.partial(lines, choices))
        twice = torch.func.grad(lambda x: slope(x).square().sum())
        several = torch.func.jacrev(lambda x: torch.stack([lines(choices, x), x.sum()]))
        return [torch.func.vmap(slope)(x), torch.func.vmap(twice)(x), several(x[0])]

    x = torch.tensor(Y_PRED)
    for own, formula in zip(found(backend, x), found(plain, x), strict=True):
        close(own, formula)


@pytest.mark.parametrize("deep", [False, True], ids=["2-D", "3-D"])
def test_in_a_constant_window_the_slopes_add_up_to_the_derivative(deep):
    """The pixels of a blob are moved together, then those around it: that has a derivative."""
    y_true, blob = np.zeros((2, 1, *[5] * (2 + deep), 1), "float32")
    y_true[:, 2] = 1
    blob[:, 1:4, 1:4] = 1
    y_pred = np.float32(0.25 + 0.5 * blob)
    slopes = slope(y_true, y_pred, iterations=1)

    def moved(direction, step):
        shifted = np.float64(y_pred) + step * direction
        return oracle_value(y_true, shifted, iterations=1)

    for direction in (blob, 1 - blob):
        derivative = (moved(direction, 1e-6) - moved(direction, -1e-6)) / 2e-6
        close(np.sum(slopes * direction), derivative)
        assert abs(derivative) > 1e-3


def oracle_value(y_true, y_pred, iterations, smooth=1.0):
    line_p, line_y = (regions.skeleton(a, iterations) for a in (y_pred, y_true))
    precision = ((line_p * y_true).sum() + smooth) / (line_p.sum() + smooth)
    recall = ((line_y * y_pred).sum() + smooth) / (line_y.sum() + smooth)
    return 1 - 2 * precision * recall / (precision + recall)


def test_in_three_dimensions_it_has_the_gradient_of_the_twin():
    expected, slopes = regions.centerline_dice(VOLUME_TRUE, VOLUME_PRED)
    close(values(VOLUME_TRUE, VOLUME_PRED), expected)
    close(slope(VOLUME_TRUE, VOLUME_PRED), slopes)
