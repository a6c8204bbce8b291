"""`OnSlice` and `Scaled`: parts of one array, each with its own loss and units."""

import json

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import Masked, OnSlice, PerChannel, Scaled
from tests.composite.children import WEIGHTS, value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.wrappers.numpy_twins import (
    binary_crossentropy,
    check,
    close,
    mae,
    mse,
    normal,
    softmax_crossentropy,
    total,
    uniform,
)


def softmax_loss():
    return keras.losses.CategoricalCrossentropy(from_logits=True)


# Different things in one array.


def mixed_batch():
    """Two numbers, three logits and a probability for each of four samples."""
    one_hot = np.eye(3)[[0, 2, 1, 1]]
    y_true = np.hstack([normal(4, 2, seed=1), one_hot, [[1.0], [0.0], [1.0], [0.0]]])
    y_pred = np.hstack([normal(4, 5, seed=2), uniform(4, 1, seed=3)])
    return y_true.astype("float32"), y_pred.astype("float32")


def mixed_loss():
    return cl.CompositeLoss(
        {
            "position": OnSlice("mse", np.s_[:, 0:2]),
            "kind": OnSlice(softmax_loss(), np.s_[:, 2:5]),
            "visible": OnSlice("binary_crossentropy", np.s_[..., 5:6]),
        },
        {"kind": 0.5, "visible": 2.0},
    )


MIXED = {
    "position": total(lambda t, p: mse(t[:, :2], p[:, :2]), WEIGHTS),
    "kind": total(lambda t, p: softmax_crossentropy(t[:, 2:5], p[:, 2:5]), WEIGHTS),
    "visible": total(lambda t, p: binary_crossentropy(t[:, 5:], p[:, 5:]), WEIGHTS),
}


def test_one_array_may_hold_numbers_classes_and_a_probability():
    def expected(t, p):
        position, kind, visible = (f(t, p) for f in MIXED.values())
        return position + 0.5 * kind + 2 * visible

    check(mixed_loss(), expected, *mixed_batch(), WEIGHTS)


