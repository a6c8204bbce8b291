"""What the losses of edges claim: which fields agree, which do not, and where the slope is 0."""

import numpy as np
import pytest
from scipy import ndimage

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises

Boundary, Sobel = cl.losses.BoundaryDisagreement, cl.losses.SobelEdge

RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED = RNG.normal(size=(2, 3, 4, 5, 2)).astype("float32")


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-6)


def slope(loss, y_true, y_pred):
    return gradient(lambda p: loss(y_true, p), y_pred)


def step(*shape, axis, at):
    """A field that is 1 from index `at` of `axis` on, 0 before."""
    index = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(index >= at, shape).astype("float32")


def test_equal_fields_agree():
    assert value(Boundary(), Y_TRUE, Y_TRUE) == 0.0


def test_one_edge_against_none_is_its_share_of_the_pairs():
    """1 of 3 pairs along the height, 0 of 4 along the width, and the mean of the two axes."""
    edge, flat = step(2, 4, 5, 1, axis=1, at=2), np.zeros((2, 4, 5, 1), "float32")
    close(value(Boundary(axes=(1,)), edge, flat), 1 / 3)
    close(value(Boundary(axes=(2,)), edge, flat), 0.0)
    close(value(Boundary(axes=(1, 2)), edge, flat), 1 / 6)


def test_an_edge_in_another_place_counts_twice():
    there, here = (step(2, 4, 5, 1, axis=2, at=at) for at in (1, 3))
    close(value(Boundary(axes=(2,)), there, here), 2 / 4)


def test_offset_and_contrast_are_not_seen():
    close(value(Boundary(), Y_TRUE, Y_PRED + 7.0), value(Boundary(), Y_TRUE, Y_PRED))
    close(value(Boundary(), Y_TRUE, -Y_PRED), value(Boundary(), Y_TRUE, Y_PRED))


def test_it_is_symmetric_and_scales_with_the_field():
    close(value(Boundary(), Y_TRUE, Y_PRED), value(Boundary(), Y_PRED, Y_TRUE))
    close(value(Boundary(), 3 * Y_TRUE, 3 * Y_PRED), 3 * value(Boundary(), Y_TRUE, Y_PRED))


def test_a_flip_of_both_fields_changes_nothing():
    flipped = value(Boundary(), Y_TRUE[:, ::-1, ::-1], Y_PRED[:, ::-1, ::-1])
    close(flipped, value(Boundary(), Y_TRUE, Y_PRED))


def test_against_a_flat_truth_it_is_half_the_total_variation():
    """Of the mean absolute differences along height and width, summed."""
    variation = sum(np.abs(np.diff(Y_PRED, axis=axis)).mean() for axis in (1, 2))
    close(value(Boundary(), np.zeros_like(Y_TRUE), Y_PRED), variation / 2)


def test_a_flat_prediction_is_stationary():
    flat = np.full_like(Y_PRED, 0.5)
    np.testing.assert_array_equal(slope(Boundary(), Y_TRUE, flat), np.zeros_like(flat))


def test_equal_fields_are_stationary():
    np.testing.assert_array_equal(slope(Boundary(), Y_TRUE, Y_TRUE), np.zeros_like(Y_TRUE))


def test_channels_and_the_batch_are_no_spatial_axes():
    """The mistake of one of the six programs: differences along the channels."""
    y_pred = Y_TRUE + np.array([0.0, 5.0], "float32")
    close(value(Boundary(), Y_TRUE, y_pred), 0.0)
    samples = Y_TRUE + np.arange(3, dtype="float32").reshape(3, 1, 1, 1)
    close(value(Boundary(), Y_TRUE, samples), 0.0)


def test_axes_may_be_counted_from_the_end_and_be_a_list():
    expected = value(Boundary(axes=(1, 2)), Y_TRUE, Y_PRED)
    close(value(Boundary(axes=[-3, -2]), Y_TRUE, Y_PRED), expected)


def test_an_axis_of_length_1_contributes_0():
    y_true, y_pred = Y_TRUE[:, :1], Y_PRED[:, :1]
    expected = value(Boundary(axes=(2,)), y_true, y_pred) / 2
    close(value(Boundary(), y_true, y_pred), expected)
    close(value(Boundary(), y_true[:, :, :1], y_pred[:, :, :1]), 0.0)
    assert np.all(np.isfinite(slope(Boundary(), y_true, y_pred)))


@pytest.mark.parametrize(
    "shape, axes", [((3, 4), (1,)), ((3, 4, 5), (1, 2)), ((3, 2, 3, 4, 1), (1, 2, 3))]
)
def test_fields_of_any_rank_have_one_value_for_each_sample(shape, axes):
    y_true, y_pred = RNG.normal(size=(2, *shape)).astype("float32")
    assert value(Boundary(axes=axes, reduction="none"), y_true, y_pred).shape == (3,)


@pytest.mark.parametrize("axes", [(1, 4), (-5,), (7,), (-4,)])
def test_an_axis_that_is_not_there_is_an_error(axes):
    """-4 is the batch axis of these arrays."""
    shape = "y_pred of shape (3, 4, 5, 2)"
    with raises(
        ValueError, "`axes` of BoundaryDisagreement", "rank 4", f"axes={axes!r} and {shape}"
    ):
        Boundary(axes=axes)(Y_TRUE, Y_PRED)


