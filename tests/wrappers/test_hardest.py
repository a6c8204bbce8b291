"""`Hardest` against NumPy: the largest values, of a sample or of the batch, and nothing else."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.batch import Batch
from combined_losses._core.compound import as_node
from combined_losses.wrappers import Hardest, Masked, PerChannel
from tests.composite.children import value
from tests.contracts.reference import read_cases
from tests.gradients import compiled, gradient, value_and_gradient
from tests.masks import masked as with_mask
from tests.messages import raises

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(4, 10, 2)).astype("float32")
P = RNG.normal(size=(4, 10, 2)).astype("float32")
SQUARES = np.mean((np.float64(Y) - P) ** 2, axis=-1)
WEIGHT = RNG.uniform(0.2, 2.0, (4, 10)).astype("float32")
WEIGHT[RNG.random((4, 10)) < 0.4] = 0
WEIGHT[3] = 0


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def number_of(m, fraction=None, count=None):
    return min(count, m) if count else min(m, max(1, math.floor(fraction * m + 0.001)))


def hardest(values, weight=None, over="sample", **choice):
    """The values of the twin, and their slope by the values of the child."""
    weight = np.ones(values.shape) if weight is None else np.float64(weight)
    batch = len(values)
    flat, w = (
        a.reshape(batch, -1) for a in (values * weight, np.broadcast_to(weight, values.shape))
    )
    rows = [range(batch)] if over == "batch" else [[n] for n in range(batch)]
    found, slope = np.zeros(batch), np.zeros(flat.shape)
    for own in rows:
        places = [(flat[n, i], n, i) for n in own for i in range(flat.shape[1]) if w[n, i] > 0]
        k = number_of(len(places), **choice)
        for score, n, i in sorted(places, reverse=True)[:k]:
            factor = (batch if over == "batch" else 1) / k
            found[n] += factor * score
            slope[n, i] = factor * w[n, i]
    return found, slope.reshape(values.shape)


CHOICES = [{"fraction": 0.3}, {"fraction": 1.0}, {"fraction": 0.01}, {"count": 1}, {"count": 5}]
CHOICES.append({"count": 1000})
every = pytest.mark.parametrize("choice", CHOICES, ids=str)
both = pytest.mark.parametrize("over", ["sample", "batch"])


@pytest.mark.parametrize(
    "weight", [None, WEIGHT, WEIGHT[:, 0] + 0.1], ids=["no", "rows", "samples"]
)
@both
@every
def test_it_is_the_mean_of_the_largest(choice, over, weight):
    loss = Hardest("mse", over=over, reduction="none", **choice)
    data = () if weight is None else (weight,)
    own = None if weight is None else weight.reshape(4, -1) * np.ones((4, 10))
    expected, slope = hardest(SQUARES, own, over, **choice)
    close(value(loss, Y, P, *data), expected)
    close(value(compiled(lambda *d: loss(*d)), Y, P, *data), expected)
    by_p = (np.float64(P) - Y) * slope[..., None]
    close(gradient(lambda p: loss(Y, p, *data), P), by_p)
    mean = Hardest("mse", over=over, **choice)
    close(value(mean, Y, P, *data), expected.mean())


@both
def test_limits(over):
    close(value(Hardest("mse", fraction=1.0, over=over), Y, P), SQUARES.mean())
    largest = SQUARES.max() if over == "batch" else SQUARES.max(axis=1).mean()
    close(value(Hardest("mse", count=1, over=over), Y, P), largest)


def test_29_of_a_hundred_are_29():
    """0.29 times 100 is below 29 in floats."""
    for fraction, m in ((0.29, 100), (0.3, 10), (0.57, 100), (0.07, 100), (0.3, 110)):
        values = np.arange(1.0, m + 1).reshape(1, m, 1)
        expected = np.mean(np.sort(values.ravel())[-round(fraction * m) :])
        for weight in ((), (np.ones((1, m), "float32"),)):
            loss = Hardest("mae", fraction=fraction)
            close(value(loss, np.zeros((1, m, 1)), values, *weight), expected)


@both
def test_missing_rows_and_masks_are_no_candidates(over):
    there = RNG.random((4, 10)) < 0.6
    missing = np.where(there[..., None], Y, np.nan).astype("float32")
    loss = Hardest(Masked("mse"), fraction=0.5, over=over, reduction="none")
    outer = Masked(Hardest("mse", fraction=0.5, over=over, reduction="none"))
    elements = (np.float64(Y) - P) ** 2
    of_elements = np.broadcast_to(there[..., None], Y.shape)
    expected, _ = hardest(elements, of_elements, over, fraction=0.5)
    close(value(loss, missing, P), expected)
    close(value(outer, missing, P), expected)
    plain = Hardest("mse", fraction=0.5, over=over, reduction="none")
    expected, _ = hardest(SQUARES, there, over, fraction=0.5)
    close(value(plain, Y, with_mask(P, there)), expected)


@both
def test_weight_0_everywhere_is_0_and_absent(over):
    nothing = np.zeros((4, 10), "float32")
    loss = Hardest("mse", fraction=0.5, over=over)
    assert value(loss, Y, P, nothing) == 0
    assert np.all(gradient(lambda p: loss(Y, p, nothing), P) == 0)
    batch = Batch(Y, P, nothing).replaced(asks_presence=True)
    assert not bool(as_node("part", loss).evaluate(batch).present)


@both
def test_rows_of_weight_0_do_no_harm(over):
    bad = np.where(WEIGHT[..., None] == 0, np.nan, P).astype("float32")
    loss = Hardest("mse", count=3, over=over)
    close(value(loss, Y, bad, WEIGHT), value(loss, Y, P, WEIGHT))
    slope = gradient(lambda p: loss(Y, p, WEIGHT), bad)
    assert np.all(np.isfinite(slope)) and np.all(slope[WEIGHT == 0] == 0)


@both
def test_what_is_not_a_number_is_seen(over):
    bad = P.copy()
    bad[1, 2] = np.nan
    assert np.isnan(value(Hardest("mse", count=1, over=over), Y, bad))


def test_equal_values_share_what_is_left():
    y, p = np.zeros((1, 4, 1)), np.array([[[2.0], [1.0], [-1.0], [0.5]]], "float32")
    loss = Hardest("mse", count=2)
    close(value(loss, y, p), 2.5)
    close(gradient(lambda p: loss(y, p), p)[0, :, 0], [2.0, 0.5, -0.5, 0.0])


def test_the_hardest_samples_of_a_batch():
    y, p = Y[:, 0], P[:, 0]
    values = np.mean((np.float64(y) - p) ** 2, axis=-1)
    loss = Hardest("mse", fraction=0.5, over="batch", reduction="none")
    close(value(loss, y, p), hardest(values, None, "batch", fraction=0.5)[0])
    dice = Hardest(cl.losses.Dice(), count=1, over="batch")
    masks = (RNG.random((2, 4, 5, 6, 1)) < 0.5).astype("float32")
    of_sample = value(cl.losses.Dice(reduction="none"), *masks)
    close(value(dice, *masks), of_sample.max())
    with raises(ValueError, "one value for each sample", "over='batch'", "Received: "):
        Hardest("mse", count=1)(y, p)


def test_top_k_cross_entropy():
    """nnU-Net's: a tenth of all pixels of the batch."""
    labels, z = RNG.integers(0, 3, (2, 6, 5)), RNG.normal(size=(2, 6, 5, 3)).astype("float32")
    loss = Hardest(
        cl.losses.SparseCategoricalFocal(0.0, from_logits=True), fraction=0.1, over="batch"
    )
    powers = np.exp(np.float64(z))
    share = np.take_along_axis(powers / powers.sum(-1, keepdims=True), labels[..., None], -1)
    expected = np.sort(-np.log(share).ravel())[-6:].mean()
    close(value(loss, labels, z), expected)


