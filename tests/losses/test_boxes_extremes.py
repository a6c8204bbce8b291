"""Boxes that are empty, inverted, tiny or huge, boxes that do not count, and float16."""

import keras
import numpy as np
import pytest
from keras import layers

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked
from tests.oracles import boxes as oracles

NAMES = ("IoU", "GIoU", "DIoU", "CIoU", "EIoU", "SIoU")
IoU, GIoU, DIoU, CIoU, EIoU, SIoU = LOSSES = [getattr(cl.losses, name) for name in NAMES]
FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh")
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_format = pytest.mark.parametrize("format", FORMATS)

EXTREMES = {
    "all zeros": [0, 0, 0, 0],
    "all ones": [1, 1, 1, 1],
    "unit": [0, 0, 1, 1],
    "inverted": [1, 1, 0, 0],
    "inverted along one axis": [0, 1, 1, 0],
    "flat": [0.2, 0.5, 0.9, 0.5],
    "tiny": [0.5, 0.5, 0.5 + 1e-6, 0.5 + 1e-6],
    "tiny at the origin": [0, 0, 1e-6, 1e-6],
    "smaller still": [0, 0, 1e-20, 1e-20],
    "thin": [0, 0, 1e-6, 1],
    "touching": [1, 0, 2, 1],
    "negative": [-3, -2, -1, -0.5],
    "huge": [0, 0, 1e4, 1e4],
    "far away": [1e4, 1e4, 1e4 + 1, 1e4 + 2],
    "out of any image": [-1e9, -1e9, 1e9, 2e9],
}
PAIRS = np.array(
    [(true, pred) for true in EXTREMES.values() for pred in EXTREMES.values()], "float32"
)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@every_format
@every_loss
def test_every_pair_of_extremes_has_a_finite_value_and_gradient(loss, format):
    """The same four numbers in every format; the prediction may have any, the truth too."""
    own = loss(format=format, reduction="none")
    assert np.all(np.isfinite(value(own, PAIRS[:, 0], PAIRS[:, 1])))
    assert np.all(np.isfinite(slope(own, PAIRS[:, 0], PAIRS[:, 1])))


@every_loss
def test_extremes_have_the_values_and_slopes_of_the_oracle(loss):
    """Ties and all: the slope in the middle of a kink is that of the oracle on every backend.

    Of boxes that are not tiny, and truths that are not inverted: lengths are differences of others,
    exact to 1e-7 of the longest one.
    """
    sides = PAIRS[..., 2:] - PAIRS[..., :2]
    clear = np.all((sides == 0) | (np.abs(sides) > 1e-3), axis=(1, 2))
    near = clear & np.all(sides[:, 0] >= 0, axis=-1) & (np.abs(PAIRS).max(axis=(1, 2)) <= 10)
    y_true, y_pred = PAIRS[near, 0], PAIRS[near, 1]
    own = loss(reduction="none")
    values, slopes = getattr(oracles, loss.__name__.lower())(y_true, y_pred)
    close(value(own, y_true, y_pred), values)
    found = slope(own, y_true, y_pred)
    scale = np.abs(slopes).max(axis=-1, keepdims=True) + 1
    close(found / scale, slopes / scale, atol=2e-5)


@every_loss
def test_float16_has_no_part_in_the_computation(loss):
    half = PAIRS[np.abs(PAIRS).max(axis=(1, 2)) < 6e4].astype("float16")
    y_true, y_pred = half[:, 0], half[:, 1]
    own = loss(reduction="none")
    found = value(own, y_true, y_pred)
    assert found.dtype == "float32"
    close(found, value(own, y_true.astype("float32"), y_pred.astype("float32")))
    slopes = slope(own, y_true.astype("float32"), y_pred.astype("float32"))
    holds = np.abs(slopes).max(axis=-1) < 6e4  # the largest number of float16 is 65504
    assert np.mean(holds) > 0.8
    assert np.all(np.isfinite(slope(own, y_true, y_pred)[holds]))


def test_two_empty_boxes_cost_1():
    empty = np.zeros((1, 4), "float32")
    assert [float(value(loss(), empty, empty)) for loss in LOSSES] == [1] * 6


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1e2, 1e6])
@every_loss
def test_boxes_of_any_size_cost_the_same(loss, size):
    """As long as areas are above 1e-12."""
    begin, sides = np.random.default_rng(0).uniform(0.1, 1, (2, 2, 20, 2))
    y_true, y_pred = np.concatenate([begin, begin + sides], axis=-1).astype("float32")
    own = loss(reduction="none")
    scale = np.float32(size)
    close(value(own, scale * y_true, scale * y_pred), value(own, y_true, y_pred), atol=1e-5)


