"""`MultiScale`: one loss at several resolutions."""

import json

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import MultiScale, OnSlice, PerChannel
from tests.composite.children import WEIGHTS, value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.training.twin import reduce
from tests.wrappers.numpy_twins import block_means, check, close, mae, mse, normal, uniform

SHAPES = [(4, 9, 2), (4, 5, 8, 2), (4, 4, 5, 4, 1)]
every_rank = pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d", "3d"])


def batch(shape):
    return normal(*shape, seed=1), normal(*shape, seed=2)


def at_scales(
    values, scales, weights=None, weight=None, mask=None, reduction="sum_over_batch_size"
):
    """The total by block means, of what is weighted by sample weights and masks."""
    weights = weights or [1.0] * len(scales)

    def total(t, p):
        return sum(
            w * reduce(values(block_means(t, s), block_means(p, s)), weight, mask, reduction)
            for s, w in zip(scales, weights, strict=True)
        )

    return total


# Block means.


@every_rank
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("mask", [None, WEIGHTS > 0], ids=["no mask", "mask"])
@pytest.mark.parametrize("scales, weights", [((1, 2, 4), None), ((3, 1), [0.5, 2.0]), ((2,), [3])])
def test_the_loss_is_that_of_block_means(shape, weight, mask, scales, weights):
    expected = at_scales(mse, scales, weights, weight, mask)
    loss = MultiScale("mse", scales, weights)
    check(loss, expected, *batch(shape), weight, mask, slopes=np.prod(shape) < 400)


@every_rank
def test_the_default_scales_are_1_2_and_4(shape):
    close(value(MultiScale("mae"), *batch(shape)), at_scales(mae, (1, 2, 4))(*batch(shape)))


def test_a_last_block_that_is_not_whole_is_left_out():
    y_true, y_pred = batch((4, 5, 1))
    spoilt = y_pred.copy()
    spoilt[:, 4] = 100.0
    loss = MultiScale("mse", (2,))
    close(value(loss, y_true, spoilt), value(loss, y_true, y_pred))
    slope = gradient(lambda p: loss(y_true, p), y_pred)
    assert np.all(slope[:, 4] == 0) and np.all(slope[:, :4] != 0)


def test_noise_counts_at_the_finest_scale_only():
    noise = np.tile([1.0, -1.0], 4).reshape(1, 8, 1).astype("float32")
    parts = cl.CompositeLoss({"a": MultiScale("mse")}).components(0 * noise, noise)
    found = {name: float(part) for name, part in parts.items()}
    assert found == {"a": 1.0, "a/scale_1": 1.0, "a/scale_2": 0.0, "a/scale_4": 0.0}


@pytest.mark.parametrize("shape", [(4, 8, 2), (4, 4, 6, 2)])
def test_weights_of_single_places_are_averaged_alike(shape):
    weight = uniform(*shape[:-1], seed=7)
    y_true, y_pred = batch(shape)
    expected = sum(
        np.mean(
            mse(block_means(y_true, s), block_means(y_pred, s))
            * block_means(weight[..., None], s)[..., 0]
        )
        for s in (1, 2)
    )
    close(value(MultiScale("mse", (1, 2)), y_true, y_pred, weight), expected)


def test_a_mask_of_whole_blocks_drops_them():
    y_true, y_pred = batch((4, 8, 2))
    blocks = np.random.default_rng(0).random((4, 4)) < 0.6
    steps = np.repeat(blocks, 2, axis=1)
    errors = [
        mse(y_true, y_pred)[steps],
        mse(block_means(y_true, 2), block_means(y_pred, 2))[blocks],
    ]
    found = value(MultiScale("mse", (1, 2)), y_true, masked(y_pred, steps))
    close(found, sum(error.mean() for error in errors))


@pytest.mark.parametrize("bad", [100.0, np.nan])
def test_what_a_mask_hides_does_not_leak_into_the_averages(bad):
    """A block of which a part is masked is the mean over the rest."""
    y_true, y_pred = batch((4, 8, 2))
    steps = np.random.default_rng(0).random((4, 8)) < 0.6
    spoilt_true, spoilt_pred = y_true.copy(), y_pred.copy()
    spoilt_true[~steps] = bad
    spoilt_pred[~steps] = 100.0
    loss = MultiScale("mse", (1, 2))
    sound = value(loss, y_true, masked(y_pred, steps))
    close(value(loss, spoilt_true, masked(spoilt_pred, steps)), sound)
    slope = gradient(lambda p: loss(spoilt_true, masked(p, steps)), spoilt_pred)
    assert np.all(np.isfinite(slope)) and np.all(slope[~steps] == 0)