def test_every_part_has_its_own_metric():
    y_true, y_pred = mixed_batch()
    parts = mixed_loss().components(y_true, y_pred, WEIGHTS)
    assert list(parts) == ["position", "kind", "visible"]
    for name, part in parts.items():
        close(part, MIXED[name](y_true.astype("float64"), y_pred.astype("float64")))
    model = cl.Sequential([keras.Input((6,)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=mixed_loss())
    logs = model.evaluate(y_pred, y_true, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "position_loss", "kind_loss", "visible_loss"]
    for name, part in parts.items():
        assert logs[f"{name}_loss"] == pytest.approx(float(part), rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none"])
def test_a_reduction_may_be_imposed(reduction):
    loss = cl.CompositeLoss({"a": OnSlice("mse", np.s_[:, 0:2])}, reduction=reduction)
    y_true, y_pred = mixed_batch()
    values = mse(y_true[:, :2], y_pred[:, :2]) * WEIGHTS
    by = {"sum": values.sum(), "mean_with_sample_weight": values.sum() / WEIGHTS.sum()}
    close(value(loss, y_true, y_pred, WEIGHTS), by.get(reduction, values))


# Trajectories: velocities and accelerations side by side.

STEP_WEIGHTS = uniform(4, 6, seed=7)
STEPS = np.random.default_rng(3).random((4, 6)) < 0.7


@pytest.mark.parametrize("weight", [None, WEIGHTS, STEP_WEIGHTS], ids=["none", "(N,)", "(N, T)"])
@pytest.mark.parametrize("mask", [None, STEPS], ids=["no mask", "mask"])
def test_a_trajectory_has_losses_of_its_own_for_velocity_and_acceleration(weight, mask):
    loss = cl.CompositeLoss(
        {"v": OnSlice("mse", np.s_[..., :3]), "a": OnSlice("mae", np.s_[..., 3:])}, {"a": 0.1}
    )
    velocity = total(lambda t, p: mse(t[..., :3], p[..., :3]), weight, mask)
    acceleration = total(lambda t, p: mae(t[..., 3:], p[..., 3:]), weight, mask)
    y_true, y_pred = normal(4, 6, 6, seed=4), normal(4, 6, 6, seed=5)
    check(
        loss, lambda t, p: velocity(t, p) + 0.1 * acceleration(t, p), y_true, y_pred, weight, mask
    )


# Any basic index.

INDEXES = [
    np.s_[...],
    np.s_[:],
    np.s_[..., 0],
    np.s_[..., -1],
    np.s_[:, 2],
    np.s_[:, -2, 1],
    np.s_[:, 1, ...],
    np.s_[:, 1:4],
    np.s_[:, ::2, 1:],
    np.s_[:, 1:-1, ..., 0:1],
    np.s_[..., 2:4, :],
    np.s_[:, -3:],
    np.s_[:, :-1, np.int64(1)],
    np.s_[:, np.int64(1) : np.int64(3)],
    np.s_[:, ::-1, 0:1],
    np.s_[..., 0, None],
    np.s_[:, None, 1:4],
    np.s_[:, ::-2, None, :, None],
    (slice(None), ..., 0),
    Ellipsis,
]


def mse_of_rows(t, p):
    """Rank 1 is a batch of numbers."""
    return mse(t[:, None], p[:, None]) if p.ndim == 1 else mse(t, p)


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_an_index_means_what_it_means_in_numpy(index):
    expected = total(lambda t, p: mse_of_rows(t[index], p[index]))
    check(OnSlice("mse", index), expected, normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5))


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_an_index_is_stored_as_numbers(index):
    loss = OnSlice("mse", index)
    loaded = OnSlice.from_config(json.loads(json.dumps(loss.get_config())))
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    assert value(loaded, y_true, y_pred) == value(loss, y_true, y_pred)
    assert loaded.get_config() == loss.get_config()


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:, 2:5],
        np.s_[:, ::2, 1:],
        np.s_[:, 3],
        np.s_[:, -3:, 0],
        np.s_[:, ::-2, 0, None],
        np.s_[:, 1:3, :, None],
    ],
)
def test_weights_and_masks_of_steps_are_cut_alike(index):
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    cut = index[:2]
    expected = total(lambda t, p: mse_of_rows(t[index], p[index]), STEP_WEIGHTS[cut], STEPS[cut])
    if index == np.s_[:, -3:, 0]:  # (N, steps): each step is an element with a weight of its own
        expected = total(lambda t, p: (t[index] - p[index]) ** 2, STEP_WEIGHTS[cut], STEPS[cut])
    check(OnSlice("mse", index), expected, y_true, y_pred, STEP_WEIGHTS, STEPS)


@pytest.mark.parametrize("shape", [(4, 1), (1, 6), (1, 1), (1,)])
def test_weights_of_an_axis_of_length_1_stay_as_they_are(shape):
    weight = uniform(*shape, seed=8)
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    full = np.broadcast_to(weight.reshape(*shape, *[1] * (2 - len(shape))), (4, 6))[:, 2:5]
    expected = total(lambda t, p: mse(t[:, 2:5], p[:, 2:5]), full)
    check(OnSlice("mse", np.s_[:, 2:5]), expected, y_true, y_pred, weight)


def test_the_rest_has_no_gradient():
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    slope = gradient(lambda p: OnSlice("mse", np.s_[:, 1:3, 0:1])(y_true, p), y_pred)
    seen = np.zeros((4, 6, 2), bool)
    seen[:, 1:3, 0:1] = True
    assert np.all(slope[~seen] == 0) and np.all(slope[seen] != 0)


def test_a_nan_outside_the_slice_does_no_harm():
    y_true, y_pred = normal(4, 3, seed=4), normal(4, 3, seed=5)
    bad = y_true.copy()
    bad[:, 2] = np.nan
    loss = OnSlice("mse", np.s_[:, 0:2])
    close(value(loss, bad, y_pred), mse(y_true[:, :2], y_pred[:, :2]).mean())
    assert np.all(np.isfinite(gradient(lambda p: loss(bad, p), y_pred)))


