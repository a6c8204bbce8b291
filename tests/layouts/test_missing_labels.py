"""Losses with several predictions for each target: missing labels and weights of single targets."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import Masked
from tests.composite.children import SCALAR_REDUCTIONS, value
from tests.gradients import gradient
from tests.layouts.losses import LAYOUT_CASES, LaplaceNLL, reduced
from tests.messages import raises
from tests.wrappers.numpy_twins import close, uniform

every_case = pytest.mark.parametrize("case", LAYOUT_CASES, ids=lambda case: case.name)
every_reduction = pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
WEIGHTS = {
    "none": None,
    "samples": np.array([2.0, 0.0, 0.5, 1.0, 3.0, 1.5], "float32"),
    "column": np.array([[2.0], [0.0], [0.5], [1.0], [3.0], [1.5]], "float32"),
    "targets": uniform(6, 4, seed=5, low=0.0, high=2.0).round(1) * (uniform(6, 4, seed=6) > 0.3),
}
# One row is complete, one has no label at all.
THERE = np.random.default_rng(2).random((6, 4)) < 0.4
THERE[0], THERE[3] = True, False


def check(loss, case, y_true, y_pred, weight, there, reduction, dtype="float32"):
    given = y_true if there is None else np.where(there, y_true, np.nan).astype(y_true.dtype)
    data = () if weight is None else (weight,)
    expected, slope = reduced(case, y_true, y_pred, weight, there, reduction)
    exact = {} if dtype == "float32" else {"rtol": 4e-3, "atol": 4e-3}
    close(value(loss, given, y_pred, *data), expected, **exact)
    close(gradient(lambda p: loss(given, p, *data), y_pred), slope, **exact)


@every_case
@pytest.mark.parametrize(
    "weights",
    [
        "column",
        "targets",
        *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("none", "samples")),
    ],
)
@every_reduction
@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
def test_the_mean_is_over_the_targets_that_are_there(case, weights, reduction, missing):
    there = THERE if missing else None
    y_true, y_pred = case.data(6, 4)
    loss = case.make(reduction=reduction)
    check(Masked(loss), case, y_true, y_pred, WEIGHTS[weights], there, reduction)
    if not missing:
        check(loss, case, y_true, y_pred, WEIGHTS[weights], None, reduction)


@every_case
@every_reduction
def test_an_imposed_reduction_is_the_same(case, reduction):
    y_true, y_pred = case.data(6, 4)
    loss = cl.CompositeLoss({"a": Masked(case.make())}, reduction=reduction)
    check(loss, case, y_true, y_pred, WEIGHTS["targets"], THERE, reduction)


@every_case
def test_the_issue_table_of_ten_properties(case):
    y_true, y_pred = case.data(256, 10)
    there = np.random.default_rng(0).random((256, 10)) > 0.6
    check(Masked(case.make()), case, y_true, y_pred, None, there, "mean")


@every_case
def test_values_as_they_are_are_those_of_the_targets(case):
    y_true, y_pred = case.data(6, 4)
    holes, factor = np.where(THERE, y_true, np.nan), THERE * WEIGHTS["targets"]
    singles, _ = case.singles(y_true, y_pred)
    loss = Masked(case.make(reduction="none"))
    close(value(loss, holes, y_pred, WEIGHTS["targets"]), singles * factor)
    of_samples = cl.CompositeLoss([Masked(case.make())], reduction="none")
    close(value(of_samples, holes, y_pred), (singles * THERE).mean(axis=1))


@every_case
def test_sequences_and_axes_of_their_own(case):
    y_true, y_pred = case.data(6, 3, 4)
    there = np.random.default_rng(4).random((6, 3, 4)) < 0.5
    for weight in (None, WEIGHTS["samples"], uniform(6, 3, seed=8), uniform(6, 3, 4, seed=9)):
        check(Masked(case.make()), case, y_true, y_pred, weight, there, "mean")
        loss = case.make(reduction="mean_with_sample_weight")
        check(loss, case, y_true, y_pred, weight, None, "mean_with_sample_weight")


@every_case
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_target_may_have_an_axis_or_none(case, shape):
    y_true, y_pred = case.data(6, 1)
    given, there = y_true.reshape(shape), THERE[:, :1]
    y_pred = y_pred.reshape(6, case.count)
    holes = np.where(there.reshape(shape), given, np.nan)
    for weight in (None, WEIGHTS["samples"], WEIGHTS["column"]):
        data = () if weight is None else (weight,)
        wide = y_pred if case.layout == "blocks" else y_pred[:, None]
        expected, slope = reduced(case, y_true, wide, weight, there)
        loss = Masked(case.make())
        close(value(loss, holes, y_pred, *data), expected)
        close(gradient(lambda p, d=data, f=loss: f(holes, p, *d), y_pred), slope.reshape(6, -1))
        expected, _ = reduced(case, y_true, wide, weight)
        close(value(case.make(), given, y_pred, *data), expected)


@every_case
def test_it_is_exact_in_half_precision(case):
    y_true, y_pred = (array.astype("float16") for array in case.data(6, 4))
    for weight in (None, WEIGHTS["targets"].astype("float16")):
        check(Masked(case.make()), case, y_true, y_pred, weight, THERE, "mean", "float16")


@every_case
def test_nothing_there_is_0_without_a_gradient(case):
    y_true, y_pred = case.data(6, 4)
    loss, nothing = Masked(case.make()), np.full_like(y_true, np.nan)
    assert value(loss, nothing, y_pred) == 0
    assert np.all(gradient(lambda p: loss(nothing, p), y_pred) == 0)


@every_case
def test_what_a_target_of_weight_0_holds_does_no_harm(case):
    y_true, y_pred = case.data(6, 4)
    weight = WEIGHTS["targets"]
    apart = case.apart(y_pred, 4).copy()
    apart[weight == 0] = np.nan
    bad_true, bad_pred = np.where(weight == 0, np.nan, y_true), case.together(apart)
    expected, slope = reduced(case, y_true, y_pred, weight)
    close(value(case.make(), bad_true, bad_pred, weight), expected)
    close(gradient(lambda p: case.make()(bad_true, p, weight), bad_pred), slope)


@every_case
def test_in_training_element_weights_and_missing_labels_act(case):
    y_true, y_pred = case.data(6, 4)
    weight, holes = WEIGHTS["targets"], np.where(THERE, y_true, np.nan)
    inputs = keras.Input(y_pred.shape[1:])
    for loss, target, there in ((case.make(), y_true, None), (Masked(case.make()), holes, THERE)):
        model = cl.Model(inputs, keras.layers.Activation("linear")(inputs))
        model.compile("sgd", loss=cl.CompositeLoss({"a": loss}))
        # In one batch: the mean over labels is that of a batch.
        logs = model.evaluate(
            y_pred, target, sample_weight=weight, batch_size=6, verbose=0, return_dict=True
        )
        expected, _ = reduced(case, y_true, y_pred, weight, there)
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)
        assert logs["a_loss"] == pytest.approx(expected, rel=1e-5)


# What a user says, and does not say, of a loss.


@keras.saving.register_keras_serializable("tests")
def blocks_function(y_true, y_pred):
    mean, log_variance = ops.split(y_pred, 2, axis=-1)
    values = log_variance + ops.square(y_true - mean) * ops.exp(-log_variance)
    return 0.5 * ops.mean(values, axis=-1)


def test_a_function_may_say_it_too():
    case = LAYOUT_CASES[0]
    y_true, y_pred = case.data(6, 4)
    blocks_function.prediction_layout = "blocks"
    try:
        check(Masked(blocks_function), case, y_true, y_pred, WEIGHTS["targets"], THERE, "mean")
    finally:
        del blocks_function.prediction_layout


class WideWithoutWord(cl.losses.Loss):
    same_shape = False
    has_channels = True

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred[..., : y_true.shape[-1]]), axis=-1)


class NarrowWithoutWord(cl.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


class Derived(LaplaceNLL):
    """Another `call` than that of which the class above says its layout."""

    def call(self, y_true, y_pred):
        return 2 * super().call(y_true, y_pred)


@pytest.mark.parametrize("loss", [WideWithoutWord, NarrowWithoutWord, Derived])
def test_where_rows_with_some_labels_are_dropped_a_warning_says_so_once(loss):
    y_true, y_pred = LAYOUT_CASES[0].data(6, 4)
    y_pred = y_pred[:, :4] if loss is NarrowWithoutWord else y_pred
    masked, holes = Masked(loss()), np.where(THERE, y_true, np.nan)
    with pytest.warns(UserWarning, match="prediction_layout") as caught:
        value(masked, holes, y_pred)
    assert masked.name in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        value(masked, holes, y_pred)  # once


def test_rows_of_one_target_or_of_one_class_are_no_reason_to_warn():
    y_true, y_pred = LAYOUT_CASES[0].data(6, 1)
    holes = np.where(THERE[:, :1], y_true, np.nan)
    value(Masked(NarrowWithoutWord()), holes, y_pred[:, :1])
    one_hot = np.eye(3)[[0, 1, 2, 0]]
    one_hot[1, 0] = np.nan
    value(Masked(cl.losses.CategoricalFocal()), one_hot, np.full((4, 3), 1 / 3))
    value(Masked("categorical_crossentropy"), one_hot, np.full((4, 3), 1 / 3))


def test_a_layout_that_nobody_knows_is_an_error():
    class Wrong(cl.losses.Loss):
        prediction_layout = "rows"

        def call(self, y_true, y_pred):
            return ops.mean(y_pred, axis=-1)

    with raises(ValueError, "prediction_layout", "Wrong", "'blocks'", "Received: 'rows'"):
        Wrong()(np.zeros((2, 1)), np.zeros((2, 2)))


def test_predictions_that_belong_to_no_target_are_an_error():
    weight = np.ones((4, 3), "float32")
    with raises(ValueError, "gaussian_nll", "Received: ", "(4, 3)", "(4, 8)"):
        cl.losses.GaussianNLL()(np.zeros((4, 3)), np.zeros((4, 8)), weight)


def test_an_unknown_number_of_targets_is_an_error():
    """As a data set of TensorFlow gives them, whose generator says nothing of the shape."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the others know all sizes")
    import tensorflow as tf

    spec = tf.TensorSpec((None, None)), tf.TensorSpec((None, 8))
    masked = tf.function(Masked(cl.losses.GaussianNLL()), input_signature=spec)
    with raises(ValueError, "gaussian_nll", "tf.ensure_shape", "(None, None)"):
        masked(np.zeros((2, 4), "float32"), np.zeros((2, 8), "float32"))
    alone = tf.function(cl.losses.GaussianNLL(), input_signature=spec)
    assert alone(np.zeros((2, 4), "float32"), np.zeros((2, 8), "float32")) == 0