def test_images_without_a_channel_axis_are_told_so():
    """Axis 2 of `(batch, height, width)` is the width; of `(batch, height)` it is nothing."""
    close(value(Boundary(), Y_TRUE[..., 0], Y_PRED[..., 0]), field_mean())
    with raises(ValueError, "`axes`", "rank 2"):
        Boundary()(Y_TRUE[:, :, 0, 0], Y_PRED[:, :, 0, 0])


def field_mean():
    y_true, y_pred = Y_TRUE[..., 0].astype("float64"), Y_PRED[..., 0].astype("float64")
    means = [
        np.abs(np.abs(np.diff(y_true, axis=axis)) - np.abs(np.diff(y_pred, axis=axis))).mean()
        for axis in (1, 2)
    ]
    return np.mean(means)


# Sobel's edges.


IMAGES = RNG.normal(size=(2, 3, 6, 7, 2)).astype("float32")


def responses(field, kernel):
    """Of every sample and channel, where all of the kernel lies inside."""
    windows = np.lib.stride_tricks.sliding_window_view(field, np.shape(kernel), axis=(1, 2))
    return np.abs(np.einsum("...ij,ij->...", windows, kernel))


def test_sobel_is_that_of_scipy_inside():
    found = []
    for difference in np.moveaxis(np.float64(IMAGES[1] - IMAGES[0]), -1, 1).reshape(-1, 6, 7):
        edges = [ndimage.sobel(difference, axis=axis)[1:-1, 1:-1] / 8 for axis in (0, 1)]
        found.append(np.abs(edges).mean())
    close(value(Sobel(reduction="none"), *IMAGES), np.reshape(found, (3, 2)).mean(axis=1))


def test_sobel_measures_the_slope_per_pixel():
    """A ramp of 3 along the height and one of 4 along the width: the mean of the two slopes."""
    rows, columns = np.mgrid[:6, :7].astype("float32")
    for ramp, expected in ((3 * rows, 1.5), (-4 * columns, 2.0), (3 * rows - 4 * columns, 3.5)):
        close(value(Sobel(), np.zeros((1, 6, 7, 1)), ramp.reshape(1, 6, 7, 1)), expected)


def test_sobel_invents_no_border():
    """The smallest image has one position. A step at the rim is seen as one inside."""
    close(value(Sobel(), np.zeros((1, 3, 3, 1)), step(1, 3, 3, 1, axis=2, at=1)), 1 / 2 / 2)
    at_rim, inside = (step(1, 6, 7, 1, axis=2, at=at) for at in (1, 3))
    # Each is seen at 1 and at 2 of 5 columns, by a half, in one of two directions.
    close(value(Sobel(), 0 * at_rim, at_rim), 1 / 5 / 2 / 2)
    close(value(Sobel(), 0 * inside, inside), 2 / 5 / 2 / 2)


def test_sobel_does_not_see_offsets():
    close(value(Sobel(), IMAGES[0], IMAGES[1] + 7.0), value(Sobel(), *IMAGES))
    assert value(Sobel(), IMAGES[0], IMAGES[0]) == 0.0
    np.testing.assert_array_equal(slope(Sobel(), IMAGES[0], IMAGES[0]), 0 * IMAGES[0])
    close(slope(Sobel(), *IMAGES).sum(axis=(1, 2)), np.zeros((3, 2)))


def test_sobel_is_symmetric_and_scales_with_the_image():
    close(value(Sobel(), *IMAGES), value(Sobel(), *IMAGES[::-1]))
    close(value(Sobel(), *(-3 * IMAGES)), 3 * value(Sobel(), *IMAGES))
    close(value(Sobel(), *IMAGES.swapaxes(2, 3)), value(Sobel(), *IMAGES))
    close(value(Sobel(), *np.flip(IMAGES, 3).copy()), value(Sobel(), *IMAGES))


def test_sobel_averages_the_channels():
    of_channel = [value(Sobel(), *IMAGES[..., c : c + 1]) for c in (0, 1)]
    close(value(Sobel(), *IMAGES), np.mean(of_channel))


@pytest.mark.parametrize(
    "kernel",
    [[[-0.5, 0.0, 0.5]], ((1.0, -1.0),), np.array([[1.0, 2.0, -3.0, 0.5], [0.0, 1.0, 1.0, 0.0]])],
    ids=["central", "forward", "2 x 4"],
)
def test_an_own_kernel_and_its_transpose_lie_inside(kernel):
    difference = np.float64(IMAGES[1] - IMAGES[0])
    both = [responses(difference, k).mean(axis=(1, 2, 3)) for k in (kernel, np.transpose(kernel))]
    close(value(Sobel(kernel, reduction="none"), *IMAGES), np.mean(both, axis=0))


def test_sobels_kernel_is_the_default():
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    close(value(Sobel(kernel.tolist()), *IMAGES), value(Sobel(), *IMAGES))
    close(value(Sobel((8 * kernel).tolist()), *IMAGES), 8 * value(Sobel(), *IMAGES))


@pytest.mark.parametrize("shape", [(2, 2, 7, 2), (2, 7, 2, 2), (2, 7, 7), (2, 7, 7, 7, 1)])
def test_images_that_sobel_does_not_fit_into_are_an_error(shape):
    with raises(ValueError, "SobelEdge", "(batch, height, width, channels)", "least 3", f"{shape}"):
        Sobel()(np.zeros(shape), np.zeros(shape))


def test_a_longer_kernel_needs_a_larger_image():
    wide = Sobel([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])
    with raises(ValueError, "at least 7", "y_pred of shape (3, 6, 7, 2)"):
        wide(*IMAGES)