def test_a_column_of_targets_meets_a_vector():
    """`(N,)` against `(N, 1)`, as Keras's own losses align them."""
    y_true, y_pred = normal(4, seed=4), normal(4, 1, seed=5)
    close(value(OnSlice("mse", np.s_[...]), y_true, y_pred), np.mean((y_true - y_pred[:, 0]) ** 2))


def test_a_slice_of_channels_keeps_their_names():
    loss = cl.CompositeLoss(
        {"uv": OnSlice(PerChannel("mse", names=["u", "v"], weights=[1.0, 3.0]), np.s_[..., 1:3])}
    )
    y_true, y_pred = normal(4, 6, 4, seed=4), normal(4, 6, 4, seed=5)
    u, v = (np.mean(WEIGHTS[:, None] * (y_true - y_pred)[..., c] ** 2) for c in (1, 2))
    parts = {k: float(x) for k, x in loss.components(y_true, y_pred, WEIGHTS).items()}
    assert parts == pytest.approx({"uv": u + 3 * v, "uv/u": u, "uv/v": v}, rel=1e-5)


def test_slices_of_slices():
    loss = OnSlice(OnSlice("mse", np.s_[:, 1:3]), np.s_[:, 2:])
    expected = total(lambda t, p: mse(t[:, 3:5], p[:, 3:5]), STEP_WEIGHTS[:, 3:5])
    check(loss, expected, normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5), STEP_WEIGHTS)


# Errors.

OUT_OF_RANGE = [
    np.s_[:, 6],
    np.s_[:, -7],
    np.s_[..., 2],
    np.s_[..., 0:3],
    np.s_[:, 7:],
    np.s_[:, -8:],
    np.s_[:, 3:3],
    np.s_[:, 4:2],
]


@pytest.mark.parametrize("index", OUT_OF_RANGE, ids=str)
def test_an_index_out_of_range_is_an_error_that_names_the_component(index):
    loss = cl.CompositeLoss({"a": "mse", "far": OnSlice("mse", index)})
    with raises(ValueError, "'far'", "out of range", "axis", "Received: y_pred of shape (4, 6, 2)"):
        loss(normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5))


def test_too_many_entries_are_an_error_that_names_the_component():
    loss = cl.CompositeLoss({"far": OnSlice("mse", np.s_[:, 0:1, 0:1, 0:1])})
    with raises(ValueError, "'far'", "4 entries", "3 axes", "Received: y_pred of shape (4, 6, 2)"):
        loss(normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "index", [0, np.s_[0:2], np.s_[0, :], np.s_[1:], np.s_[::2, :, 0]], ids=str
)
def test_an_index_that_cuts_the_batch_is_an_error(index):
    with raises(ValueError, "`index` of OnSlice", "batch axis whole", f"Received: {index!r}"):
        OnSlice("mse", index)


@pytest.mark.parametrize("index", [np.s_[..., 0:2, :, :], np.s_[..., 1, :, :]], ids=str)
def test_nor_may_the_batch_be_cut_behind_an_ellipsis(index):
    """`...` stands for no axis where the index has an entry for each."""
    loss = cl.CompositeLoss({"part": OnSlice("mse", index)})
    with raises(ValueError, "'part'", "batch axis", "Received: "):
        loss(normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5))


FANCY = [[0, 1], np.s_[..., [0, 1]], np.array([0]), np.s_[:, np.array([1])], "0:2", True, 1.0]


@pytest.mark.backend_free
@pytest.mark.parametrize("index", [*FANCY, np.s_[..., True]], ids=repr)
def test_a_fancy_index_is_an_error(index):
    with raises(ValueError, "`index` of OnSlice", "basic index", "np.s_[..., 0:2]", "Received: "):
        OnSlice("mse", index)


