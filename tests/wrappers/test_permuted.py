"""`Permuted` against loops over all orders: values, gradients, weights, and what it refuses."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.compound import as_node
from combined_losses.wrappers import Masked, OnOutput, Permuted, Scaled
from tests.composite.children import value
from tests.gradients import compiled, gradient, value_and_gradient
from tests.masks import masked as with_mask
from tests.messages import raises

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(5, 7, 3)).astype("float32")
ORDERS = np.array([[2, 0, 1], [0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]])
P = np.take_along_axis(Y, ORDERS[:, None], axis=-1)
P = (P + RNG.normal(scale=0.3, size=P.shape)).astype("float32")
OF_SAMPLES = np.float32([1, 0, 2, 0.5, 1])
OF_STEPS = (RNG.uniform(0.2, 2, (5, 7)) * (RNG.random((5, 7)) > 0.3)).astype("float32")
OF_ALL = (RNG.uniform(0.2, 2, Y.shape) * (RNG.random(Y.shape) > 0.3)).astype("float32")
WEIGHTS = {"none": None, "samples": OF_SAMPLES, "steps": OF_STEPS, "all": OF_ALL}
every_weight = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def best(y, p, weight=None):
    """Squared errors `(batch, steps, sources)` in the best order of each sample, and the order."""
    y, p = np.float64(y), np.float64(p)
    weight = np.ones(y.shape) if weight is None else np.float64(weight)
    weight = np.broadcast_to(weight.reshape(*weight.shape, *[1] * (3 - weight.ndim)), y.shape)
    found, chosen = np.zeros(y.shape), []
    for n in range(len(y)):
        orders = list(itertools.permutations(range(y.shape[2])))
        costs = [((y[n] - p[n][:, list(o)]) ** 2 * weight[n]).sum() for o in orders]
        chosen.append(list(orders[int(np.argmin(costs))]))
        found[n] = (y[n] - p[n][:, chosen[-1]]) ** 2
    return found, np.array(chosen), weight


@every_weight
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_it_is_the_mean_over_all_positions_in_the_best_order(reduction, weight):
    """With weights the same mean as without the wrapper, had the sources that order."""
    squares, _, w = best(Y, P, weight)
    count = w.sum() if reduction == "mean_with_sample_weight" else w.size
    loss = Permuted("mse", reduction=reduction)
    data = () if weight is None else (weight,)
    close(value(loss, Y, P, *data), (squares * w).sum() / count)
    close(value(compiled(lambda *d: loss(*d)), Y, P, *data), (squares * w).sum() / count)


@every_weight
def test_the_gradient_is_that_of_the_best_order(weight):
    _, orders, w = best(Y, P, weight)
    back = np.argsort(orders, axis=-1)
    by_source = 2 * w * (np.take_along_axis(np.float64(P), orders[:, None], -1) - Y) / w.size
    data = () if weight is None else (weight,)
    found = gradient(lambda p: Permuted("mse")(Y, p, *data), P)
    close(found, np.take_along_axis(by_source, back[:, None], -1))


def test_a_mask_is_over_what_is_there():
    there = RNG.random((5, 7)) < 0.6
    there[2] = False
    squares, _, w = best(Y, P, there)
    expected = (squares * w).sum() / w.sum()
    close(value(Permuted("mse"), Y, with_mask(P, there)), expected)
    single = RNG.random(Y.shape) < 0.6
    squares, _, w = best(Y, P, single)
    holes = np.where(single, Y, np.nan).astype("float32")
    for loss in (Masked(Permuted("mse")), Permuted(Masked("mse"))):
        close(value(loss, holes, P), (squares * w).sum() / w.sum())
        assert np.all(np.isfinite(gradient(lambda p, f=loss: f(holes, p), P)))


@pytest.mark.parametrize("sources", [1, 2, 4, 6])
def test_any_number_of_sources(sources):
    y, p = RNG.normal(size=(2, 3, 4, sources)).astype("float32")
    squares, _, _ = best(y, p)
    close(value(Permuted("mse", reduction="none"), y, p), squares.mean(axis=(1, 2)))
    if sources == 1:
        close(value(Permuted("mse"), y, p), value(cl.as_loss("mse"), y, p))
    first = np.moveaxis(y, -1, 1), np.moveaxis(p, -1, 1)
    close(value(Permuted("mse", axis=1), *first), squares.mean())
    close(value(Permuted("mse", axis=-2), *first), squares.mean())
    flat = y[:, 0], p[:, 0]
    close(value(Permuted("mse"), *flat), best(y[:, :1], p[:, :1])[0].mean())


def test_a_permuted_truth_costs_nothing():
    p = np.take_along_axis(Y, ORDERS[:, None], axis=-1)
    found, slope = value_and_gradient(Permuted("mse", reduction="none"), Y, p)
    close(found, 0, atol=0)
    close(slope, 0, atol=0)
    shuffled = P[:, :, [1, 2, 0]]
    close(value(Permuted("mse"), Y, shuffled), value(Permuted("mse"), Y, P))


def test_losses_of_signals_and_images():
    loss = Permuted(cl.losses.SISDR(), reduction="none")
    y, p = RNG.normal(size=(2, 3, 50, 2)).astype("float32")
    single = cl.losses.SISDR(reduction="none")
    pairs = [[value(single, y[..., i], p[..., j]) for j in (0, 1)] for i in (0, 1)]
    expected = np.minimum(pairs[0][0] + pairs[1][1], pairs[0][1] + pairs[1][0]) / 2
    close(value(loss, y, p), expected)
    masks = (RNG.random((2, 3, 6, 5, 2)) < 0.5).astype("float32")
    dice = value(Permuted(cl.losses.Dice(), reduction="none"), *masks)
    swapped = value(Permuted(cl.losses.Dice(), reduction="none"), masks[0], masks[1][..., ::-1])
    close(dice, swapped)


def test_weight_0_everywhere_is_0_and_absent():
    for weight in (np.zeros(5, "float32"), np.zeros((5, 7), "float32")):
        assert value(Permuted("mse"), Y, P, weight) == 0
        assert np.all(gradient(lambda p, w=weight: Permuted("mse")(Y, p, w), P) == 0)
        batch = Batch(Y, P, weight).replaced(asks_presence=True)
        assert not bool(as_node("part", Permuted("mse")).evaluate(batch).present)


@pytest.mark.parametrize("weight", [OF_SAMPLES, OF_STEPS], ids=["samples", "steps"])
def test_what_has_weight_0_does_no_harm(weight):
    there = weight.reshape(*weight.shape, *[1] * (3 - weight.ndim)) > 0
    bad_y, bad_p = (np.where(there, a, np.nan).astype("float32") for a in (Y, P))
    loss = Permuted("mse")
    found, slope = value_and_gradient(lambda y, p: loss(y, p, weight), bad_y, bad_p)
    close(found, value(loss, Y, P, weight))
    close(slope, gradient(lambda p: loss(Y, p, weight), P))


def test_what_is_not_a_number_is_seen():
    bad = P.copy()
    bad[1, 2, 0] = np.nan
    found = value(Permuted("mse", reduction="none"), Y, bad)
    np.testing.assert_array_equal(np.isnan(found), np.arange(5) == 1)


def test_in_other_wrappers_and_composites():
    own = value(Permuted("mse"), Y, P)
    both = cl.CompositeLoss({"a": Permuted("mse"), "b": "mae"}, {"b": 0.0})
    close(value(both, Y, P), own)
    close(value(Permuted(Scaled("mse", 2.0)), Y, P), own / 4)
    close(value(Scaled(Permuted("mse"), 2.0), Y, P), own / 4)
    outputs = {"a": P, "b": Y}
    close(value(OnOutput(Permuted("mse"), "a"), {"a": Y, "b": Y}, outputs), own)


def test_it_trains_in_a_compiled_step_with_partial_batches():
    model = cl.Sequential([keras.Input((7, 3)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": Permuted("mse")}))
    logs = model.evaluate(P, Y, batch_size=3, verbose=0, return_dict=True)
    close(logs["loss"], best(Y, P)[0].mean())
    assert value(cl.CompositeLoss([Permuted("mse")]), Y[:0], P[:0]) == 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere sizes are known")
def test_sizes_that_are_unknown_when_it_is_compiled():
    import tensorflow as tf

    for weight in ((), (OF_STEPS,)):
        signature = [tf.TensorSpec([None, None, 3], "float32")] * 2
        signature += [tf.TensorSpec([None, None], "float32")] * len(weight)
        loss = Permuted("mse")
        found = tf.function(lambda *d, f=loss: f(*d), input_signature=signature)(Y, P, *weight)
        close(np.asarray(found), value(loss, Y, P, *weight))


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [0, 1.0, "1", True, None])
def test_the_axis_is_an_integer_and_not_the_batch(bad):
    with raises(ValueError, "`axis` of Permuted", "not 0", f"Received: {bad!r}"):
        Permuted("mse", axis=bad)


@pytest.mark.parametrize("size", [2, 5])
def test_weights_of_other_axes_are_not_taken_for_those_of_sources(size):
    """Such as one for each time step of signals (batch, sources, time)."""
    y, p = np.zeros((2, 4, 3, 5), "float32")
    with raises(ValueError, "The sample_weight of component 'mse'", f"shape (4, {size})"):
        Permuted("mse", axis=1)(y, p, np.ones((4, size), "float32"))
    masked = with_mask(p, np.ones((4, size), bool))
    with raises(ValueError, "The mask of component 'mse'", f"shape (4, {size})"):
        Permuted("mse", axis=1)(y, masked)


def test_what_it_refuses_when_called():
    seven = np.zeros((2, 3, 7), "float32")
    parts = ("from 1 to 6 sources", "cl.wrappers.Matched", "Received: y_true of shape")
    for y, p, axis in ((seven, seven, -1), (Y, P[..., :2], -1), (Y, P, -3), (Y, P, 3)):
        with raises(ValueError, *parts):
            Permuted("mse", axis=axis)(y, p)
    with raises(ValueError, "needs a single loss", "Received: "):
        Permuted(cl.CompositeLoss(["mse", "mae"]))
    with raises(ValueError, "one number for the whole batch", "Received: "):
        Permuted(lambda t, p: ops.mean(ops.square(t - p)))(Y, P)


def test_it_comes_back_from_its_config():
    loss = Permuted(cl.losses.SISDR(zero_mean=False), axis=1, name="n")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.axis, again.name, again.loss.zero_mean) == (1, "n", False)