def test_in_other_wrappers_and_composites():
    inside = Hardest("mse", fraction=0.5)
    both = cl.CompositeLoss({"hard": inside, "all": "mse"}, {"hard": 0.5})
    close(value(both, Y, P), 0.5 * value(inside, Y, P) + SQUARES.mean())
    for over in ("sample", "batch"):
        curves = PerChannel(Hardest("mse", fraction=0.5, over=over), size=2)
        parts = cl.CompositeLoss({"a": curves}).components(Y, P)
        for c in range(2):
            own = (np.float64(Y[..., c]) - P[..., c]) ** 2
            expected = hardest(own, None, over, fraction=0.5)[0].mean()
            close(float(parts[f"a/channel_{c}"]), expected)
    outputs = cl.wrappers.OnOutput(inside, "a")
    close(value(outputs, {"a": Y, "b": Y}, {"a": P, "b": Y}), value(inside, Y, P))
    first = (np.moveaxis(a.reshape(4, 5, 2, 2), -1, 1) for a in (Y, P))
    of_first = Hardest(cl.losses.BinaryFocal(data_format="channels_first"), count=3)
    labels, shares = (1 / (1 + np.exp(-a)) for a in first)
    last = Hardest(cl.losses.BinaryFocal(), count=3)
    close(
        value(of_first, labels, shares),
        value(last, *(np.moveaxis(a, 1, -1) for a in (labels, shares))),
    )


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean", "none"])
def test_a_reduction_is_one_of_keras_s(reduction):
    expected, _ = hardest(SQUARES, fraction=0.3)
    total = {"sum": expected.sum(), "none": expected}.get(reduction, expected.mean())
    own = Hardest("mse", fraction=0.3, reduction=reduction)
    close(value(own, Y, P), total)
    imposed = cl.CompositeLoss([Hardest("mse", fraction=0.3)], reduction=reduction)
    close(value(imposed, Y, P), total)
    of_child = Hardest(keras.losses.MeanSquaredError(reduction=reduction), fraction=0.3)
    close(value(of_child, Y, P), total)