@pytest.mark.parametrize("shape", [(4, 1), (4, 1, 1), (4, 6, 1)])
def test_weights_with_axes_of_length_1_hold_along_them(shape):
    y_true, y_pred = batch((4, 6, 2))
    weight = uniform(*shape, seed=8)
    steps = np.broadcast_to(weight.reshape(4, -1)[:, : shape[1]], (4, 6))
    errors = [mse(block_means(y_true, s), block_means(y_pred, s)) for s in (1, 2)]
    weights = [block_means(steps[..., None], s)[..., 0] for s in (1, 2)]
    expected = sum(np.mean(w * e) for w, e in zip(weights, errors, strict=True))
    close(value(MultiScale("mse", (1, 2)), y_true, y_pred, weight), expected)


def test_the_weights_of_some_axes_of_an_image_are_those_of_its_rows():
    y_true, y_pred = batch((4, 4, 6, 2))
    weight = uniform(4, 4, seed=8)
    whole = np.broadcast_to(weight[..., None], (4, 4, 6)).copy()
    loss = MultiScale("mse", (1, 2))
    close(value(loss, y_true, y_pred, weight), value(loss, y_true, y_pred, whole))


def test_the_weight_of_what_is_masked_does_not_leak_either():
    y_true, y_pred = batch((1, 4, 1))
    steps = np.array([[1, 0, 1, 1]], bool)
    found = [
        value(MultiScale("mse", (2,)), y_true, masked(y_pred, steps), np.float32([[1, big, 2, 1]]))
        for big in (1.0, 100.0)
    ]
    first, second = y_true[0, 0, 0] - y_pred[0, 0, 0], np.mean((y_true - y_pred)[0, 2:])
    # The blocks have the masks 1/2 and 1, and the weights 1 and 3/2.
    expected = (0.5 * 1 * first**2 + 1 * 1.5 * second**2) / 1.5
    close(found, [expected, expected])


def test_a_mask_that_hides_nothing_changes_nothing():
    y_true, y_pred = batch((4, 6, 2))
    weight = uniform(4, 6, seed=8) * (uniform(4, 6, seed=9) > 0.4)
    everything = masked(y_pred, np.ones((4, 6), bool))
    for scales in ((2,), (1, 3)):
        loss = MultiScale("mse", scales)
        close(value(loss, y_true, everything, weight), value(loss, y_true, y_pred, weight))
    loss = MultiScale(MultiScale("mse", (2,)), (3,))
    steps = uniform(4, 6, seed=10) > 0.4
    close(
        value(loss, y_true, masked(y_pred, steps)),
        value(MultiScale("mse", (6,)), y_true, masked(y_pred, steps)),
    )


@pytest.mark.parametrize("shape", [(4, 9, 1), (4, 8, 8, 1)], ids=["1d", "2d"])
def test_a_wrapper_inside_for_which_nothing_is_missing_keeps_the_shares_of_blocks(shape):
    """A block of which a half is masked counts half, whatever else may be missing inside."""
    t, p = batch(shape)
    mask = np.random.default_rng(3).uniform(size=shape[:-1]) > 0.4
    expected = value(MultiScale("mae", (1, 2)), t, masked(p, mask))
    for missing in (-9.0, np.nan):
        loss = MultiScale(cl.wrappers.Masked("mae", missing), (1, 2))
        close(value(loss, t, masked(p, mask)), expected)


def test_a_void_class_inside_keeps_the_shares_of_blocks():
    """Ids have no means, so that the pooled ones are those of blocks of one class."""
    ids = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 3, (2, 4, 4)), 2, 1), 2, 2)
    p = uniform(2, 8, 8, 3, seed=2)
    mask = np.random.default_rng(3).uniform(size=(2, 8, 8)) > 0.4
    mask[:, ::2, ::2] = True  # of each block something counts
    one_hot = np.eye(3, dtype="float32")[ids]
    expected = value(MultiScale("mae", (1, 2)), one_hot, masked(p, mask))
    loss = MultiScale(cl.wrappers.OneHot("mae", num_classes=3, ignore_value=9), (1, 2))
    close(value(loss, ids[..., None], masked(p, mask)), expected)


def test_weights_of_samples_in_any_shape():
    y_true, y_pred = batch((4, 4, 6, 2))

    class Region(cl.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=(1, 2, 3))

    for wrap in (lambda loss: MultiScale(loss, (1, 2)), PerChannel):
        found = [
            value(wrap(Region()), y_true, y_pred, WEIGHTS.reshape(shape))
            for shape in ((4,), (4, 1), (4, 1, 1), (4, 1, 1, 1))
        ]
        close(found, [found[0]] * 4)