def test_a_small_box_far_from_the_origin_is_as_exact_as_its_corners():
    corner = np.array([[8000, 9000]], "float32")
    y_true, y_pred = (np.concatenate([corner, corner + size], axis=-1) for size in (4, 2))
    close(value(IoU(), y_true, y_pred), 1 - 4 / 16)
    y_true, y_pred = (
        np.concatenate([corner, np.full((1, 2), size, "float32")], axis=-1) for size in (4e-3, 2e-3)
    )
    close(value(IoU("xywh"), y_true, y_pred), 1 - 4 / 16)


# Boxes that do not count: rows of padding, three boxes for each of two images.

Y_TRUE = np.array([[[0, 0, 2, 2], [1, 1, 3, 4], [0, 0, 1, 1]]] * 2, "float32")
Y_PRED = Y_TRUE + np.float32([[[0.5, 0.2, 0.1, 0.4], [-0.3, 0.1, 0.2, 0.3], [3, 3, 4, 5]]])
THERE = np.array([[1, 1, 0], [1, 0, 0]], "float32")
PADDING = {"NaN": np.nan, "-1": -1.0, "0": 0.0, "inf": np.inf}
every_padding = pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)


def padded(boxes, padding):
    return np.where(THERE[..., None] > 0, boxes, np.float32(padding))


def expected(loss):
    """Mean and gradient over the three boxes that are there."""
    there = THERE > 0
    found = np.zeros_like(Y_PRED)
    found[there] = slope(loss(), Y_TRUE[there], Y_PRED[there])
    return value(loss(), Y_TRUE[there], Y_PRED[there]), found


def check(call, loss, y_pred):
    mean, slopes = expected(loss)
    close(call(y_pred), mean)
    close(gradient(call, y_pred), slopes)


@every_padding
@every_loss
def test_padding_of_weight_0_does_not_count(loss, padding):
    y_true, y_pred = padded(Y_TRUE, padding), padded(Y_PRED, padding)
    own = loss(reduction="mean_with_sample_weight")
    check(lambda p: own(y_true, p, THERE), loss, y_pred)
    mean, slopes = expected(loss)
    plain = loss()  # divides by the six boxes
    close(value(plain, y_true, y_pred, THERE), mean / 2)
    close(slope(plain, y_true, y_pred, THERE), slopes / 2)


@every_padding
@every_loss
def test_padding_under_a_mask_does_not_count(loss, padding):
    y_true, y_pred = padded(Y_TRUE, padding), padded(Y_PRED, padding)
    check(lambda p: loss()(y_true, masked(p, THERE > 0)), loss, y_pred)


@pytest.mark.parametrize("padding", [np.nan, -1.0])
@every_loss
def test_padding_that_the_target_tells_does_not_count(loss, padding):
    """The predictions there are whatever the model says."""
    own = cl.wrappers.Masked(loss(), mask_value=padding)
    y_true = padded(Y_TRUE, padding)
    for y_pred in (Y_PRED, padded(Y_PRED, np.nan)):
        check(lambda p: own(y_true, p), loss, y_pred)


@every_loss
def test_weights_of_boxes_and_of_images(loss):
    values = value(loss(reduction="none"), Y_TRUE, Y_PRED)
    assert values.shape == (2, 3)
    of_boxes = np.array([[2, 0, 1], [0.5, 1, 3]], "float32")
    close(value(loss(), Y_TRUE, Y_PRED, of_boxes), np.mean(values * of_boxes))
    close(value(loss(), Y_TRUE, Y_PRED, of_boxes[..., None]), np.mean(values * of_boxes))
    of_images = np.array([2, 0.5], "float32")
    close(value(loss(), Y_TRUE, Y_PRED, of_images), np.mean(values * of_images[:, None]))


@every_loss
def test_a_batch_without_a_box_costs_nothing(loss):
    none = np.zeros((2, 3), "float32")
    own = cl.wrappers.Masked(loss())
    assert value(loss(), Y_TRUE, Y_PRED, none) == 0
    assert value(own, np.full_like(Y_TRUE, np.nan), Y_PRED) == 0
    np.testing.assert_array_equal(slope(own, np.full_like(Y_TRUE, np.nan), Y_PRED), 0 * Y_PRED)


# In models.


