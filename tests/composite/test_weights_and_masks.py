"""Sample weights and masks: which rows count, and that the others cannot do harm."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import (
    CHILDREN,
    KERAS_CHILDREN,
    SCALAR_REDUCTIONS,
    WEIGHTS,
    Y_PRED,
    Y_TRUE,
    BatchScalar,
    SquaredError,
    log_ratio,
    squared_error,
    uniform,
    value,
)
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises

pytestmark = pytest.mark.depends_on_version

MASK = np.array([True, False, True, True])
STEPS = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)

every_child = pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
elementwise_child = pytest.mark.parametrize(
    "child", [CHILDREN[kind] for kind in CHILDREN if kind != "field"], ids=list(CHILDREN)[:-1]
)
every_mean = pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean"])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


def compose(child, **kwargs):
    return cl.CompositeLoss({"a": child(), "b": "mse"}, weights={"b": 0.5}, **kwargs)


# Which rows count.


@every_child
def test_weight_0_drops_the_sample(child):
    loss, kept = compose(child, reduction="mean_with_sample_weight"), WEIGHTS > 0
    dropped = value(loss, Y_TRUE[kept], Y_PRED[kept], WEIGHTS[kept])
    close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), dropped)


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
@every_child
def test_a_mask_slices(child, reduction):
    loss = compose(child, reduction=reduction)
    sliced = value(loss, Y_TRUE[MASK], Y_PRED[MASK])
    close(value(loss, Y_TRUE, masked(Y_PRED, MASK)), sliced)


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
@elementwise_child
def test_a_mask_of_steps_slices_steps(child, reduction):
    loss = compose(child, reduction=reduction)
    sliced = value(loss, Y_TRUE[STEPS], Y_PRED[STEPS])
    close(value(loss, Y_TRUE, masked(Y_PRED, STEPS)), sliced)


@every_mean
@every_child
def test_a_mask_and_weights_divide_by_what_the_mask_leaves(child, reduction):
    loss = compose(child, reduction=reduction)
    sliced = value(loss, Y_TRUE[MASK], Y_PRED[MASK], WEIGHTS[MASK])
    close(value(loss, Y_TRUE, masked(Y_PRED, MASK), WEIGHTS), sliced)


def test_every_component_sees_the_mask_whatever_its_dtype():
    """A cast drops the mask of a tensor on every backend, so it has to be read before."""
    losses = {
        "half": keras.losses.MeanSquaredError(dtype="float16"),
        "single": "mae",
        "own": cl.losses.UnderestimationPenalty(dtype="float16"),
        "nested": cl.CompositeLoss([log_ratio]),
    }
    loss = cl.CompositeLoss(losses)
    parts = loss.components(Y_TRUE, masked(Y_PRED, STEPS))
    sliced = loss.components(Y_TRUE[STEPS], Y_PRED[STEPS])
    for name in loss.component_names:
        np.testing.assert_allclose(parts[name], sliced[name], rtol=1e-2 if name == "half" else 2e-6)


@every_child
def test_an_all_masked_batch_is_0_with_gradient_0(child):
    nothing = np.zeros(4, bool)
    assert value(compose(child), Y_TRUE, masked(Y_PRED, nothing)) == 0.0
    slope = gradient(lambda p: compose(child)(Y_TRUE, masked(p, nothing)), Y_PRED)
    np.testing.assert_array_equal(slope, np.zeros_like(slope))


def test_weights_of_0_alone_give_0():
    loss = cl.CompositeLoss(["mse", "mae"], reduction="mean_with_sample_weight")
    assert value(loss, Y_TRUE, Y_PRED, np.zeros(4, "float32")) == 0.0


@every_child
def test_a_weight_of_2_is_the_sample_twice(child):
    loss = compose(child, reduction="mean_with_sample_weight")
    twice = [0, 1, 1, 2, 3]
    weight = np.array([1.0, 2.0, 1.0, 1.0], "float32")
    close(value(loss, Y_TRUE, Y_PRED, weight), value(loss, Y_TRUE[twice], Y_PRED[twice]))


@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
@every_child
def test_the_order_of_the_samples_does_not_matter(child, reduction):
    loss, order = compose(child, reduction=reduction), [2, 0, 3, 1]
    shuffled = value(loss, Y_TRUE[order], Y_PRED[order], WEIGHTS[order])
    close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), shuffled)


@every_child
def test_the_sum_of_a_batch_is_the_sum_of_its_parts(child):
    loss = compose(child, reduction="sum")
    parts = [value(loss, Y_TRUE[s], Y_PRED[s], WEIGHTS[s]) for s in np.split(np.arange(4), [1])]
    close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), sum(parts))


# Shapes.


@pytest.mark.parametrize("child", [SquaredError, lambda: squared_error], ids=["loss", "function"])
@pytest.mark.parametrize("y_true, y_pred", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3, 1), (4, 3))])
def test_an_axis_of_length_1_is_not_broadcast(child, y_true, y_pred):
    """`(4,)` against `(4, 1)` broadcasts to `(4, 4)`: a wrong number, no message."""
    y_true, y_pred = uniform(*y_true), uniform(*y_pred, seed=1)
    expected = np.mean(np.square(y_true.ravel() - y_pred.ravel()))
    close(value(cl.CompositeLoss([child()]), y_true, y_pred), expected)


SHAPES = {
    "a sample": (4,),
    "a sample, as a column": (4, 1),
    "a sample, in three ranks": (4, 1, 1),
    "a step": (4, 3),
    "a step, with an axis of length 1": (4, 3, 1),
    "all": (1,),
    "the batch": (),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@elementwise_child
def test_weights_match_the_values_from_the_left(child, shape):
    loss, weight = cl.CompositeLoss([child()]), uniform(*shape, seed=5)
    values = value(cl.CompositeLoss([child()], reduction="none"), *steps_as_samples())
    full = np.broadcast_to(np.reshape(weight, (*shape, 1, 1)[:2] or (1, 1)), (4, 3))
    close(value(loss, Y_TRUE, Y_PRED, weight), np.mean(values.reshape(4, 3) * full))


def steps_as_samples():
    return Y_TRUE.reshape(12, 2), Y_PRED.reshape(12, 2)


@pytest.mark.parametrize("make", [list, tuple, np.float64, np.int64, lambda w: np.array(w) > 0])
def test_weights_may_be_of_any_kind(make):
    weight = make([2, 0, 1, 1])
    full = np.array(weight, "float32")
    for child in (SquaredError(), cl.losses.AsymmetricError(), "mse"):
        loss = cl.CompositeLoss([child])
        close(value(loss, Y_TRUE, Y_PRED, weight), value(loss, Y_TRUE, Y_PRED, full))


def test_weights_of_samples_never_weigh_columns():
    """`(N,)` against values `(N, N)` fits both axes; a sample is the first."""
    y_true, y_pred = uniform(3, 3, 2), uniform(3, 3, 2, seed=1)
    weight = np.array([1.0, 0.0, 3.0], "float32")
    expected = np.mean(weight[:, None] * np.abs(y_true - y_pred).mean(axis=-1))
    close(value(cl.CompositeLoss(["mae"]), y_true, y_pred, weight), expected)
    close(value(cl.losses.AsymmetricError(1, 1, 1), y_true, y_pred, weight), expected)


@pytest.mark.parametrize("shape", [(3,), (4, 2), (5, 3)])
def test_weights_that_fit_nothing_are_an_error(shape):
    loss = cl.CompositeLoss({"a": "mse"})
    with pytest.raises(ValueError, match=r"sample_weight.*'a'.*\(4,\) or \(4, 3\).*Received: .*"):
        loss(Y_TRUE, Y_PRED, uniform(*shape))


def test_a_component_that_cannot_honour_a_mask_counts_as_if_there_were_none():
    """One value for each sequence cannot leave out single steps."""
    loss = cl.CompositeLoss({"edge": cl.losses.BoundaryDisagreement(axes=(1,))})
    with pytest.warns(UserWarning, match="'edge' cannot honour the mask"):
        actual = value(loss, Y_TRUE, masked(Y_PRED, STEPS))
    close(actual, value(loss, Y_TRUE, Y_PRED))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 1, 2)])
def test_weights_finer_than_the_values_are_an_error(shape):
    """The values are one number for each sequence."""
    edge = cl.losses.BoundaryDisagreement(axes=(1,))
    for loss in (cl.CompositeLoss({"edge": edge}), cl.CompositeLoss({"edge": edge, "b": "mse"})):
        with raises(ValueError, "'edge'", f"sample_weight of shape {shape}", "of shape (4,), or"):
            loss(Y_TRUE, Y_PRED, uniform(*shape))


def test_what_weights_are_possible_is_said():
    """The values of "mse" are one number for each step."""
    with raises(ValueError, "'a'", "(4, 3, 2)", "Give weights of shape (4,) or (4, 3), or let"):
        cl.CompositeLoss({"a": "mse"})(Y_TRUE, Y_PRED, uniform(4, 3, 2))


def test_a_scalar_component_counts_unweighted_beside_one_that_is_weighted():
    loss = cl.CompositeLoss({"scalar": BatchScalar(), "mse": "mse"})
    with pytest.warns(UserWarning, match="'scalar' cannot honour the sample_weight"):
        parts = loss.components(Y_TRUE, Y_PRED, WEIGHTS)
    error = Y_TRUE - Y_PRED
    close(parts["scalar"], np.mean(np.abs(error)))
    close(parts["mse"], np.mean(WEIGHTS * np.square(error).mean(axis=(1, 2))))


# What is wrong with a row of weight 0 stays in it.


def spoilt(array, with_what):
    array = np.array(array)
    array[1] = with_what
    return array


def check_row_does_no_harm(child, y_true, y_pred, bad_true, bad_pred, where):
    """Row 1 counts nothing, so loss and gradient are what they are without the bad numbers."""
    loss = cl.CompositeLoss([child])
    sound, bad = (y_true, y_pred), (spoilt(y_true, bad_true), spoilt(y_pred, bad_pred))
    close(value(loss, *where(*bad)), value(loss, *where(*sound)))
    slopes = [gradient(lambda p, y=y: loss(*where(y, p)), p) for y, p in (bad, sound)]
    assert np.all(slopes[0][1] == 0.0)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5, atol=1e-6)


def weigh(y_true, y_pred):
    return y_true, y_pred, WEIGHTS


def mask(y_true, y_pred):
    return y_true, masked(y_pred, MASK)


BAD_ROWS = {
    "NaN target": (np.nan, 0.5),
    "infinite target": (-np.inf, 0.5),
    "NaN prediction": (0.5, np.nan),
    "both NaN": (np.nan, np.nan),
    "prediction 0": (0.5, 0.0),
}
in_a_bad_row = pytest.mark.parametrize("true, pred", BAD_ROWS.values(), ids=BAD_ROWS)
either_way = pytest.mark.parametrize("where", [weigh, mask])


@either_way
@in_a_bad_row
@every_child
def test_a_bad_row_that_does_not_count_does_no_harm(child, true, pred, where):
    check_row_does_no_harm(child(), Y_TRUE, Y_PRED, true, pred, where)


# Circle compares every row with every other, whatever it counts.
@pytest.mark.parametrize("name", [name for name in KERAS_CHILDREN if name != "Circle"])
def test_a_bad_target_does_no_harm_to_any_loss_of_keras(name):
    child = KERAS_CHILDREN[name]
    bad = -1 if child.y_true.dtype == "int64" else np.nan
    check_row_does_no_harm(child.make(), child.y_true, child.y_pred, bad, child.y_pred[1], weigh)


@either_way
def test_a_bad_step_that_does_not_count_does_no_harm(where):
    """An exact 0 is what a recurrent layer gives for a masked step."""
    y_true, y_pred = (np.where(STEPS[..., None], a, b) for a, b in ((Y_TRUE, np.nan), (Y_PRED, 0)))
    kinds = [log_ratio, keras.losses.CosineSimilarity(), cl.losses.AsymmetricError(power=1.5)]
    loss = cl.CompositeLoss(kinds)

    def total(p):
        return loss(y_true, p, STEPS) if where is weigh else loss(y_true, masked(p, STEPS))

    expected = sum(value(cl.as_loss(kind), Y_TRUE[STEPS], Y_PRED[STEPS]) for kind in kinds)
    close(ops.convert_to_numpy(total(y_pred)), expected * (STEPS.mean() if where is weigh else 1))
    slope = gradient(total, y_pred)
    assert np.all(np.isfinite(slope))
    assert np.all(slope[~STEPS] == 0.0)


def test_a_bad_target_does_no_harm_to_a_scalar_component():
    """It sees every row, so it gets a number where there is none."""
    loss = cl.CompositeLoss({"scalar": BatchScalar()})
    y_true = spoilt(Y_TRUE, np.nan)
    with pytest.warns(UserWarning, match="'scalar'"):
        slope = gradient(lambda p: loss(y_true, p, WEIGHTS), Y_PRED)
    assert np.all(np.isfinite(slope))
    assert np.isfinite(value(loss, y_true, Y_PRED, WEIGHTS))


def test_a_bad_row_that_counts_is_seen():
    """A NaN is hidden only where the user said that it does not count."""
    assert np.isnan(value(cl.CompositeLoss(["mse"]), spoilt(Y_TRUE, np.nan), Y_PRED))
    weight = np.ones(4, "float32")
    assert np.isnan(value(cl.CompositeLoss(["mse"]), spoilt(Y_TRUE, np.nan), Y_PRED, weight))


# A component of weight 0.


def never(y_true, y_pred):
    """NaN with a NaN gradient."""
    return ops.mean(ops.sqrt(y_pred - 2.0), axis=-1)


def check_only_mse_counts(loss):
    close(value(loss, Y_TRUE, Y_PRED), np.mean(np.square(Y_TRUE - Y_PRED)))
    slope = gradient(lambda p: loss(Y_TRUE, p), Y_PRED)
    np.testing.assert_allclose(slope, 2 * (Y_PRED - Y_TRUE) / Y_TRUE.size, rtol=1e-5)


NEVER = {
    "function": never,
    "scalar": lambda y_true, y_pred: ops.mean(never(y_true, y_pred)),
    "nested": cl.CompositeLoss([never]),
    "sum": cl.CompositeLoss([never, "mae"], reduction="sum"),
}


@pytest.mark.parametrize("child", NEVER.values(), ids=NEVER)
def test_a_component_of_weight_0_contributes_neither_value_nor_gradient(child):
    loss = cl.CompositeLoss({"mse": "mse", "never": child}, weights={"never": 0.0})
    check_only_mse_counts(loss)
    assert np.isnan(ops.convert_to_numpy(loss.components(Y_TRUE, Y_PRED)["never"]))


@pytest.mark.parametrize("child", NEVER.values(), ids=NEVER)
def test_a_component_can_be_switched_off_and_on(child):
    loss = cl.CompositeLoss({"mse": "mse", "never": child})
    for weight in (1.0, 0.0, -1.0):
        loss.set_weight("never", weight)
        assert np.isnan(value(loss, Y_TRUE, Y_PRED)) == (weight != 0)
    loss.set_weight("never", 0.0)
    check_only_mse_counts(loss)


def test_a_part_of_a_nested_composite_can_be_switched_off():
    loss = cl.CompositeLoss({"inner": cl.CompositeLoss({"mse": "mse", "never": never})})
    loss.set_weight("inner/never", 0.0)
    check_only_mse_counts(loss)


def test_a_component_that_is_switched_on_again_has_its_gradient_and_its_mask():
    loss = cl.CompositeLoss({"mse": "mse"}, weights={"mse": 0.0})
    loss.set_weight("mse", 1.0)
    check_only_mse_counts(loss)
    sliced = np.mean(np.square(Y_TRUE - Y_PRED)[STEPS])
    close(value(loss, Y_TRUE, masked(Y_PRED, STEPS)), sliced)


# In a real model.


@pytest.fixture
def sequence_model():
    """Masks the steps whose input is 0; predicts twice the input."""
    layers = [
        keras.Input((3, 2)),
        keras.layers.Masking(),
        keras.layers.Dense(2, use_bias=False, kernel_initializer="identity"),
        keras.layers.Rescaling(2.0),
    ]
    model = cl.Sequential(layers)
    loss = cl.CompositeLoss({"mse": "mse", "own": cl.losses.AsymmetricError(), "f": squared_error})
    model.compile("sgd", loss=loss)
    return model


def test_every_component_sees_the_mask_of_a_model(sequence_model):
    x = np.where(STEPS[..., None], Y_PRED, 0).astype("float32")
    logs = sequence_model.evaluate(x, Y_TRUE, verbose=0, return_dict=True)
    error = (Y_TRUE - 2 * Y_PRED)[STEPS]
    mse = np.mean(error**2)
    own = np.mean(np.where(error > 0, 2.0, 1.0) * error**2)
    expected = {"loss": 2 * mse + own, "mse_loss": mse, "own_loss": own, "f_loss": mse}
    assert logs == pytest.approx(expected, rel=1e-5)
