"""A mask that a loss puts on its values holds in training, in wrappers and in what is measured."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.diagnosis.measurer import measurer_of
from tests.masks import masked

VOID = 255
N, T, CLASSES = 10, 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, 2)).astype("float32")
X[:, -1] = np.where(RNG.random((N, 1)) < 0.5, 0.0, X[:, -1])  # masked steps
Y = np.where(RNG.random((N, T)) < 0.4, VOID, RNG.integers(0, CLASSES, (N, T)))
Y[3] = VOID
W = np.array([0, 1, 2, 0.5, 1, 3, 0, 1, 1, 2], "float32")[:, None]
KERNEL = RNG.normal(size=(2, CLASSES)).astype("float32")


def sparse(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID, **kwargs)


def model_of(loss, masking=False, tracked=True, **kwargs):
    layers = [keras.layers.Masking(0.0)] if masking else []
    dense = keras.layers.Dense(
        CLASSES, kernel_initializer=keras.initializers.Constant(KERNEL), name="head"
    )
    model = (cl if tracked else keras).Sequential([keras.Input((T, 2)), *layers, dense])
    model.compile(keras.optimizers.SGD(0.0), loss=loss, **kwargs)
    return model


def mean_of_epoch(batch_size, masking, weight):
    """The mean over the batches, each by its size, of the mean over the valid steps; in NumPy."""
    logits = X.astype("float64") @ KERNEL
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    values = -np.take_along_axis(logs, np.where(Y == VOID, 0, Y)[..., None], -1)[..., 0]
    valid = (Y != VOID) & (np.any(X != 0, axis=-1) if masking else True)
    total = 0.0
    for start in range(0, N, batch_size):
        at = slice(start, start + batch_size)
        given = np.ones((N, 1)) if weight is None else weight
        total += len(Y[at]) * (values * valid * given)[at].sum() / max(valid[at].sum(), 1)
    return total / N


RULES = {
    "none": lambda: None,
    "of values": lambda: cl.weightings.DynamicWeightAverage(period=1),
    "learned": lambda: cl.weightings.UncertaintyWeighting(),
    "of gradients": lambda: cl.weightings.MGDA(),
    "at parameters": lambda: cl.weightings.UPGrad(gradients="parameters"),
}


@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize("weight", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("batch_size", [10, 4])
def test_in_fit_and_evaluate(batch_size, weight, masking):
    model = model_of(cl.CompositeLoss({"a": sparse()}), masking)
    kwargs = {"batch_size": batch_size, "sample_weight": weight, "verbose": 0}
    logs = model.fit(X, Y, shuffle=False, **kwargs).history
    expected = mean_of_epoch(batch_size, masking, weight)
    evaluated = model.evaluate(X, Y, return_dict=True, **kwargs)
    for found in (logs["loss"][0], logs["a_loss"][0], evaluated["loss"], evaluated["a_loss"]):
        assert found == pytest.approx(expected, rel=1e-5)
    if batch_size == N:  # Keras's own, of one batch
        plain = model_of(sparse(), masking, tracked=False)
        if weight is not None:  # which Keras does not broadcast on torch
            kwargs["sample_weight"] = np.broadcast_to(weight, Y.shape)
        assert plain.evaluate(X, Y, **kwargs) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_under_every_kind_of_rule(rule):
    """The total is the weighted sum, and the parts are the same as without a rule."""
    loss = cl.CompositeLoss({"a": sparse(), "b": sparse()}, weighting=rule())
    model = model_of(loss)
    logs = model.fit(X, Y, batch_size=N, sample_weight=W, verbose=0).history
    logs = {key: values[0] for key, values in logs.items()}
    expected = mean_of_epoch(N, False, W)
    assert logs["a_loss"] == pytest.approx(expected, rel=1e-5)
    weights = [logs.get(f"{name}_weight", 1.0) for name in ("a", "b")]
    total = sum(weights) * expected + logs.get("weighting_loss", 0.0)
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_in_as_metrics():
    loss = cl.CompositeLoss({"a": sparse()})
    model = model_of(loss, tracked=False, weighted_metrics=loss.as_metrics())
    logs = model.evaluate(X, Y, batch_size=4, sample_weight=W, return_dict=True, verbose=0)
    assert logs["a_loss"] == pytest.approx(mean_of_epoch(4, False, W), rel=1e-5)
    assert logs["loss"] == pytest.approx(mean_of_epoch(4, False, W), rel=1e-5)


def test_in_diagnose():
    model = model_of(cl.CompositeLoss({"a": sparse(), "b": sparse()}))
    found = cl.diagnose(model, X, Y, batch_size=N)
    expected = mean_of_epoch(N, False, None)
    assert [found[name].value for name in ("a", "b")] == pytest.approx([expected] * 2, rel=1e-5)


def test_per_sample_totals():
    """The total of a sample is the mean over its steps, in which void steps count as 0."""
    logits = ops.convert_to_tensor(X @ KERNEL)
    each = ops.convert_to_numpy(sparse(reduction="none")(Y, logits)).mean(axis=1)
    loss = cl.CompositeLoss({"a": sparse()}, reduction="none")
    np.testing.assert_allclose(loss(Y, logits), each, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loss.components(Y, logits)["a"], each, rtol=1e-5, atol=1e-7)
    model = model_of(cl.CompositeLoss({"a": sparse()}))
    found = measurer_of(model)
    found.measure(X, Y)
    np.testing.assert_allclose(found.values_per_sample(X, Y)[0], each, rtol=1e-5, atol=1e-7)


# In wrappers: as `Masked` of a loss that masks nothing.


class MaskedSquares(keras.losses.Loss):
    """A user's loss that masks the rows with a target of -1."""

    def call(self, y_true, y_pred):
        values = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return masked(values, ops.all(y_true != -1.0, axis=-1))