def test_it_trains_in_a_compiled_step_with_partial_batches():
    model = cl.Sequential([keras.Input((10, 2)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": Hardest("mse", count=3, over="batch")}))
    logs = model.evaluate(P, Y, batch_size=3, verbose=0, return_dict=True)
    parts = [hardest(SQUARES[s], None, "batch", count=3)[0].mean() for s in (np.s_[:3], np.s_[3:])]
    close(logs["loss"], np.average(parts, weights=[3, 1]))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere sizes are known")
@both
@every
def test_sizes_that_are_unknown_when_it_is_compiled(choice, over):
    import tensorflow as tf

    for weight in ((), (WEIGHT,)):
        loss = Hardest("mse", over=over, **choice)
        signature = [tf.TensorSpec([None, None, 2], "float32")] * 2
        signature += [tf.TensorSpec([None, None], "float32")] * len(weight)
        found = tf.function(lambda *d, f=loss: f(*d), input_signature=signature)(Y, P, *weight)
        close(np.asarray(found), value(loss, Y, P, *weight))


def test_an_empty_batch_is_0():
    for over in ("sample", "batch"):
        loss = cl.CompositeLoss([Hardest("mse", fraction=0.5, over=over)])
        assert value(loss, Y[:0], P[:0]) == 0


@both
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["no weights", "weights"])
def test_values_in_float64(over, weight):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless its setting says otherwise")
    loss = Hardest(keras.losses.MeanSquaredError(dtype="float64"), count=5, over=over)
    data = [np.float64(a) for a in (Y, P, weight) if a is not None]
    expected = hardest(SQUARES, weight, over=over, count=5)[0].mean()
    close(value(loss, *data), expected)
    close(value(loss, data[0][:0], data[1][:0]), 0)


REFERENCES = [e for k in ("cases", "weighted_cases") for e in read_cases(k, "wrappers")]


@pytest.mark.parametrize("entry", REFERENCES, ids=lambda entry: entry["id"])
def test_values_and_gradients_are_those_of_the_reference(entry):
    kwargs = dict(entry["kwargs"])
    child = kwargs.pop("loss")
    if isinstance(child, dict):
        child = getattr(cl.losses, child["class_name"])(**child["config"])
    loss = getattr(cl.wrappers, entry["loss"])(child, reduction="none", **kwargs)
    weight = [entry["sample_weight"]] if "sample_weight" in entry else []
    found, slope = value_and_gradient(
        lambda y, p: loss(y, p, *weight), entry["y_true"], entry["y_pred"]
    )
    close(found, entry["values"], entry["value_rtol"], entry["value_atol"])
    assert np.all(np.isfinite(slope))
    if entry["compare_gradient"]:
        close(slope, entry["grad"], entry["grad_rtol"], entry["grad_atol"])


# Arguments.


def test_it_needs_one_of_two_arguments():
    for given in ({}, {"fraction": 0.5, "count": 3}):
        with raises(ValueError, "either `fraction` or `count`", "Received: fraction="):
            Hardest("mse", **given)


@pytest.mark.parametrize(
    "name, bad",
    [
        ("fraction", 0),
        ("fraction", 1.1),
        ("fraction", "a"),
        ("count", 0),
        ("count", 1.0),
        ("over", "all"),
    ],
)
def test_an_argument_outside_its_range(name, bad):
    given = {"fraction": 0.5} if name == "over" else {}
    with raises(ValueError, f"`{name}` of Hardest", "must be", f"Received: {bad!r}"):
        Hardest("mse", **{**given, name: bad})


def test_a_composite_has_no_single_values():
    with raises(ValueError, "Hardest ('composite_loss') needs a single loss", "Received: "):
        Hardest(cl.CompositeLoss(["mse", "mae"]), count=1)
    scalar = Hardest(lambda t, p: ops.mean(ops.square(t - p)), count=1)
    with raises(ValueError, "one number for the whole batch", "Received: "):
        scalar(Y, P)


def test_it_comes_back_from_its_config():
    loss = Hardest(cl.losses.BinaryFocal(1.0), count=3, over="batch", name="n")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.count, again.fraction, again.over, again.name) == (3, None, "batch", "n")
    assert again.loss.gamma == 1.0
