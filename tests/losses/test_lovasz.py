"""What the Lovász losses claim: an integral of Jaccard losses, hard errors, ties, empty truths."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._backend import backend
from tests.losses.compiled import slope, values

Hinge, Softmax = cl.losses.LovaszHinge, cl.losses.LovaszSoftmax

RNG = np.random.default_rng(0)
Y_TRUE = np.eye(3, dtype="float32")[RNG.permuted(np.tile(np.arange(20) % 3, (4, 1)), axis=1)]
Y_TRUE = Y_TRUE.reshape(4, 4, 5, 3)
Y_PRED = RNG.dirichlet([1.0, 1.0, 1.0], (4, 4, 5)).astype("float32")
Z = RNG.normal(size=Y_TRUE.shape).astype("float32")
MASK, SHARE, SINGLE = (a[..., :1] for a in (Y_TRUE, Y_PRED, Z))

BOTH = {"hinge": (Hinge, Y_TRUE, Z), "softmax": (Softmax, Y_TRUE, Y_PRED)}
both = pytest.mark.parametrize("loss, y_true, y_pred", BOTH.values(), ids=BOTH)


def close(actual, expected, rtol=5e-6, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def jaccard(truth, wrong):
    """The Jaccard loss of a set of wrong pixels: they are all that union and overlap differ by."""
    union = np.sum(truth | wrong)
    return np.sum(wrong) / union if union else 0.0


def level_sets(truth, errors):
    """The integral, over the thresholds from 0 on, of the loss of the errors above them."""
    levels = np.concatenate([[0.0], np.sort(errors[errors > 0])])
    middles = (levels[1:] + levels[:-1]) / 2
    widths = np.diff(levels)
    return sum(w * jaccard(truth, errors > t) for w, t in zip(widths, middles, strict=True))


def by_level_sets(loss, y_true, y_pred):
    """Each sample and class, `(batch, channels)`."""
    y, p = (np.float64(a).reshape(len(a), -1, a.shape[-1]) for a in (y_true, y_pred))
    errors = np.abs(y - p) if loss is Softmax else 1 - p * (2 * y - 1)
    pairs = np.ndindex(len(y), y.shape[-1])
    found = [level_sets(y[n, :, c] == 1, errors[n, :, c]) for n, c in pairs]
    return np.reshape(found, (len(y), -1))


# The set function.


@both
def test_it_is_the_integral_of_the_jaccard_loss_over_level_sets(loss, y_true, y_pred):
    close(values(loss, y_true, y_pred), by_level_sets(loss, y_true, y_pred).mean(axis=-1))


@both
def test_an_empty_batch_is_0(loss, y_true, y_pred):
    close(loss()(y_true[:0], y_pred[:0]), 0)


def test_of_hard_errors_it_is_the_jaccard_loss():
    """A hinge error is 2 for the logits -1 and 1, and 0 where they are right."""
    hard = np.eye(3, dtype="float32")[RNG.integers(0, 3, (4, 4, 5))]
    expected = values(cl.losses.Jaccard, Y_TRUE, hard, smooth=0.0)
    close(values(Softmax, Y_TRUE, hard), expected)
    close(values(Hinge, Y_TRUE, 2 * hard - 1), 2 * expected)


def test_the_hinge_is_convex():
    other = RNG.normal(size=Z.shape).astype("float32")
    ends = values(Hinge, Y_TRUE, Z), values(Hinge, Y_TRUE, other)
    for share in (0.2, 0.5, 0.9):
        between = values(Hinge, Y_TRUE, share * Z + (1 - share) * other)
        assert np.all(between <= share * ends[0] + (1 - share) * ends[1] + 1e-6)


@both
def test_the_place_of_a_pixel_does_not_matter(loss, y_true, y_pred):
    """Nor whether the image is flat or a volume; the slope goes along with its pixel."""
    expected, slopes = values(loss, y_true, y_pred), slope(loss, y_true, y_pred)
    order = RNG.permutation(20)
    for shape in ((4, 20, 3), (4, 2, 2, 5, 3)):
        shuffled = [a.reshape(4, 20, 3)[:, order].reshape(shape) for a in (y_true, y_pred)]
        close(values(loss, *shuffled), expected)
        moved = slope(loss, *shuffled).reshape(4, 20, 3)
        close(moved, slopes.reshape(4, 20, 3)[:, order])


@both
def test_all_slopes_push_towards_the_truth(loss, y_true, y_pred):
    """That of a false alarm is 0 where all of the object is worse: then the overlap is empty."""
    slopes = slope(loss, y_true, y_pred)
    wrong = 1 - y_pred * (2 * y_true - 1) > 0 if loss is Hinge else np.full(y_true.shape, True)
    assert np.all(slopes[wrong & (y_true == 1)] < 0) and np.all(slopes[y_true == 0] >= 0)
    assert np.any(slopes[y_true == 0] > 0) and np.all(slopes[~wrong] == 0)


# Ties.


@pytest.mark.parametrize("first", [0, 1])
def test_equal_errors_have_one_value_in_any_order(first):
    """The truth lies first or last in the order of the pixels."""
    truth = np.array([first] * 8 + [1 - first] * 12, "float32").reshape(1, 4, 5, 1)
    half = np.full_like(truth, 0.5)
    close(values(Softmax, truth, half), 0.5)
    close(values(Hinge, truth, 0 * half), 1.0)
    # One after the other they add up to the Jaccard loss of all pixels, 1.
    for loss, y_pred in ((Softmax, half), (Hinge, 0 * half)):
        close(np.abs(slope(loss, truth, y_pred)).sum(), 1.0)


def test_errors_with_ties_are_those_of_the_level_sets():
    coarse = np.round(4 * SHARE) / 4
    close(values(Softmax, MASK, coarse), by_level_sets(Softmax, MASK, coarse)[:, 0])
    coarse = np.round(2 * SINGLE) / 2
    close(values(Hinge, MASK, coarse), by_level_sets(Hinge, MASK, coarse)[:, 0])


# Without an object, or nothing but it.


@pytest.mark.parametrize("loss", [Hinge, Softmax], ids=["hinge", "softmax"])
def test_without_an_object_the_largest_false_alarm_is_pushed_down(loss):
    y_pred = SINGLE if loss is Hinge else SHARE
    empty, largest = np.zeros_like(MASK), y_pred.max(axis=(1, 2, 3))
    close(values(loss, empty, y_pred), np.maximum(1 + largest, 0) if loss is Hinge else largest)
    expected = np.float32(y_pred == largest.reshape(4, 1, 1, 1))
    close(slope(loss, empty, y_pred), expected)


def test_without_an_object_a_hinge_with_its_margin_is_0():
    empty, z = np.zeros_like(MASK), np.full_like(MASK, -1.5)
    close(values(Hinge, empty, z), 0)
    close(slope(Hinge, empty, z), 0)


def test_classes_that_are_not_there_do_not_count():
    present = Y_TRUE[..., :2].copy()
    present[..., 0] = 1 - present[..., 1]
    y_true = np.concatenate([present, 0 * present[..., :1]], axis=-1)
    close(values(Softmax, y_true, Y_PRED), values(Softmax, present, Y_PRED[..., :2]))
    slopes = slope(Softmax, y_true, Y_PRED)
    assert np.all(slopes[..., 2] == 0)
    close(slopes[..., :2], slope(Softmax, present, Y_PRED[..., :2]))


def test_each_sample_has_its_own_classes():
    y_true = Y_TRUE.copy()
    y_true[:, ..., 0] += y_true[..., 2]
    y_true[..., 2] = 0
    mixed = np.concatenate([Y_TRUE[:2], y_true[2:]])
    close(values(Softmax, mixed, Y_PRED)[:2], values(Softmax, Y_TRUE, Y_PRED)[:2])
    close(values(Softmax, mixed, Y_PRED)[2:], values(Softmax, y_true, Y_PRED)[2:])


def test_a_truth_without_any_of_several_classes_is_0():
    empty = np.zeros_like(Y_TRUE)
    close(values(Softmax, empty, Y_PRED), 0)
    close(slope(Softmax, empty, Y_PRED), 0)


def test_an_object_everywhere_is_missed_pixel_by_pixel():
    """The union is the image: the Jaccard loss of a set is its share, so all slopes are 1 / 20."""
    full = np.ones_like(MASK)
    close(values(Softmax, full, SHARE), (1 - SHARE).mean((1, 2, 3)))
    close(slope(Softmax, full, SHARE), -1 / 20)
    close(values(Hinge, full, SINGLE), np.maximum(1 - SINGLE, 0).mean((1, 2, 3)))


# Perfect predictions, ranges and logits.


def test_a_perfect_prediction_is_0_with_slope_0():
    close(values(Softmax, Y_TRUE, Y_TRUE), 0)
    close(slope(Softmax, Y_TRUE, Y_TRUE), 0)
    for margin in (1.5, 100.0):
        close(values(Hinge, Y_TRUE, margin * (2 * Y_TRUE - 1)), 0)
        close(slope(Hinge, Y_TRUE, margin * (2 * Y_TRUE - 1)), 0)
    close(values(Hinge, Y_TRUE, 2 * Y_TRUE - 1), 0)


def test_the_softmax_lies_between_0_and_1():
    for y_true in (Y_TRUE, 0 * Y_TRUE, 0 * Y_TRUE + 1):
        for y_pred in (Y_PRED, Y_TRUE, 1 - Y_TRUE, 0 * Y_PRED, 0 * Y_PRED + 1):
            found = values(Softmax, y_true, y_pred)
            assert np.all(found >= 0) and np.all(found <= 1 + 1e-6)


def test_the_hinge_grows_without_bound():
    """All logits are wrong by a: the error 1 + a, times the Jaccard loss of all pixels, 1."""
    for size in (10.0, 100.0, 1e6):
        z = -size * (2 * Y_TRUE - 1)
        close(values(Hinge, Y_TRUE, z), 1 + size)
        assert np.all(np.isfinite(slope(Hinge, Y_TRUE, z)))


def test_logits_go_through_a_sigmoid_or_a_softmax():
    shares = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    close(values(Softmax, Y_TRUE, Z, from_logits=True), values(Softmax, Y_TRUE, shares))
    sigmoid = 1 / (1 + np.exp(-SINGLE))
    close(values(Softmax, MASK, SINGLE, from_logits=True), values(Softmax, MASK, sigmoid))


def test_logits_that_are_surely_right_or_wrong():
    for y_true in (Y_TRUE, MASK):
        for sign, expected in ((1, 0.0), (-1, 1.0)):
            z = sign * 100 * (2 * y_true - 1)
            close(values(Softmax, y_true, z, from_logits=True), expected)
            assert np.all(np.isfinite(slope(Softmax, y_true, z, from_logits=True)))


def test_channels_of_the_hinge_are_masks_of_their_own():
    """They may overlap, or all be empty; each counts."""
    y_true = np.concatenate([MASK, MASK, 0 * MASK], axis=-1)
    of_channel = [values(Hinge, y_true[..., c, None], Z[..., c, None]) for c in range(3)]
    close(values(Hinge, y_true, Z), np.mean(of_channel, axis=0))


def test_a_large_image_keeps_its_digits():
    """2^17 pixels, all alike: the last of the sums is 2^16, where float16 ends."""
    truth = np.tile(np.array([0.0, 1.0], "float16"), 2**16).reshape(1, 2**8, 2**9, 1)
    close(values(Softmax, truth, np.full_like(truth, 0.25)), expected_of_halves(0.25))


def expected_of_halves(p):
    """Half of the pixels miss 1 - p, the others add p: up to p all are wrong, then the truth."""
    return p + (1 - 2 * p) * 1.0


@pytest.mark.parametrize("length", [1, 2, 1000, 2**16 + 1])
def test_the_order_is_that_of_the_numbers(length):
    """XLA on a CPU sorts by digits of the bits: both signs, ties, infinities and tiny numbers."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=length)
    ends = rng.choice([0.0, 1.0, np.inf, -np.inf], length)
    rows = np.stack([normal, np.round(normal), ends, 1e-30 * normal]).astype("float32")
    order = keras.ops.convert_to_numpy(backend.order_down(keras.ops.convert_to_tensor(rows)))
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(length), (4, 1)))
    np.testing.assert_array_equal(np.take_along_axis(rows, order, axis=-1), -np.sort(-rows))
