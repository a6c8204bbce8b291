"""Which pixels count: void ones, masks and weights act inside of the region losses."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.losses.compiled import slope, values
from tests.masks import masked
from tests.messages import raises

L = cl.losses
OVERLAP = (L.Dice, L.Jaccard, L.Tversky, L.FocalTversky, L.GeneralizedDice)
SETS = (*OVERLAP, L.LovaszHinge, L.LovaszSoftmax)
REGIONS = (*SETS, L.CenterlineDice)
CONTOURS = (L.SignedDistanceBoundary, L.HausdorffDistance)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (4, 4, 5))
LABELS[:, 2:, 2] = [0, 1]  # no class is absent, cropped or not
LABELS[:, 2:, 3] = 2
Y_TRUE = np.eye(3, dtype="float32")[LABELS]
Y_PRED = RNG.dirichlet([1.0, 1.0, 1.0], LABELS.shape).astype("float32")
SAMPLES = np.array([2.0, 0.0, 0.5, 1.0], "float32")

# Each erosion of a slope is compiled, which takes its time.
FEW = {L.CenterlineDice: {"iterations": 1}}

VOID = np.zeros(LABELS.shape, bool)
VOID[:, :2] = True
COUNTS = np.float32(~VOID)


def of(*classes):
    return pytest.mark.parametrize("loss", classes, ids=lambda c: c.__name__)


def close(actual, expected, rtol=5e-6, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def marked(y_true, number, void=VOID):
    """`number` in all channels of the void pixels."""
    return np.where(void[..., None], np.float32(number), y_true)


def cropped(array):
    return array[:, 2:]


# Void pixels.


@pytest.mark.parametrize("number", [-1.0, 255])
@of(*SETS)
def test_void_pixels_are_cut_out(loss, number):
    y_true = marked(Y_TRUE, number)
    expected = values(loss, cropped(Y_TRUE), cropped(Y_PRED))
    close(values(loss, y_true, Y_PRED, ignore_value=number), expected)
    slopes = slope(loss, y_true, Y_PRED, ignore_value=number)
    close(cropped(slopes), slope(loss, cropped(Y_TRUE), cropped(Y_PRED)))
    assert np.all(slopes[VOID] == 0)


@of(L.Dice, L.GeneralizedDice, L.LovaszSoftmax)
def test_void_pixels_lie_anywhere_in_every_sample(loss):
    order = [RNG.permutation(20) for _ in range(4)]
    void, y_true, y_pred = (
        np.stack([a.reshape(20, -1)[o] for a, o in zip(array, order, strict=True)])
        for array in (VOID, marked(Y_TRUE, -1), Y_PRED)
    )
    arrays = (array.reshape(4, 2, 10, 3) for array in (y_true, y_pred))
    expected = values(loss, cropped(Y_TRUE), cropped(Y_PRED))
    assert void.any(axis=1).all()
    close(values(loss, *arrays, ignore_value=-1), expected)


def test_to_the_centre_line_void_pixels_are_background():
    """An image that is cut has other neighbours; one whose void is black has the same ones."""
    black = COUNTS[..., None]
    expected = values(L.CenterlineDice, black * Y_TRUE, black * Y_PRED)
    close(values(L.CenterlineDice, marked(Y_TRUE, -1), Y_PRED, ignore_value=-1), expected)
    close(values(L.CenterlineDice, Y_TRUE, Y_PRED, COUNTS), expected)
    slopes = slope(L.CenterlineDice, Y_TRUE, Y_PRED, COUNTS, iterations=1)
    assert np.all(slopes[VOID] == 0) and np.any(slopes[~VOID] != 0)


@pytest.mark.parametrize("logits", [{}, {"from_logits": True}], ids=["shares", "logits"])
@of(*OVERLAP, L.LovaszSoftmax, L.CenterlineDice)
def test_a_prediction_that_is_no_number_at_a_void_pixel_does_no_harm(loss, logits):
    y_true, arguments = marked(Y_TRUE, -1), {"ignore_value": -1, **logits, **FEW.get(loss, {})}
    bad = np.where(VOID[..., None], np.float32(np.nan), Y_PRED)
    close(values(loss, y_true, bad, **arguments), values(loss, y_true, Y_PRED, **arguments))
    close(slope(loss, y_true, bad, **arguments), slope(loss, y_true, Y_PRED, **arguments))


@of(*REGIONS)
def test_where_all_pixels_are_void_there_is_no_loss(loss):
    nothing = np.full_like(Y_TRUE, -1)
    arguments = {"ignore_value": -1, **FEW.get(loss, {})}
    assert np.all(values(loss, nothing, Y_PRED, **arguments) == 0)
    assert np.all(slope(loss, nothing, Y_PRED, **arguments) == 0)


def test_single_labels_may_be_void():
    """A pixel of which only the third class is unknown."""
    y_true = Y_TRUE.copy()
    y_true[:, :2, :, 2] = -1
    of_class = [
        values(L.Dice, *(crop(a[..., c, None]) for a in (Y_TRUE, Y_PRED)))
        for c, crop in enumerate((np.array, np.array, cropped))
    ]
    close(values(L.Dice, y_true, Y_PRED, ignore_value=-1), np.mean(of_class, axis=0))


# Masks and weights of pixels.


@of(*REGIONS)
def test_a_void_pixel_is_one_of_weight_0_and_a_masked_one(loss):
    expected = values(loss, marked(Y_TRUE, -1), Y_PRED, ignore_value=-1)
    for weight in (COUNTS, COUNTS[..., None], np.repeat(COUNTS[..., None], 3, axis=-1)):
        close(values(loss, Y_TRUE, Y_PRED, weight), expected)
    own = loss(reduction="none")
    close(value(own, Y_TRUE, masked(Y_PRED, ~VOID)), expected)
    close(value(own, Y_TRUE, masked(Y_PRED, ~VOID), COUNTS), expected)
    bad = np.where(VOID[..., None], np.float32(np.nan), Y_TRUE)
    close(values(loss, bad, Y_PRED, COUNTS), expected)


@of(*REGIONS)
def test_the_wrappers_of_void_and_missing_labels_say_the_same(loss):
    """To `LovaszHinge` the numbers are logits."""
    expected = values(loss, marked(Y_TRUE, -1), Y_PRED, ignore_value=-1)
    own = loss(reduction="none")
    labels = np.where(VOID, 255, LABELS)
    one_hot = cl.wrappers.OneHot(own, 3, ignore_value=255, reduction="none")
    for ids in (labels, labels[..., None], labels.astype("uint8")):
        close(value(one_hot, ids, Y_PRED), expected)
    for number in (-1, np.nan):
        missing = cl.wrappers.Masked(own, mask_value=number, reduction="none")
        close(value(missing, marked(Y_TRUE, number), Y_PRED), expected)


@of(*SETS)
def test_a_pixel_of_weight_2_is_there_twice(loss):
    """Of the five columns of an image two are there twice and two are not there at all."""
    times = RNG.permuted(np.tile([0, 0, 1, 2, 2], (4, 1)), axis=1)
    weight = np.repeat(times[:, None], 4, axis=1).astype("float32")
    twice = (
        np.stack([np.repeat(image, n, axis=1) for image, n in zip(a, times, strict=True)])
        for a in (Y_TRUE, Y_PRED)
    )
    close(values(loss, Y_TRUE, Y_PRED, weight), values(loss, *twice))


@of(*OVERLAP)
def test_half_the_weight_is_half_the_counts(loss):
    half = np.full(LABELS.shape, 0.5, "float32")
    close(values(loss, Y_TRUE, Y_PRED, half), values(loss, Y_TRUE, Y_PRED, smooth=2.0))


@of(L.LovaszHinge, L.LovaszSoftmax)
def test_to_a_ratio_of_sizes_an_equal_weight_is_none(loss):
    half = np.full(LABELS.shape, 0.5, "float32")
    close(values(loss, Y_TRUE, Y_PRED, half), values(loss, Y_TRUE, Y_PRED))


@of(*REGIONS)
def test_weights_of_samples_act_outside_and_masks_of_pixels_inside(loss):
    expected = values(loss, marked(Y_TRUE, -1), Y_PRED, ignore_value=-1)
    own = loss(reduction="none")
    close(value(own, Y_TRUE, masked(Y_PRED, ~VOID), SAMPLES), SAMPLES * expected)
    for weight in (SAMPLES, SAMPLES[:, None], SAMPLES.reshape(4, 1, 1)):
        found = values(loss, marked(Y_TRUE, -1), Y_PRED, weight, ignore_value=-1)
        close(found, SAMPLES * expected)
    mean = loss(reduction="mean_with_sample_weight")
    average = np.average(expected, weights=SAMPLES)
    close(value(mean, Y_TRUE, masked(Y_PRED, ~VOID), SAMPLES), average)


@of(*REGIONS)
def test_in_a_composite_it_is_the_same(loss):
    composite = cl.CompositeLoss({"a": loss(), "b": "mse"}, weights=[1.0, 0.0])
    close(value(composite, Y_TRUE, Y_PRED, COUNTS), values(loss, Y_TRUE, Y_PRED, COUNTS).mean())


@of(L.SobelEdge, L.BoundaryDisagreement)
def test_an_edge_cannot_weigh_pixels_and_says_so(loss):
    """It lies between pixels."""
    with raises(
        ValueError, "cannot honour the sample_weight of shape", "Give weights of shape (4,),"
    ):
        loss(reduction="none")(Y_TRUE, Y_PRED, COUNTS)
    missing = cl.wrappers.Masked(loss(), mask_value=-1)
    with raises(ValueError, "cannot honour the mask", "or wrap another loss"):
        missing(marked(Y_TRUE, -1), Y_PRED)


# Shapes.


@of(*REGIONS, *CONTOURS)
def test_the_axis_of_one_channel_may_be_left_out(loss):
    """The width is no channel."""
    y_true, y_pred = Y_TRUE[..., :1], Y_PRED[..., :1]
    expected = values(loss, y_true, y_pred)
    assert expected.shape == (4,)
    close(values(loss, y_true[..., 0], y_pred), expected)
    close(values(loss, y_true, y_pred[..., 0]), expected)


@of(*SETS)
def test_the_axis_of_one_channel_may_be_left_out_beside_weights(loss):
    y_true, y_pred = Y_TRUE[..., :1], Y_PRED[..., :1]
    expected = values(loss, cropped(y_true), cropped(y_pred))
    close(values(loss, y_true[..., 0], y_pred, COUNTS), expected)
    close(values(loss, y_true, y_pred[..., 0], COUNTS), expected)
    void = marked(y_true, -1)
    close(values(loss, void[..., 0], y_pred, ignore_value=-1), expected)
    missing = cl.wrappers.Masked(loss(reduction="none"), mask_value=-1, reduction="none")
    close(value(missing, void[..., 0], y_pred), expected)


@of(*REGIONS, *CONTOURS)
def test_arrays_without_spatial_axes_are_an_error(loss):
    with raises(ValueError, loss.__name__, "(batch, spatial..., channels)", "of shape (4, 3)"):
        loss()(Y_TRUE[:, 0, 0], Y_PRED[:, 0, 0])


@of(*REGIONS, *CONTOURS)
def test_label_maps_are_sent_to_one_hot(loss):
    for labels in (LABELS, LABELS[..., None], LABELS.astype("uint8")):
        received = f"y_true of shape {labels.shape} and y_pred of shape (4, 4, 5, 3)"
        with raises(ValueError, "OneHot", received):
            loss()(labels, Y_PRED)


@pytest.mark.parametrize("shape", [(4, 4, 6), (4, 5), (4, 4, 5, 2), (4, 4, 5, 3, 2)])
@of(L.Dice, L.LovaszSoftmax)
def test_weights_of_other_pixels_are_an_error(loss, shape):
    received = f"Received: sample_weight of shape {shape} and y_pred of shape (4, 4, 5, 3)"
    with raises(ValueError, "the shape of the predictions from the left", received):
        loss()(Y_TRUE, Y_PRED, np.ones(shape, "float32"))


@of(L.Dice, L.LovaszSoftmax)
def test_it_trains_on_weights_of_pixels(loss):
    model = cl.Sequential([keras.Input((4, 5, 3)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=loss(reduction="sum"))
    found = model.evaluate(Y_PRED, Y_TRUE, sample_weight=COUNTS, batch_size=4, verbose=0)
    close(found, values(loss, cropped(Y_TRUE), cropped(Y_PRED)).sum())
