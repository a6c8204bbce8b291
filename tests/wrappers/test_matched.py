"""`Matched` against loops over all pairings: values, gradients, padding, weights, the host."""

import itertools
import json
import sys

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.compound import as_node
from combined_losses.wrappers import Matched, OnOutput, Scaled
from combined_losses.wrappers.matched import assigned
from tests.composite.children import value
from tests.gradients import compiled, gradient, value_and_gradient
from tests.masks import masked as with_mask
from tests.messages import raises

RNG = np.random.default_rng(0)


def sets(rows, others, seed=0, batch=4, size=2):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, n, size)).astype("float32") for n in (rows, others))


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def squares(a, b):
    return np.mean((a - b) ** 2)


def distances(a, b):
    return np.mean(np.abs(a - b))


def pairings(rows, columns):
    """All ways to pair as many of two lists as there are of the shorter one."""
    if len(rows) <= len(columns):
        return [list(zip(rows, c, strict=True)) for c in itertools.permutations(columns, len(rows))]
    return [[(i, j) for j, i in pairs] for pairs in pairings(columns, rows)]


def twin(y, p, cost=squares, unmatched=1.0, there=None, weight=None):
    """The values and their gradient, of the loss `squares`."""
    y, p = np.float64(y), np.float64(p)
    there = np.ones(y.shape[:2], bool) if there is None else there
    weight = np.ones(y.shape[:2]) if weight is None else np.float64(weight)
    values, slope = np.zeros(len(y)), np.zeros(p.shape)
    for n in range(len(y)):
        rows, columns = np.flatnonzero(there[n]), range(p.shape[1])
        most = max(len(rows), p.shape[1], 1)
        costs = [
            (sum(cost(y[n, i], p[n, j]) for i, j in pairs), pairs)
            for pairs in pairings(list(rows), list(columns))
        ]
        _, pairs = min(costs, key=lambda each: each[0])
        alone = max(len(rows), p.shape[1]) - len(pairs)
        values[n] = unmatched * alone / most
        for i, j in pairs:
            values[n] += weight[n, i] * squares(y[n, i], p[n, j]) / most
            slope[n, j] = weight[n, i] * 2 * (p[n, j] - y[n, i]) / p.shape[2] / most
    return values, slope


def check(loss, expected, y, p, *weight):
    found, slope = value_and_gradient(lambda y, p: loss(y, p, *weight), y, p)
    close(found, expected[0])
    close(slope, expected[1])
    close(value(compiled(lambda *d: loss(*d)), y, p, *weight), expected[0])


SIZES = [(3, 3), (2, 4), (4, 2), (1, 1), (1, 5), (5, 1)]


@pytest.mark.parametrize("rows, others", SIZES)
@pytest.mark.parametrize("cost", [None, "mae"])
def test_it_is_the_loss_over_the_best_pairs(rows, others, cost):
    y, p = sets(rows, others)
    loss = Matched("mse", cost=cost, unmatched=0.3, reduction="none")
    check(loss, twin(y, p, distances if cost else squares, 0.3), y, p)


@pytest.mark.parametrize("filling", [np.nan, -1.0, 0.0], ids=str)
def test_rows_that_fill_the_truth_are_none(filling):
    y, p = sets(4, 3)
    there = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]], bool)
    padded = np.where(there[..., None], y, np.float32(filling))
    padded[0, 0, 0] = -1.0  # one entry alone fills no row
    loss = Matched("mse", mask_value=filling, unmatched=0.5, reduction="none")
    check(loss, twin(padded, p, squares, 0.5, there), padded, p)


@pytest.mark.parametrize("dtype, filling", [("uint8", -1), ("int32", 0.5), ("int32", 1e10)])
def test_a_filling_that_the_dtype_cannot_hold_fills_no_row(dtype, filling):
    """-1 in bytes would be 255, and 0.5 in whole numbers 0."""
    y = np.array([[[0, 0], [255, 255]]], dtype)
    p = np.float32([[[255, 255], [1, 1]]])
    close(value(Matched("mse", mask_value=filling), y, p), 0.5)


def test_weights_of_true_rows_multiply_their_pair_and_0_is_no_row():
    y, p = sets(3, 4)
    weight = np.float32([[1, 0, 2], [0.5, 1, 1], [0, 0, 0], [3, 3, 0]])
    loss = Matched("mse", reduction="none")
    expected = twin(y, p, there=weight > 0, weight=weight)
    check(loss, expected, y, p, weight)
    bad = np.where(weight[..., None] > 0, y, np.nan).astype("float32")
    check(loss, expected, bad, p, weight)
    same = sets(3, 3)
    y, p = same
    there = weight > 0
    masked = value(loss, y, with_mask(p, there))
    close(masked, twin(y, p, there=there)[0])