def test_four_of_the_numbers_of_a_detector():
    """Boxes, and whether they are there, in one output."""
    boxes = cl.wrappers.OnSlice(CIoU("center_xywh"), np.s_[..., :4])
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.uniform(0.1, 1, (2, 4, 3, 5)).astype("float32")
    alone = value(CIoU("center_xywh"), y_true[..., :4], y_pred[..., :4])
    assert value(boxes, y_true, y_pred) == alone
    both = cl.CompositeLoss(
        {"box": boxes, "there": cl.wrappers.OnSlice("binary_crossentropy", np.s_[..., 4:])}
    )
    parts = both.components(y_true, y_pred)
    assert float(parts["box"]) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("loss", [GIoU, CIoU])
def test_a_model_of_mixed_precision_trains(loss, policy):
    """With padding, a last batch that is not full, and one box for each sample or several."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 6)).astype("float32")
    y = np.tile(np.float32([0.4, 0.5, 0.2, 0.3]), (10, 3, 1))
    weight = np.ones((10, 3), "float32")
    y[:, 2], weight[:, 2] = np.nan, 0
    for target, sample_weight in ((y, weight), (y[:, 0], None)):
        keras.utils.set_random_seed(0)
        model = cl.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(target[0].size, "sigmoid", dtype=policy),
                layers.Reshape(target.shape[1:], dtype=policy),
            ]
        )
        model.compile(keras.optimizers.Adam(0.1), loss=loss(format="center_xywh"))
        options = {"sample_weight": sample_weight, "batch_size": 4, "verbose": 0}
        history = model.fit(x, target, epochs=20, **options).history["loss"]
        assert np.all(np.isfinite(history))
        assert history[-1] < 0.7 * history[0]


def test_a_model_with_a_mask_of_boxes_trains_on_those_that_are_there():
    """`Masking` marks the proposals that are all 0; its mask reaches the loss."""
    x = np.repeat(THERE[..., None], 4, axis=-1)
    model = cl.Sequential([keras.Input((3, 4)), layers.Masking(), layers.Dense(4)])
    model.compile("sgd", loss=cl.CompositeLoss({"box": GIoU()}))
    weights = [np.zeros((4, 4), "float32"), np.float32([0, 0, 2, 2])]
    model.layers[-1].set_weights(weights)
    y = padded(Y_TRUE, np.nan)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    square = np.tile(np.float32([0, 0, 2, 2]), (3, 1))
    alone = float(value(GIoU(), Y_TRUE[THERE > 0], square))
    assert logs["box_loss"] == pytest.approx(alone, rel=1e-5)
    model.fit(x, y, verbose=0)
    assert np.all(np.isfinite(model.layers[-1].get_weights()[1]))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "none"])
def test_it_saves_and_loads_with_its_format(reduction, tmp_path):
    model = cl.Sequential([keras.Input((6,)), layers.Dense(4, "sigmoid")])
    model.compile("sgd", loss=DIoU("center_xywh", reduction=reduction))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.loss.format, loaded.loss.reduction) == ("center_xywh", reduction)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX's compiler")
@pytest.mark.parametrize("shape", [(4, 4), (4, 1, 4), (32, 3, 4)])
@pytest.mark.parametrize("format", ["xyxy", "xywh", "center_xywh"])
@every_loss
def test_a_step_that_gives_its_memory_back_has_the_same_gradient(loss, format, shape):
    """As in `fit`. XLA overwrote what it still had to read where a reshaped sigmoid was sliced."""
    import jax

    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(shape[0], 32)), rng.normal(size=(32, np.prod(shape[1:]))) / 6
    y_true = rng.uniform(0.2, 0.6, shape)
    x, kernel, y_true = (array.astype("float32") for array in (x, kernel, y_true))

    def step(kernel):
        def total(kernel):
            return loss(format)(y_true, jax.nn.sigmoid(x @ kernel).reshape(shape))

        return kernel - jax.grad(total)(kernel)

    kept, given = (
        np.asarray(jax.jit(step, donate_argnums=donated)(jax.numpy.array(kernel)))
        for donated in ((), 0)
    )
    close(given, kept)


# Numbers that overflow.

OVERFLOWING = [1e20, -1e20, 3e38, -3e38, np.inf, -np.inf]


@every_format
@every_loss
def test_numbers_whose_squares_overflow_are_finite(loss, format):
    """Each of the four numbers of the truth, of the prediction, and of both."""
    pairs = []
    for bad in OVERFLOWING:
        for column in range(4):
            for sides in ([0], [1], [0, 1]):
                pair = np.array([[0, 0, 1, 1], [0.5, 0.25, 1.5, 2]], "float32")
                pair[sides, column] = bad
                pairs.append(pair)
    pairs = np.array(pairs)
    own = loss(format=format, reduction="none")
    assert np.all(np.isfinite(value(own, pairs[:, 0], pairs[:, 1])))
    assert np.all(np.isfinite(slope(own, pairs[:, 0], pairs[:, 1])))


@pytest.mark.parametrize("unit", [1e10, 1e20, 1e29])
@every_loss
def test_boxes_in_a_huge_unit_cost_the_same(loss, unit):
    begin, size = np.random.default_rng(0).uniform(0.1, 1, (2, 20, 2)), np.array([0.5, 0.7])
    y_true = np.concatenate([begin[0], begin[0] + size], axis=-1).astype("float32")
    y_pred = np.concatenate([begin[1], begin[1] + size], axis=-1).astype("float32")
    own = loss(reduction="none")
    huge = value(own, np.float32(unit) * y_true, np.float32(unit) * y_pred)
    close(huge, value(own, y_true, y_pred), rtol=1e-5)
    found = slope(own, np.float32(unit) * y_true, np.float32(unit) * y_pred)
    np.testing.assert_allclose(unit * found, slope(own, y_true, y_pred), rtol=1e-3, atol=1e-4)


@every_loss
def test_a_box_that_is_not_a_number_is_not_passed_over(loss):
    y_pred = np.array([[np.nan, 0, 1, 1]], "float32")
    assert np.isnan(value(loss(), np.array([[0, 0, 1e20, 1]]), y_pred))


# No boxes, and boxes that are missing.

WAYS = {
    "alone": lambda loss: loss,
    "composite": lambda loss: cl.CompositeLoss({"a": loss, "b": "mae"}),
    "masked": lambda loss: cl.wrappers.Masked(loss, mask_value=-1),
    "missing": cl.wrappers.Masked,
    "masked composite": lambda loss: cl.wrappers.Masked(
        cl.CompositeLoss({"a": loss, "b": "mae"}), mask_value=-1
    ),
}
every_way = pytest.mark.parametrize("wrap", WAYS.values(), ids=WAYS)


@pytest.mark.parametrize("weight", [None, (3,), (3, 0)], ids=str)
@every_way
@every_loss
def test_a_batch_without_boxes_is_0(loss, wrap, weight):
    nothing = np.zeros((3, 0, 4), "float32")
    data = [] if weight is None else [np.ones(weight, "float32")]
    assert value(wrap(loss()), nothing, nothing, *data) == 0
    assert slope(wrap(loss()), nothing, nothing, *data).shape == (3, 0, 4)


@pytest.mark.parametrize("kind", ["alone", "masked"])
def test_a_model_that_is_given_a_batch_without_boxes_stays_as_it_is(kind):
    inputs = keras.Input((0, 3))
    model = cl.Model(inputs, layers.Dense(4)(inputs))
    model.compile("sgd", loss=cl.CompositeLoss({"box": WAYS[kind](GIoU())}))
    before = [w.copy() for w in model.get_weights()]
    x, y = np.zeros((4, 0, 3), "float32"), np.zeros((4, 0, 4), "float32")
    logs = model.fit(x, y, verbose=0).history
    assert logs["loss"] == logs["box_loss"] == [0.0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@every_loss
def test_a_box_with_a_coordinate_that_means_missing_is_there(loss, dtype):
    """A box is missing where all of it is: -1 is a coordinate like any other."""
    y_true = np.array([[-1, -1, 3, 4], [-1, -1, -1, -1], [0, -1, 2, 2], [1, 1, 2, 2]], dtype)
    y_pred = y_true + np.float32(0.25) * np.arange(1, 5)
    there = [0, 2, 3]
    for way in ("masked", "masked composite"):
        plain = WAYS["composite" if way == "masked composite" else "alone"](loss())
        expected = value(plain, y_true[there], y_pred[there])
        close(value(WAYS[way](loss()), y_true, y_pred), expected)
        found = slope(WAYS[way](loss()), y_true, y_pred)
        assert np.all(found[1] == 0) and np.all(np.any(found[there] != 0, axis=-1))


@every_loss
def test_a_box_with_a_coordinate_that_is_nan_is_missing(loss):
    y_true = np.array([[np.nan, 0, 1, 1], [0, 0, 2, 2]], "float32")
    y_pred = np.array([[0, 0, 1, 1], [0, 0, 1, 2]], "float32")
    expected = value(loss(), y_true[1:], y_pred[1:])
    close(value(cl.wrappers.Masked(loss()), y_true, y_pred), expected)