def squares(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


squares.elementwise = False

FIELD = RNG.uniform(0.1, 1, (4, 4, 4, 2)).astype("float32")
MISSING = np.where(RNG.random((4, 4, 4, 1)) < 0.3, -1.0, FIELD).astype("float32")
PREDICTED = RNG.uniform(0.1, 1, (4, 4, 4, 2)).astype("float32")

WRAPPERS = {
    "OnSlice": lambda loss: cl.wrappers.OnSlice(loss, np.s_[:, :3, ::2]),
    "Activated": lambda loss: cl.wrappers.Activated(loss, "sigmoid"),
    "StopGradient": lambda loss: cl.wrappers.StopGradient(loss),
    "ClassWeighted": lambda loss: cl.wrappers.ClassWeighted(loss, [1.0, 3.0]),
    "nested": lambda loss: cl.CompositeLoss({"inner": cl.CompositeLoss([loss])}),
    "two deep": lambda loss: cl.wrappers.OnSlice(
        cl.wrappers.Activated(loss, "sigmoid"), np.s_[:, 1:]
    ),
}


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_in_a_wrapper(wrap, reduction):
    weight = np.array([2.0, 0.0, 0.5, 1.0], "float32")
    own = cl.CompositeLoss([wrap(MaskedSquares())], reduction=reduction)
    other = cl.CompositeLoss(
        [wrap(cl.wrappers.Masked(squares, mask_value=-1))], reduction=reduction
    )
    for given in (None, weight):
        found, expected = (
            ops.convert_to_numpy(loss(MISSING, PREDICTED, given)) for loss in (own, other)
        )
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_in_channels():
    """Each channel is a sample of its own, and masks its own rows."""
    loss = cl.wrappers.PerChannel(MaskedSquares(), size=2)
    y_true = np.where(RNG.random(FIELD.shape) < 0.3, -1.0, FIELD).astype("float32")
    valid = y_true != -1
    squared = np.square(y_true - PREDICTED)
    expected = sum(squared[..., i][valid[..., i]].mean() for i in range(2))
    np.testing.assert_allclose(loss(y_true, PREDICTED), expected, rtol=2e-6)


class MaskedElements(MaskedSquares):
    elementwise = True

    def call(self, y_true, y_pred):
        values = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return masked(values, ops.all(y_true != -1.0, axis=-1))


def test_in_elements():
    loss = cl.wrappers.PerElement(MaskedElements(), size=(4, 4, 2))
    y_true = np.where(RNG.random(FIELD.shape) < 0.3, -1.0, FIELD).astype("float32")
    valid = y_true != -1
    counted = np.maximum(valid.sum(axis=0), 1)
    expected = (np.square(y_true - PREDICTED) * valid).sum(axis=0) / counted
    np.testing.assert_allclose(loss(y_true, PREDICTED), expected.sum(), rtol=2e-6)
    weight = np.array([2.0, 0.0, 0.5, 1.0], "float32")[:, None, None, None]
    expected = (np.square(y_true - PREDICTED) * valid * weight).sum(axis=0) / counted
    np.testing.assert_allclose(loss(y_true, PREDICTED, weight[:, 0, 0, 0]), expected.sum(), 2e-6)


def test_in_scales():
    loss = cl.wrappers.MultiScale(MaskedSquares(), scales=(1, 2))
    pooled = [a.reshape(4, 2, 2, 2, 2, 2).mean(axis=(2, 4)) for a in (MISSING, PREDICTED)]
    expected = 0.0
    for y_true, y_pred in ((MISSING, PREDICTED), pooled):
        valid = np.all(y_true != -1, axis=-1)
        expected += np.square(y_true - y_pred).mean(axis=-1)[valid].mean()
    np.testing.assert_allclose(loss(MISSING, PREDICTED), expected, rtol=2e-6)


def test_in_a_term_of_the_inputs():
    def term(model, x, y_true, y_pred):
        values = ops.mean(ops.square(y_pred), axis=-1)
        return masked(values, ops.any(x != 0, axis=-1))

    loss = cl.CompositeLoss({"a": sparse(), "term": cl.wrappers.OnInputs(term)})
    logs = model_of(loss).evaluate(X, Y, batch_size=4, return_dict=True, verbose=0)
    valid, squared = np.any(X != 0, axis=-1), np.square(X @ KERNEL).mean(axis=-1)
    batches = [slice(0, 4), slice(4, 8), slice(8, 10)]
    expected = sum(len(X[b]) * squared[b][valid[b]].mean() for b in batches) / N
    assert logs["term_loss"] == pytest.approx(expected, rel=1e-5)


def test_predictions_that_are_whole_numbers_are_refused_in_training_alone():
    class Round(keras.layers.Layer):
        def call(self, x):
            return ops.cast(ops.round(x), "int32")

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, "int32")

    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(2), Round()])
    model.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    x, y = np.ones((4, 2), "float32"), np.zeros((4, 2), "float32")
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(np.mean(np.square(model.predict(x, verbose=0))))
    with pytest.raises(
        ValueError, match=r"`y_pred`.*in training.*no gradient.*Received: y_pred of"
    ):
        model.fit(x, y, verbose=0)


def test_an_empty_batch_in_a_loop_of_ones_own():
    loss = cl.CompositeLoss({"a": sparse()})
    found = loss(Y[:0], ops.convert_to_tensor((X @ KERNEL)[:0]))
    assert float(found) == 0.0