def test_weights_of_samples_weigh_their_value():
    y, p = sets(3, 4)
    weight = np.float32([1, 0, 2, 0.5])
    values, _ = twin(y, p)
    close(value(Matched("mse", reduction="none"), y, p, weight), values * weight)
    mean = Matched("mse", reduction="mean_with_sample_weight")
    close(value(mean, y, p, weight), (values * weight).sum() / weight.sum())
    bad = np.where(weight[:, None, None] > 0, p, np.nan).astype("float32")
    found, slope = value_and_gradient(lambda y, p: mean(y, p, weight), y, bad)
    close(found, (values * weight).sum() / weight.sum())
    close(slope, gradient(lambda p: mean(y, p, weight), p))
    there = weight > 0
    close(value(Matched("mse"), y, with_mask(p, there)), values[there].mean())


def test_the_order_of_the_rows_does_not_matter():
    y, p = sets(4, 5)
    loss = Matched(cl.losses.Charbonnier())
    expected = value(loss, y, p)
    close(value(loss, y[:, ::-1], p), expected)
    close(value(loss, y, p[:, [3, 1, 4, 0, 2]]), expected)
    close(value(Matched("mse"), y, y[:, ::-1]), 0, atol=0)


def test_boxes_by_another_cost():
    begin, size = RNG.uniform(0.1, 1, (2, 2, 3, 4, 2))
    y, p = np.concatenate([begin, begin + size], axis=-1).astype("float32")
    loss, cost = cl.losses.GIoU(reduction="none"), keras.losses.MeanAbsoluteError()
    expected = []
    for n in range(3):
        costs = [
            (sum(distances(y[n, i], p[n, j]) for i, j in pairs), pairs)
            for pairs in pairings(list(range(4)), list(range(4)))
        ]
        pairs = np.array(min(costs, key=lambda each: each[0])[1])
        expected.append(value(loss, y[n, pairs[:, 0]], p[n, pairs[:, 1]]).mean())
    close(value(Matched(loss, cost=cost, reduction="none"), y, p), expected)


def test_no_rows():
    y, p = sets(3, 2)
    nothing = np.full_like(y, np.nan)
    loss = Matched("mse", mask_value=np.nan, unmatched=0.7, reduction="none")
    check(loss, (np.full(4, 0.7), 0 * p), nothing, p)
    close(value(loss, y, p[:, :0]), 0.7)
    close(value(loss, nothing, p[:, :0]), 0)
    assert value(cl.CompositeLoss([Matched("mse")]), y[:0], p[:0]) == 0


def test_weight_0_everywhere_is_0_and_absent():
    y, p = sets(3, 3)
    loss, nothing = Matched("mse"), np.zeros(4, "float32")
    assert value(loss, y, p, nothing) == 0
    assert np.all(gradient(lambda p: loss(y, p, nothing), p) == 0)
    batch = Batch(y, p, nothing).replaced(asks_presence=True)
    assert not bool(as_node("part", loss).evaluate(batch).present)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(bad):
    """Also in a row that would stay without a partner."""
    y, p = sets(2, 3)
    p[1, 2, 0] = bad
    found = value(Matched("mse", reduction="none"), y, p)
    if np.isnan(bad):
        np.testing.assert_array_equal(np.isnan(found), np.arange(4) == 1)
    else:  # it is left without a partner
        assert np.all(np.isfinite(found))
        assert np.isinf(value(Matched("mse", reduction="none"), y, p[:, 1:])[1])


@pytest.mark.backend_free
def test_the_assignment_is_that_of_scipy():
    from scipy.optimize import linear_sum_assignment

    costs, there = RNG.normal(size=(20, 6, 9)), RNG.random((20, 6)) < 0.8
    for own, rows, found in zip(costs, there, assigned(costs, there), strict=True):
        taken, columns = linear_sum_assignment(own[rows])
        np.testing.assert_array_equal(found[rows][taken], columns)
        assert np.all(found[~rows] == -1)
    infinite = np.array([[[1.0, np.inf], [np.inf, np.inf]]])
    assert assigned(infinite, np.ones((1, 2)))[0, 0] == 0
    assert assigned(-infinite, np.ones((1, 2)))[0].tolist() in ([0, 1], [1, 0])


def test_large_sets_in_a_compiled_step():
    y, p = sets(40, 60, batch=64)
    loss = Matched("mse", reduction="none")
    step = compiled(lambda y, p: loss(y, p))
    for _ in range(2):
        close(value(step, y, p), value(loss, y, p))


@pytest.mark.parametrize("jit", [False, "auto"])
def test_it_trains_in_fit_with_partial_batches(jit):
    y, p = sets(3, 4, batch=7)
    model = cl.Sequential(
        [keras.Input((4, 2)), keras.layers.Dense(2, kernel_initializer="identity")]
    )
    loss = cl.CompositeLoss({"set": Matched("mse", unmatched=0.0)})
    model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit)
    logs = model.evaluate(p, y, batch_size=3, verbose=0, return_dict=True)
    close(logs["set_loss"], twin(y, p, unmatched=0.0)[0].mean())
    history = model.fit(p, y, batch_size=3, epochs=5, verbose=0).history["set_loss"]
    assert history[-1] < history[0]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others can")
