"""What the losses of contours claim: distances as slopes, linearity, masks without a contour."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.losses import distance_maps, signed_distance
from tests.composite.children import value
from tests.losses.compiled import slope, values
from tests.messages import raises

Signed, Hausdorff = cl.losses.SignedDistanceBoundary, cl.losses.HausdorffDistance

RNG = np.random.default_rng(0)
Y_TRUE = RNG.integers(0, 2, (3, 5, 6, 2)).astype("float32")
Y_PRED = RNG.uniform(0.02, 0.98, (3, 5, 6, 2)).astype("float32")
VOLUME_TRUE = RNG.integers(0, 2, (2, 3, 4, 5, 1)).astype("float32")
VOLUME_PRED = RNG.uniform(0.02, 0.98, (2, 3, 4, 5, 1)).astype("float32")
DIAGONAL = np.hypot(5, 6)

FLAT_AND_DEEP = pytest.mark.parametrize(
    "y_true, y_pred", [(Y_TRUE, Y_PRED), (VOLUME_TRUE, VOLUME_PRED)], ids=["2-D", "3-D"]
)
both = pytest.mark.parametrize("loss", [Signed, Hausdorff], ids=lambda c: c.__name__)


def close(actual, expected, rtol=5e-6, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def images(*pixels, shape=(5, 6)):
    """Masks of one pixel each, `(n, height, width, 1)`."""
    masks = np.zeros((len(pixels), *shape, 1), "float32")
    for mask, pixel in zip(masks, pixels, strict=True):
        mask[pixel] = 1
    return masks


# The signed distance.


@FLAT_AND_DEEP
def test_the_slope_is_the_signed_distance_in_diagonals(y_true, y_pred):
    """Divided by the pixels and channels of a sample; of three sides in a volume."""
    axes = tuple(range(1, y_true.ndim - 1))
    phi = signed_distance(y_true, axes=axes) / np.linalg.norm(y_true.shape[1:-1])
    close(slope(Signed, y_true, y_pred), phi / y_true[0].size)
    close(values(Signed, y_true, y_pred), (y_pred * phi).mean(axis=(*axes, -1)))


def test_a_false_alarm_costs_its_distance():
    centre = images((2, 2))
    for pixel, distance in (((2, 3), 1), ((2, 5), 3), ((0, 0), np.sqrt(8)), ((4, 5), np.sqrt(13))):
        alarm = centre + images(pixel)
        close(values(Signed, centre, alarm), distance / DIAGONAL / 30)


def test_a_miss_costs_its_depth():
    """The rim of a square of 3 x 3 is free; its centre lies one pixel behind the rim."""
    square = np.zeros((1, 5, 6, 1), "float32")
    square[:, 1:4, 1:4] = 1
    for pixel, depth in (((1, 1), 0), ((1, 2), 0), ((2, 2), 1)):
        missed = square - images(pixel)
        gain = values(Signed, square, missed) - values(Signed, square, square)
        close(gain, depth / DIAGONAL / 30)


def test_it_is_linear_in_the_prediction():
    other = RNG.uniform(0, 1, Y_PRED.shape).astype("float32")
    mixed = values(Signed, Y_TRUE, 0.25 * Y_PRED + 2 * other)
    close(mixed, 0.25 * values(Signed, Y_TRUE, Y_PRED) + 2 * values(Signed, Y_TRUE, other), 2e-5)


def test_no_prediction_is_better_than_the_truth():
    best = values(Signed, Y_TRUE, Y_TRUE)
    for y_pred in (Y_PRED, 1 - Y_TRUE, 0 * Y_TRUE, 0 * Y_TRUE + 1):
        assert np.all(values(Signed, Y_TRUE, y_pred) >= best - 1e-7)
    disc = np.hypot(*(np.mgrid[:9, :9] - 4)) < 3.5
    disc = disc.astype("float32").reshape(1, 9, 9, 1)
    assert values(Signed, disc, disc) < 0


def test_masks_without_a_contour_cost_nothing_and_have_no_slope():
    """Channel by channel: an empty one, a full one, and one with a single pixel."""
    one = images((1, 1))
    y_true = np.concatenate([0 * one, 0 * one + 1, one], axis=-1)
    y_pred = RNG.uniform(0, 1, y_true.shape).astype("float32")
    slopes = slope(Signed, y_true, y_pred)
    np.testing.assert_array_equal(slopes[..., :2], 0 * slopes[..., :2])
    assert np.sum(slopes[..., 2] == 0) == 1  # the pixel itself, which is all rim
    close(values(Signed, y_true, y_pred), values(Signed, one, y_pred[..., 2:]) / 3)


# The Hausdorff distance.


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_a_wrong_pixel_weighs_a_power_of_its_distances(alpha):
    """The island lies 3 away from the truth, and 1 away from the rest of the prediction."""
    centre = images((2, 2))
    found = values(Hausdorff, centre, centre + images((2, 5)), alpha=alpha)
    close(found, (3**alpha + 1) / DIAGONAL**alpha / 30)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_the_farther_island_rules_with_a_larger_alpha(alpha):
    centre, far, near = images((0, 0)), images((0, 5)), images((0, 2))
    costs = [values(Hausdorff, centre, centre + island, alpha=alpha) for island in (far, near)]
    close(costs[0] / costs[1], (5**alpha + 1) / (2**alpha + 1))


def test_two_hard_masks_are_alike():
    masks = RNG.integers(0, 2, (2, 3, 5, 6, 2)).astype("float32")
    close(values(Hausdorff, *masks), values(Hausdorff, *masks[::-1]))


@FLAT_AND_DEEP
def test_its_slope_is_that_of_the_squared_error_alone(y_true, y_pred):
    """Distances are constants: 2 e (d_p^2 + d_y^2) / pixels, of the other kind in both masks."""
    axes = tuple(range(1, y_true.ndim - 1))
    squares = []
    for mask in (y_pred > 0.5, y_true > 0.5):
        inside, outside = (signed_distance(m, axes=axes) for m in (mask, ~mask))
        squares.append(np.where(mask, outside, inside) ** 2)
    weight = sum(squares) / np.sum(np.square(y_true.shape[1:-1]))
    close(slope(Hausdorff, y_true, y_pred), 2 * (y_pred - y_true) * weight / y_true[0].size, 2e-5)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_a_perfect_prediction_is_0_with_slope_0(alpha):
    for y in (Y_TRUE, 0 * Y_TRUE, 0 * Y_TRUE + 1):
        assert np.all(values(Hausdorff, y, y, alpha=alpha) == 0)
        np.testing.assert_array_equal(slope(Hausdorff, y, y, alpha=alpha), 0 * y)


def test_a_prediction_below_one_half_is_no_mask():
    faint = np.minimum(Y_PRED, 0.5)
    assert np.all(values(Hausdorff, 0 * Y_TRUE, faint) == 0)
    np.testing.assert_array_equal(slope(Hausdorff, 0 * Y_TRUE, faint), 0 * faint)


def test_false_alarms_without_an_object_are_pushed_down():
    for alpha in (0.5, 2.0):
        slopes = slope(Hausdorff, 0 * Y_TRUE, Y_PRED, alpha=alpha)
        assert np.all(np.isfinite(slopes)) and np.all(slopes > 0)
        slopes = slope(Hausdorff, 0 * Y_TRUE + 1, Y_PRED, alpha=alpha)
        assert np.all(np.isfinite(slopes)) and np.all(slopes < 0)


# Both.


@both
def test_the_truth_is_what_is_above_one_half(loss):
    soft = np.where(Y_TRUE == 1, np.float32(0.51), np.float32(0.5))
    if loss is Signed:
        close(values(loss, soft, Y_PRED), values(loss, Y_TRUE, Y_PRED))
    else:  # the error is that of the soft one
        ratio = (Y_PRED - soft) ** 2 / (Y_PRED - Y_TRUE) ** 2
        slopes = slope(loss, Y_TRUE, Y_PRED) * (Y_PRED - soft) / (Y_PRED - Y_TRUE)
        assert np.all(ratio > 0)
        close(slope(loss, soft, Y_PRED), slopes, rtol=2e-5)


@both
def test_channels_are_masks_of_their_own(loss):
    of_channel = [values(loss, Y_TRUE[..., c, None], Y_PRED[..., c, None]) for c in (0, 1)]
    close(values(loss, Y_TRUE, Y_PRED), np.mean(of_channel, axis=0))


@both
def test_height_and_width_are_alike_and_so_are_the_directions(loss):
    expected = values(loss, Y_TRUE, Y_PRED)
    for move in (lambda a: a.swapaxes(1, 2).copy(), lambda a: np.flip(a, (1, 2)).copy()):
        close(values(loss, move(Y_TRUE), move(Y_PRED)), expected)


@both
def test_logits_go_through_a_sigmoid_or_a_softmax(loss):
    z = RNG.normal(size=Y_PRED.shape).astype("float32")
    shares = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    close(values(loss, Y_TRUE, z, from_logits=True), values(loss, Y_TRUE, shares))
    single, mask = z[..., :1], Y_TRUE[..., :1]
    sigmoid = 1 / (1 + np.exp(-single))
    close(values(loss, mask, single, from_logits=True), values(loss, mask, sigmoid))


@both
def test_logits_that_are_surely_right_or_wrong(loss):
    mask = Y_TRUE[..., :1]
    for sign, y_pred in ((1, mask), (-1, 1 - mask)):
        z = sign * 100 * (2 * mask - 1)
        close(values(loss, mask, z, from_logits=True), values(loss, mask, y_pred))
        assert np.all(np.isfinite(slope(loss, mask, z, from_logits=True)))


# Weights of pixels.


@pytest.mark.parametrize("from_logits", [False, True], ids=["probabilities", "logits"])
@both
def test_weights_of_pixels_act_inside_and_void_ones_are_background(loss, from_logits):
    """The mean over what counts; of masks in which the rest is 0, whatever stands there."""
    weight = RNG.uniform(0.5, 2.0, (3, 5, 6)).astype("float32")
    weight[:, :2] = 0
    void = weight[..., None] == 0
    y_true, y_pred = np.where(void, 0, Y_TRUE[..., :1]), np.where(void, 0, Y_PRED[..., :1])
    if loss is Signed:
        of_pixel = y_pred * signed_distance(y_true, axes=(1, 2)) / DIAGONAL
    else:
        squares = [
            np.where(mask > 0.5, 1 - phi, phi) ** 2 / DIAGONAL**2
            for mask in (y_true, y_pred)
            for phi in [signed_distance(mask, axes=(1, 2))]
        ]
        of_pixel = (y_true - y_pred) ** 2 * sum(squares)
    expected = [np.average(v[..., 0], weights=w) for v, w in zip(of_pixel, weight, strict=True)]
    y_seen = np.where(void, np.nan, y_true).astype("float32")
    p_seen = np.where(void, 0.9, y_pred).astype("float32")
    if from_logits:
        p_seen = np.log(p_seen / (1 - p_seen))
    found = values(loss, y_seen, p_seen, weight, from_logits=from_logits)
    close(found, expected, rtol=2e-5)
    sloped = slope(loss, y_seen, p_seen, weight, from_logits=from_logits)
    assert np.all(np.isfinite(sloped)) and np.all(sloped[void] == 0) and np.any(sloped != 0)


# Neighbours that are not 1 apart.


@both
def test_the_unit_of_the_spacing_does_not_matter(loss):
    expected = values(loss, Y_TRUE, Y_PRED, spacing=[2.0, 0.5])
    for unit in (1e-20, 3.0, 1e20):
        close(values(loss, Y_TRUE, Y_PRED, spacing=[2.0 * unit, 0.5 * unit]), expected)
        close(values(loss, Y_TRUE, Y_PRED, spacing=unit), values(loss, Y_TRUE, Y_PRED))
    assert np.all(expected != values(loss, Y_TRUE, Y_PRED))


@both
def test_a_spacing_belongs_to_its_axis(loss):
    turned = Y_TRUE.swapaxes(1, 2).copy(), Y_PRED.swapaxes(1, 2).copy()
    expected = values(loss, Y_TRUE, Y_PRED, spacing=[3.0, 1.0])
    close(values(loss, *turned, spacing=(1.0, 3.0)), expected)
    first = np.moveaxis(Y_TRUE, -1, 1), np.moveaxis(Y_PRED, -1, 1)
    close(values(loss, *first, spacing=[3.0, 1.0], data_format="channels_first"), expected)


def test_a_false_alarm_in_the_next_slice_costs_the_thickness():
    centre = images((2, 2))
    diagonal = np.hypot(3 * 5, 6)
    for pixel, distance in (((2, 3), 1), ((3, 2), 3), ((4, 5), np.sqrt(45))):
        alarm = centre + images(pixel)
        close(values(Signed, centre, alarm, spacing=[3.0, 1.0]), distance / diagonal / 30)


@both
def test_a_spacing_for_other_axes_is_an_error(loss):
    with raises(
        ValueError, f"`spacing` of {loss.__name__}", "each of the 2 axes", "[1.0, 2.0, 3.0]"
    ):
        loss(spacing=[1.0, 2.0, 3.0])(Y_TRUE, Y_PRED)


@pytest.mark.parametrize("spacing", [None, 2.0, [3.0, 1.0]])
def test_maps_that_were_computed_before_are_those_of_the_loss(spacing):
    maps = distance_maps(Y_TRUE, spacing)
    assert maps.dtype == "float32" and maps.shape == Y_TRUE.shape
    close(
        values(Signed, maps, Y_PRED, precomputed=True),
        values(Signed, Y_TRUE, Y_PRED, spacing=spacing),
    )
    close(
        slope(Signed, maps, Y_PRED, precomputed=True),
        slope(Signed, Y_TRUE, Y_PRED, spacing=spacing),
    )


def test_maps_of_thin_volumes_and_of_masks_without_a_contour():
    maps = distance_maps(VOLUME_TRUE, [5.0, 1.0, 1.0])
    expected = values(Signed, VOLUME_TRUE, VOLUME_PRED, spacing=[5.0, 1.0, 1.0])
    close(values(Signed, maps, VOLUME_PRED, precomputed=True), expected)
    for constant in (0.0, 1.0):
        assert np.all(distance_maps(np.full((2, 4, 4, 1), constant), 0.1) == 0)


def test_weights_and_missing_distances_act_as_those_of_masks():
    maps = distance_maps(Y_TRUE)
    weight = RNG.uniform(0.5, 2.0, (3, 5, 6)).astype("float32")
    found = values(Signed, maps, Y_PRED, weight, precomputed=True)
    terms = (maps * Y_PRED).mean(axis=-1)
    close(found, [np.average(t, weights=w) for t, w in zip(terms, weight, strict=True)])
    missing = np.where(weight[..., None] > 1, maps, np.nan).astype("float32")
    loss = cl.wrappers.Masked(Signed(precomputed=True, reduction="none"))
    there = (weight > 1).astype("float32")
    close(value(loss, missing, Y_PRED), values(Signed, maps, Y_PRED, there, precomputed=True))


def test_maps_have_a_spacing_already():
    with raises(
        ValueError, "`precomputed=True`", "`spacing` must be None", "Received: spacing=2.0"
    ):
        Signed(precomputed=True, spacing=2.0)


def test_maps_are_not_flagged_as_masks_out_of_range():
    model = cl.Sequential([keras.Input((5, 6, 2)), keras.layers.Identity()])
    model.compile("sgd", loss=cl.CompositeLoss({"contour": Signed(precomputed=True)}))
    found = cl.diagnose(model, Y_PRED, distance_maps(Y_TRUE))
    assert "targets out of range" not in str(found.flags)
