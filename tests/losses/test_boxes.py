"""What the losses of boxes claim: what they equal, what changes nothing, where the slope leads."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import compiled, gradient
from tests.messages import raises

NAMES = ("IoU", "GIoU", "DIoU", "CIoU", "EIoU", "SIoU")
IoU, GIoU, DIoU, CIoU, EIoU, SIoU = LOSSES = [getattr(cl.losses, name) for name in NAMES]
FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh")
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_format = pytest.mark.parametrize("format", FORMATS)
sees_distance = pytest.mark.parametrize("loss", [GIoU, DIoU, CIoU, EIoU, SIoU])

RNG = np.random.default_rng(0)


def close(actual, expected, rtol=2e-5, atol=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def values(loss, y_true, y_pred, format="xyxy"):
    return value(loss(format=format, reduction="none"), y_true, y_pred)


def slope(loss, y_true, y_pred, format="xyxy"):
    own = loss(format=format, reduction="none")
    return gradient(lambda p: own(y_true, p), y_pred)


def some(number=200):
    """Boxes in [0, 1], the predicted ones near, far, inside or around."""
    begin, size = RNG.uniform(0, 0.6, (2, number, 2)), RNG.uniform(0.05, 0.4, (2, number, 2))
    begin[1] = np.where(np.arange(number)[:, None] % 2, begin[1], begin[0] + size[0] / 3 - 0.1)
    return np.concatenate([begin, begin + size], axis=-1).astype("float32")


Y_TRUE, Y_PRED = some()


def flipped(boxes):
    return boxes[..., [1, 0, 3, 2]]


# What they equal.


def test_iou_is_that_of_counted_pixels():
    begin, size = RNG.integers(0, 12, (2, 60, 2)), RNG.integers(1, 9, (2, 60, 2))
    boxes = np.concatenate([begin, begin + size], axis=-1)
    masks = np.zeros((2, 60, 20, 20), bool)
    for which, (x1, y1, x2, y2) in zip(np.ndindex(2, 60), boxes.reshape(-1, 4), strict=True):
        masks[which][y1:y2, x1:x2] = True
    both, either = masks[0] & masks[1], masks[0] | masks[1]
    expected = 1 - both.sum(axis=(1, 2)) / either.sum(axis=(1, 2))
    assert np.any(expected == 1)
    close(values(IoU, *boxes.astype("float32")), expected)


def test_giou_is_that_of_monai():
    """`box_pair_giou` of MONAI: IoU - (C - U) / C."""
    expected = []
    for t, p in zip(np.float64(Y_TRUE), np.float64(Y_PRED), strict=True):
        shared = np.maximum(np.minimum(t[2:], p[2:]) - np.maximum(t[:2], p[:2]), 0).prod()
        union = (t[2:] - t[:2]).prod() + (p[2:] - p[:2]).prod() - shared
        whole = (np.maximum(t[2:], p[2:]) - np.minimum(t[:2], p[:2])).prod()
        expected.append(1 - (shared / union - (whole - union) / whole))
    close(values(GIoU, Y_TRUE, Y_PRED), expected)


@pytest.mark.parametrize("format", ["xyxy", "center_xywh"])
def test_ciou_is_that_of_keras(format):
    boxes = [converted(100 * array, format) for array in (Y_TRUE, Y_PRED)]
    theirs = keras.utils.bounding_boxes.compute_ciou(*map(ops.array, boxes), format)
    close(values(CIoU, *boxes, format), 1 - ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5)


def converted(boxes, format):
    """Boxes of left, top, right, bottom in another format."""
    begin, end = boxes[..., :2], boxes[..., 2:]
    return {
        "xyxy": lambda: boxes,
        "yxyx": lambda: flipped(boxes),
        "xywh": lambda: np.concatenate([begin, end - begin], axis=-1),
        "center_xywh": lambda: np.concatenate([(begin + end) / 2, end - begin], axis=-1),
    }[format]()


# d (left, top, right, bottom) / d (the four numbers)
JACOBIANS = {
    "yxyx": np.eye(4)[[1, 0, 3, 2]],
    "xywh": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]),
    "center_xywh": np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]]),
}


@pytest.mark.parametrize("format", JACOBIANS)
@every_loss
def test_the_same_boxes_in_another_format_cost_the_same(loss, format):
    boxes = [converted(array, format) for array in (Y_TRUE, Y_PRED)]
    close(values(loss, *boxes, format), values(loss, Y_TRUE, Y_PRED))
    expected = slope(loss, Y_TRUE, Y_PRED) @ JACOBIANS[format]
    close(slope(loss, *boxes, format), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS[1:])
def test_keras_converts_to_the_same_formats(format):
    theirs = keras.utils.bounding_boxes.convert_format(Y_PRED, "xyxy", format)
    close(ops.convert_to_numpy(theirs), converted(Y_PRED, format), rtol=1e-6)


@every_loss
def test_equal_boxes_cost_nothing_and_are_stationary(loss):
    """The slopes of the edges, of size 1 / side, are in the middle of the kink: 0."""
    for format in FORMATS:
        boxes = converted(Y_TRUE, format)
        close(values(loss, boxes, boxes, format), 0, atol=1e-6)
        close(slope(loss, boxes, boxes, format), 0, atol=1e-4)


def test_where_one_box_holds_the_other_giou_is_iou():
    inner = np.concatenate([Y_TRUE[:, :2] * 0.8 + Y_TRUE[:, 2:] * 0.2, Y_TRUE[:, 2:]], axis=-1)
    for pair in ((Y_TRUE, inner), (inner, Y_TRUE)):
        close(values(GIoU, *pair), values(IoU, *pair))


def test_where_the_centres_are_the_same_diou_is_iou():
    half = RNG.uniform(0.1, 0.3, (2, 50, 2))
    boxes = np.concatenate([0.5 - half, 0.5 + half], axis=-1).astype("float32")
    close(values(DIoU, *boxes), values(IoU, *boxes))
    assert np.all(values(CIoU, *boxes) >= values(DIoU, *boxes))
    assert np.mean(values(CIoU, *boxes) - values(DIoU, *boxes)) > 1e-3


def test_where_the_sides_are_the_same_eiou_is_diou():
    shifted = Y_TRUE + np.tile(RNG.normal(scale=0.2, size=(len(Y_TRUE), 2)), 2)
    shifted = shifted.astype("float32")
    close(values(EIoU, Y_TRUE, shifted), values(DIoU, Y_TRUE, shifted))


def test_siou_is_that_of_the_arcsine_of_the_paper():
    t, p = np.float64(Y_TRUE), np.float64(Y_PRED)
    way = (p[:, :2] + p[:, 2:] - t[:, :2] - t[:, 2:]) / 2
    angle = np.arcsin(np.abs(way[:, 1]) / np.hypot(*way.T))
    gamma = 2 - (1 - 2 * np.sin(angle - np.pi / 4) ** 2)
    whole = np.maximum(t[:, 2:], p[:, 2:]) - np.minimum(t[:, :2], p[:, :2])
    distance = np.sum(1 - np.exp(-gamma[:, None] * (way / whole) ** 2), axis=-1)
    sides = t[:, 2:] - t[:, :2], p[:, 2:] - p[:, :2]
    unlike = np.abs(sides[0] - sides[1]) / np.maximum(*sides)
    shape = np.sum((1 - np.exp(-unlike)) ** 4, axis=-1)
    close(values(SIoU, Y_TRUE, Y_PRED), values(IoU, Y_TRUE, Y_PRED) + (distance + shape) / 2)


def test_siou_prices_a_way_along_an_axis_most():
    """Two unit squares, their centres 1 apart: 45 degrees cost least."""
    angle = np.linspace(0, np.pi / 2, 9)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    unit = np.tile(np.float32([0, 0, 1, 1]), (9, 1))
    g = 2 - np.abs(np.sin(2 * angle))
    share = way / (1 + np.abs(way))
    overlap = np.prod(np.maximum(1 - np.abs(way), 0), axis=-1)
    expected = 1 - overlap / (2 - overlap)
    expected += np.sum(1 - np.exp(-g[:, None] * share**2), axis=-1) / 2
    close(values(SIoU, unit, (unit + np.tile(way, 2)).astype("float32")), expected)


def test_where_the_aspect_ratios_are_the_same_ciou_is_diou():
    begin, factor = Y_PRED[:, :2], RNG.uniform(0.3, 2.0, (len(Y_TRUE), 1))
    similar = np.concatenate([begin, begin + factor * (Y_TRUE[:, 2:] - Y_TRUE[:, :2])], axis=-1)
    similar = similar.astype("float32")
    close(values(CIoU, Y_TRUE, similar), values(DIoU, Y_TRUE, similar))


# What changes nothing.


def moved(boxes):
    return boxes + np.array([3.0, -2.0, 3.0, -2.0], "float32")


def mirrored(boxes):
    return np.stack([-boxes[:, 2], boxes[:, 1], -boxes[:, 0], boxes[:, 3]], axis=-1)


@pytest.mark.parametrize("change", [moved, mirrored, flipped, lambda boxes: 640 * boxes])
@every_loss
def test_where_boxes_lie_and_in_which_unit_does_not_matter(loss, change):
    expected = values(loss, Y_TRUE, Y_PRED)
    close(values(loss, change(Y_TRUE), change(Y_PRED)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", [IoU, GIoU])
def test_two_units_for_the_two_axes_do_not_matter(loss):
    units = np.array([640, 48, 640, 48], "float32")
    close(values(loss, units * Y_TRUE, units * Y_PRED), values(loss, Y_TRUE, Y_PRED))


@every_loss
def test_truth_and_prediction_may_be_swapped(loss):
    close(values(loss, Y_TRUE, Y_PRED), values(loss, Y_PRED, Y_TRUE))


# Ranges and order.


def test_the_values_are_in_their_ranges_and_in_order():
    boxes = some(2000)
    found = {name: values(loss, *boxes) for name, loss in zip(NAMES, LOSSES, strict=True)}
    for name, largest in zip(NAMES, (1, 2, 2, 2.5, 3.25, 2.5), strict=True):
        assert -1e-6 <= found[name].min() < 0.3 * largest
        assert 0.6 * largest < found[name].max() <= largest + 1e-6, name
    pairs = ["IoU GIoU", "IoU DIoU", "DIoU CIoU", "DIoU EIoU", "IoU SIoU"]
    for less, more in map(str.split, pairs):
        assert np.all(found[less] <= found[more] + 1e-6)


def test_the_ranges_are_used_up_to_their_ends():
    """Two points far apart, in the limit; flat and upright for the aspect ratio."""
    flat, upright = np.array([[[0, 0, 1, 1e-3]], [[900, 900, 900.001, 901]]], "float32")
    expected = [1, 2, 2, 2.5]
    close([values(loss, flat, upright)[0] for loss in LOSSES[:4]], expected, atol=0.01)
    corner = np.array([[[0, 0, 1, 1e-4]], [[1, 1e-4 - 1, 1 + 1e-4, 1e-4]]], "float32")
    close(values(EIoU, *corner), 3.25, atol=0.01)
    nearly_along = np.array([[[0, 0, 1, 1]], [[1e6, 1e3, 1e6 + 1e-3, 1e3 + 1e-3]]], "float32")
    steepest = value(SIoU(theta=1.0), *nearly_along)
    close(steepest, 2.5, atol=0.01)


def test_an_inverted_box_has_area_0():
    inverted = Y_PRED[:, [2, 3, 0, 1]]
    close(values(IoU, Y_TRUE, inverted), 1)
    found = values(GIoU, Y_TRUE, inverted)
    assert found.min() >= 1 - 1e-6
    assert found.max() <= 2 + 1e-6


# Where the slope leads.


AROUND = np.array([[3, 0], [-3, 0], [0, 3], [0, -3], [3, 3], [-2, 3], [40, -30]], "float32")
UNIT = np.tile(np.array([0, 0, 1, 1], "float32"), (len(AROUND), 1))
APART = UNIT + np.tile(AROUND, 2)


def test_boxes_apart_cost_1_without_a_slope_by_iou():
    close(values(IoU, UNIT, APART), 1)
    np.testing.assert_array_equal(slope(IoU, UNIT, APART), 0 * APART)


@pytest.mark.parametrize("format", ["xyxy", "xywh", "center_xywh"])
@sees_distance
def test_boxes_apart_are_pushed_together(loss, format):
    """A shift of the whole box away from the true one raises the loss."""
    found = slope(loss, converted(UNIT, format), converted(APART, format), format)
    by_shift = found[:, :2] + found[:, 2:] if format == "xyxy" else found[:, :2]
    assert np.all(np.sum(by_shift * AROUND, axis=-1) > 0)
    assert np.all(values(loss, UNIT, APART) > values(loss, UNIT, UNIT + 0.9 * (APART - UNIT)))


@pytest.mark.parametrize("loss", [DIoU, CIoU, EIoU, SIoU])
def test_inside_of_the_other_box_the_centre_still_counts(loss):
    whole, part = np.array([[[0, 0, 4, 4]], [[2.5, 2.5, 3.5, 3.5]]], "float32")
    for y_true, y_pred, sign in ((whole, part, 1), (part, whole, -1)):
        by_centre = slope(loss, y_true, y_pred).reshape(2, 2).sum(axis=0)
        assert np.all(sign * by_centre > 0)
        close(slope(GIoU, y_true, y_pred), slope(IoU, y_true, y_pred))
    np.testing.assert_allclose(slope(GIoU, whole, part).reshape(2, 2).sum(axis=0), 0, atol=1e-6)


FAR = [[0.7, 0.55, 0.8, 0.85]]
START = {"far": FAR, "inverted": [[0.8, 0.85, 0.7, 0.55]], "a point": [[0.7, 0.6, 0.7, 0.6]]}


@pytest.mark.parametrize("start", START)
@sees_distance
def test_descent_brings_a_box_home(loss, start):
    """Also one that is inverted or of size 0; by GIoU one that is neither."""
    if loss is GIoU and start != "far":
        pytest.skip("claims no gradient there")
    y_true = np.array([[0.2, 0.2, 0.4, 0.4]], "float32")
    own, box = loss(reduction="sum"), keras.Variable(np.array(START[start], "float32"))
    slope_of = jitted(lambda p: own(y_true, p))
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([box])
    for _ in range(200):
        optimizer.apply([ops.array(slope_of(ops.convert_to_numpy(box)))], [box])
    assert value(IoU(), y_true, np.float32(START[start])) == 1
    assert value(IoU(), y_true, ops.convert_to_numpy(box)) < 0.15


def jitted(function):
    """The gradient of a function of one array, compiled once on JAX."""
    if keras.backend.backend() != "jax":
        return lambda x: gradient(function, x)
    import jax

    return compiled(jax.grad(function))


# Errors.


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 8), (2, 3, 1)])
@every_loss
def test_a_last_axis_that_is_not_of_four_is_an_error(loss, shape):
    boxes, parts = np.ones(shape), ("Dense(4)", "OnSlice", f"Received: y_pred of shape {shape}")
    with raises(ValueError, f"{loss.__name__} compares boxes", "(batch, 4)", "'xywh'", *parts):
        loss(format="xywh")(boxes, boxes)


@every_loss
def test_a_box_without_a_batch_is_an_error(loss):
    with raises(ValueError, "compares boxes", "(batch, 4)", "Received: y_pred of shape (4,)"):
        loss()(np.ones(4), np.ones(4))


@pytest.mark.backend_free
@every_loss
def test_an_unknown_format_is_told_the_known_ones(loss):
    known = "'xyxy', 'yxyx', 'xywh' or 'center_xywh'"
    with raises(ValueError, known, "convert_format", "Received: 'rel_xyxy'"):
        loss(format="rel_xyxy")


def test_targets_of_another_shape_are_an_error():
    with raises(ValueError, "Reshape((3, 4))", "Received: y_true of shape (2, 3, 4)"):
        CIoU()(np.ones((2, 3, 4)), np.ones((2, 12)))
    with raises(ValueError, "broadcast", "Received: y_true of shape (2, 1, 4)"):
        CIoU()(np.ones((2, 1, 4)), np.ones((2, 3, 4)))