def test_a_loss_without_a_reduction_has_one_total_for_each_sample():
    y_true, y_pred = batch((4, 4, 2))
    child = keras.losses.MeanSquaredError(reduction="none")
    errors = [mse(block_means(y_true, s), block_means(y_pred, s)).mean(axis=1) for s in (1, 2)]
    close(value(MultiScale(child, (1, 2)), y_true, y_pred), sum(errors))


def test_every_scale_is_reported_and_weighted():
    y_true, y_pred = batch((4, 8, 8, 2))
    loss = cl.CompositeLoss({"a": MultiScale("mse", (1, 4), [2.0, 0.5])})
    one, four = (mse(block_means(y_true, s), block_means(y_pred, s)).mean() for s in (1, 4))
    found = {name: float(part) for name, part in loss.components(y_true, y_pred).items()}
    expected = {"a": 2 * one + 0.5 * four, "a/scale_1": one, "a/scale_4": four}
    assert found == pytest.approx(expected, rel=1e-5)
    model = cl.Sequential([keras.Input((8, 8, 2)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=loss)
    logs = model.evaluate(y_pred, y_true, batch_size=3, verbose=0, return_dict=True)
    named = {f"{name}_loss": part for name, part in expected.items()}
    assert logs == pytest.approx({"loss": expected["a"], **named}, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none"])
def test_a_reduction_is_imposed_on_every_scale(reduction):
    y_true, y_pred = batch((4, 8, 2))
    loss = cl.CompositeLoss({"a": MultiScale("mse", (1, 2))}, reduction=reduction)
    if reduction == "none":
        expected = sum(
            WEIGHTS * mse(block_means(y_true, s), block_means(y_pred, s)).mean(axis=1)
            for s in (1, 2)
        )
    else:
        expected = at_scales(mse, (1, 2), None, WEIGHTS, None, reduction)(y_true, y_pred)
    close(value(loss, y_true, y_pred, WEIGHTS), expected)


def test_whole_numbers_are_averaged_as_numbers():
    y_true = np.arange(8).reshape(1, 8, 1)
    y_pred = np.zeros((1, 8, 1), "float32")
    close(value(MultiScale("mae", (2,)), y_true, y_pred), 3.5)


def test_around_and_inside_other_wrappers():
    y_true, y_pred = batch((4, 8, 3))
    loss = MultiScale(PerChannel("mse", names=["u", "v"]), (2,))
    error = (block_means(y_true, 2) - block_means(y_pred, 2)) ** 2
    close(
        value(loss, y_true[..., :2], y_pred[..., :2]), error[..., 0].mean() + error[..., 1].mean()
    )
    loss = OnSlice(MultiScale("mse", (1, 2)), np.s_[..., 1:])
    check(
        loss,
        lambda t, p: at_scales(mse, (1, 2), None, WEIGHTS)(t[..., 1:], p[..., 1:]),
        y_true,
        y_pred,
        WEIGHTS,
    )


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "bad", [(), (0,), (1.5,), (2, 2), (True,), 2, "12", None, (-1, 1)], ids=repr
)
def test_scales_are_different_whole_numbers(bad):
    with raises(ValueError, "`scales` of MultiScale ('mse')", f"Received: {bad!r}"):
        MultiScale("mse", bad)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "bad", [[1.0], (1, 2, 3, 4), [1.0, np.nan, 1.0], ["a", "b", "c"], 2.0], ids=repr
)
def test_weights_are_one_number_for_each_scale(bad):
    with raises(ValueError, "`weights` of MultiScale ('mse')", "3 scales", f"Received: {bad!r}"):
        MultiScale("mse", weights=bad)


def test_weights_may_be_an_array():
    y_true, y_pred = batch((4, 8, 2))
    loss = MultiScale("mse", (1, 2), np.array([1.0, 0.5]))
    close(value(loss, y_true, y_pred), at_scales(mse, (1, 2), [1.0, 0.5])(y_true, y_pred))
    loaded = MultiScale.from_config(json.loads(json.dumps(loss.get_config())))
    assert value(loaded, y_true, y_pred) == value(loss, y_true, y_pred)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 8, 3, 2), (4, 2), (4, 4, 4, 4, 4, 1)])
def test_an_array_that_has_no_blocks_is_an_error_that_names_the_component(shape):
    loss = cl.CompositeLoss({"part": MultiScale("mse")})
    with raises(ValueError, "'part'", "blocks of", f"Received: y_pred of shape {shape}"):
        loss(*batch(shape))