@pytest.mark.backend_free
@pytest.mark.parametrize("index", [np.s_[..., 0.0:2.0], np.s_[..., "a":], np.s_[:, ::0]], ids=str)
def test_a_slice_that_numpy_refuses_is_an_error(index):
    with raises(ValueError, "`index` of OnSlice", "Received: "):
        OnSlice("mse", index)


class Opaque(keras.losses.Loss):
    """A loss with a `__call__` of its own, which leaves the mask to Keras."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def test_the_mask_of_a_slice_reaches_a_loss_that_is_called_whole():
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    found = value(OnSlice(Opaque(), np.s_[:, 1:]), y_true, masked(y_pred, STEPS))
    close(found, mse(y_true, y_pred)[:, 1:][STEPS[:, 1:]].mean())


@pytest.mark.parametrize("index", [np.s_[:, 0:2], np.s_[:, 4], np.s_[..., 0]])
@pytest.mark.parametrize("shape", [(4, 3), (3,), (4, 6, 3)])
def test_weights_of_another_size_than_the_array_are_an_error(index, shape):
    loss = cl.CompositeLoss({"part": OnSlice("mse", index)})
    with raises(ValueError, "'part'", "sample_weight", f"Received: sample_weight of shape {shape}"):
        loss(normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5), np.ones(shape, "float32"))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_weights_of_steps_weigh_a_single_column(reduction):
    """`np.s_[..., 1]` is what one writes first; it means what `np.s_[..., 1:2]` means."""
    y_true, y_pred = normal(4, 6, 2, seed=4), normal(4, 6, 2, seed=5)
    child = keras.losses.MeanAbsoluteError(reduction=reduction)
    alone, column = OnSlice(child, np.s_[..., 1]), OnSlice(child, np.s_[..., 1:2])
    weighted = value(column, y_true, y_pred, STEP_WEIGHTS)
    plain = value(alone, y_true, y_pred)
    ones = value(alone, y_true, y_pred, np.ones((4, 6), "float32"))
    close(ones, plain)  # also where it is a sum of means over rows
    close(value(alone, y_true, y_pred, STEP_WEIGHTS), weighted / (6 if reduction == "sum" else 1))
    if reduction != "sum":
        close(
            value(alone, y_true, masked(y_pred, STEPS)),
            value(column, y_true, masked(y_pred, STEPS)),
        )


@pytest.mark.backend_free
def test_two_ellipses_are_an_error():
    with raises(ValueError, "one `...`", "Received: "):
        OnSlice("mse", (..., 0, ...))


def test_arrays_of_two_ranks_are_an_error():
    loss = cl.CompositeLoss({"part": OnSlice("mse", np.s_[..., 0:1])})
    with raises(ValueError, "'part'", "one rank", "y_true of shape (4, 6)", "(4, 6, 2)"):
        loss(normal(4, 6, seed=4), normal(4, 6, 2, seed=5))


def test_an_error_of_the_child_names_the_component_too():
    loss = cl.CompositeLoss({"part": OnSlice("mse", np.s_[:, 0:2])})
    with raises(ValueError, "'part'", "y_true of shape (4, 2, 3)", "y_pred of shape (4, 2, 2)"):
        loss(normal(4, 6, 3, seed=4), normal(4, 6, 2, seed=5))


def test_an_index_out_of_range_is_found_when_the_model_is_trained():
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=cl.CompositeLoss({"far": OnSlice("mse", np.s_[:, 2:4])}))
    with raises(ValueError, "'far'", "out of range"):
        model.fit(normal(4, 3, seed=1), normal(4, 2, seed=2), verbose=0)


# Units.

SCALES = [
    2.5,
    3,
    np.float32(0.5),
    [2.0, 0.5],
    np.array([[2.0], [4.0], [0.5]]),
    uniform(3, 2, seed=1),
]


@pytest.mark.parametrize("scale", SCALES, ids=repr)
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["none", "(N,)"])
def test_both_arguments_are_divided(scale, weight):
    by = np.asarray(scale, "float64")
    expected = total(lambda t, p: mse(t / by, p / by), weight, WEIGHTS > 0)
    y_true, y_pred = normal(4, 3, 2, seed=4), normal(4, 3, 2, seed=5)
    check(Scaled("mse", scale), expected, y_true, y_pred, weight, WEIGHTS > 0)


@pytest.mark.backend_free
@pytest.mark.parametrize("scale", SCALES, ids=repr)
def test_a_scale_comes_back_from_json(scale):
    loaded = Scaled.from_config(json.loads(json.dumps(Scaled("mse", scale).get_config())))
    np.testing.assert_array_equal(np.asarray(loaded.scale), np.asarray(scale))


def test_from_data_is_one_standard_deviation():
    y = normal(50, 3, seed=6) * [1.0, 100.0, 1e-3]
    loss = Scaled.from_data("mse", y + 7.0)
    deviation = np.std(y, axis=0)
    close(np.asarray(loss.scale), deviation)
    close(value(loss, np.zeros((1, 3)), deviation[None].astype("float32")), 1.0)
    twin = total(lambda t, p: mse(t / deviation, p / deviation))
    check(loss, twin, y[:4].astype("float32"), y[4:8].astype("float32"))
    json.dumps(loss.get_config())
    assert Scaled.from_data("mse", y, name="mine", reduction="sum").reduction == "sum"


def test_from_data_of_a_vector():
    y = normal(50, seed=6) * 3
    close(value(Scaled.from_data("mse", y), np.zeros(4), np.ones(4)), 1 / np.var(y))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "y", [np.ones((5, 2)), np.array([[1.0, 2.0], [1.0, 3.0]]), [[np.nan, 1.0]]]
)
def test_from_data_without_variation_is_an_error(y):
    with raises(ValueError, "Scaled.from_data", "vary", "Received: standard deviations"):
        Scaled.from_data("mse", y)


@pytest.mark.backend_free
def test_from_data_leaves_out_missing_labels():
    y = normal(20, 3, seed=1)
    y[np.random.default_rng(0).random((20, 3)) < 0.3] = np.nan
    expected = np.nanstd(y.astype("float64"), axis=0)
    np.testing.assert_allclose(Scaled.from_data(Masked("mse"), y).scale, expected, rtol=1e-6)
    y[:, 1] = np.nan
    with raises(ValueError, "vary in every element", "Received: "):
        Scaled.from_data("mse", y)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [0, 0.0, np.nan, np.inf, [1.0, 0.0], "2", None, True, 1j], ids=repr)
def test_a_scale_that_nothing_can_be_divided_by_is_an_error(bad):
    with raises(ValueError, "`scale` of Scaled ('mse')", "without a 0", f"Received: {bad!r}"):
        Scaled("mse", bad)


def test_a_scale_of_another_shape_is_an_error_that_names_the_component():
    """A scale that broadcast *up* would give a wrong number."""
    loss = cl.CompositeLoss({"units": Scaled("mse", [1.0, 2.0, 3.0])})
    y_true, y_pred = normal(4, 1, seed=4), normal(4, 1, seed=5)
    with raises(ValueError, "'units'", "scale", "Received: "):
        loss(y_true, y_pred)


def test_a_scale_never_meets_the_batch_axis():
    """One number for each of 4 columns is not one for each of 4 samples."""
    loss = cl.CompositeLoss({"units": Scaled("mse", np.ones((4, 1, 1)) * 2)})
    with raises(ValueError, "'units'", "scale", "Received: "):
        loss(normal(4, 3, seed=4), normal(4, 3, seed=5))


def test_wholes_of_large_units_stay_exact():
    """Targets in whole numbers beyond float16 and int8."""
    y_true, y_pred = np.array([[30000], [10000]]), np.array([[10000.0], [10000.0]])
    close(value(Scaled("mse", 10000.0), y_true, y_pred), 2.0)