def test_weights_may_have_a_last_axis_of_one():
    y_true, y_pred = LAYOUT_CASES[0].data(6, 4)
    weight, loss = WEIGHTS["targets"], cl.losses.GaussianNLL()
    assert value(loss, y_true, y_pred, weight[..., None]) == value(loss, y_true, y_pred, weight)


def test_a_term_of_the_row_counts_where_any_of_its_labels_is_there():
    """A divergence reads no target, so that one label that is missing takes nothing from it."""
    y_true, y_pred = LAYOUT_CASES[0].data(6, 4)
    kl, any_there = cl.losses.GaussianKL(reduction="none"), THERE.any(axis=1)
    expected = value(kl, None, y_pred)[any_there].mean()
    composite = cl.CompositeLoss({"nll": cl.losses.GaussianNLL(), "kl": cl.losses.GaussianKL()})
    loss = cl.CompositeLoss({"a": Masked(composite)})
    found = loss.components(np.where(THERE, y_true, np.nan), y_pred)
    close(float(found["a/kl"]), expected)
    close(float(found["a/nll"]), reduced(LAYOUT_CASES[0], y_true, y_pred, None, THERE)[0])


def test_a_divergence_reads_no_target():
    y_pred = LAYOUT_CASES[0].data(6, 4)[1]
    assert math.isfinite(value(cl.losses.GaussianKL(), None, y_pred))