def test_what_xla_cannot_do_is_said_before_it_tries():
    y, p = sets(3, 4)
    model = cl.Sequential([keras.Input((4, 2)), keras.layers.Dense(2)])
    loss = cl.CompositeLoss({"set": Matched("mse", name="pairs")})
    model.compile("sgd", loss=loss, jit_compile=True)
    parts = ("'pairs' asks the host", "jit_compile=False", "Received: jit_compile=True")
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with raises(ValueError, *parts):
            call(p, y)


def test_rules_that_read_gradients_see_it():
    y, p = sets(3, 3)
    inputs = keras.Input((3, 2))
    model = cl.Model(inputs, keras.layers.Dense(2)(inputs))
    losses = {"set": Matched("mse"), "small": cl.wrappers.PredictionOnly("mse")}
    loss = cl.CompositeLoss(losses, weighting=cl.weightings.PCGrad())
    model.compile("sgd", loss=loss)
    history = model.fit(p, y, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere sizes are known")
def test_sizes_that_are_unknown_when_it_is_compiled():
    import tensorflow as tf

    y, p = sets(3, 5)
    loss = Matched("mse", reduction="none")
    signature = [tf.TensorSpec([None, None, 2], "float32")] * 2
    found = tf.function(lambda *d: loss(*d), input_signature=signature)(y, p)
    close(np.asarray(found), twin(y, p)[0])


def test_in_other_wrappers_and_composites():
    y, p = sets(3, 4)
    own = value(Matched("mse"), y, p)
    close(
        value(cl.CompositeLoss({"a": Matched("mse"), "b": Matched("mae")}, {"b": 0.0}), y, p), own
    )
    close(value(OnOutput(Matched("mse"), "a"), {"a": y, "b": y}, {"a": p, "b": y}), own)
    holes = y.copy()
    holes[:, 1] = np.nan
    there = ~np.isnan(holes[..., 0])
    expected = twin(np.nan_to_num(holes), p, there=there)[0].mean()
    close(value(Matched("mse", mask_value=np.nan), holes, p), expected)
    close(
        value(Matched(cl.losses.Charbonnier(), cost=Scaled("mse", 2.0)), y, y[:, ::-1]),
        0,
        atol=2e-3,
    )


# Arguments.


@pytest.mark.parametrize("name, bad", [("unmatched", -1), ("unmatched", "1"), ("unmatched", None)])
def test_an_argument_outside_its_range(name, bad):
    with raises(ValueError, f"`{name}` of Matched", "must be", f"Received: {bad!r}"):
        Matched("mse", **{name: bad})


@pytest.mark.parametrize("bad", ["nan", True, [1.0], 1e300])
def test_the_filling_is_a_number(bad):
    with raises(ValueError, "`mask_value` of Matched", "nan, another number", f"Received: {bad!r}"):
        Matched("mse", mask_value=bad)


def test_what_it_refuses():
    y, p = sets(3, 4)
    with raises(ValueError, "needs a single loss", "Received: "):
        Matched(cl.CompositeLoss(["mse", "mae"]))
    with raises(ValueError, "`cost` of Matched", "single loss", "Received: "):
        Matched("mse", cost=cl.CompositeLoss(["mse", "mae"]))
    with raises(ValueError, "Component 'cost'", "no_such", "Received: "):
        Matched("mse", cost="no_such")
    with raises(ValueError, "two sets", "(batch, N, D)", "y_true of shape (4, 3)"):
        Matched("mse")(y[..., 0], p[..., 0])
    with raises(ValueError, "two sets", "Received: "):
        Matched("mse")(y, p[..., :1])
    with raises(ValueError, "one value for each row", "Received: values of shape"):
        Matched(cl.losses.Dice())(y, p)
    with raises(ValueError, "one for each sample or for each true row", "(4, 3, 2)"):
        Matched("mse")(y, p, np.ones((4, 3, 2), "float32"))


@pytest.mark.backend_free
def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with raises(ImportError, "Matched needs scipy", 'pip install "combined_losses[sets]"'):
        Matched("mse")


def test_it_comes_back_from_its_config():
    loss = Matched("mse", cost=cl.losses.Charbonnier(0.1), unmatched=0.5, mask_value=np.nan)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.unmatched, again.cost.epsilon) == (0.5, 0.1)
    assert np.isnan(again.mask_value)
    y, p = sets(3, 4)
    assert value(again, y, p) == value(loss, y, p)
    assert ops.shape(again(y, p)) == ()
