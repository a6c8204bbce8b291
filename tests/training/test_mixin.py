"""What a tracked model logs: which keys, in which order, with which numbers."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import FROZEN, arrays, line, mae, mse, predictions, sgd, weights_of


def mse_and_mae(**kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": 0.5}, **kwargs)


def compiled(loss=None, learning_rate=FROZEN, metrics=None, **dense):
    model = line(**dense)
    model.compile(sgd(learning_rate), loss=loss or mse_and_mae(), metrics=metrics)
    return model


class Penalty(keras.layers.Layer):
    """Adds a loss while it is called, as a variational layer does."""

    def call(self, inputs):
        self.add_loss(0.25 * ops.mean(ops.square(inputs)))
        return inputs


# The keys.


def test_fit_logs_every_component_once_for_training_and_validation():
    x, y = arrays()
    history = compiled().fit(x, y, epochs=2, verbose=0, validation_data=(x, y)).history
    keys = ["loss", "mse_loss", "mae_loss"]
    assert sorted(history) == sorted([*keys, *(f"val_{key}" for key in keys)])
    assert {type(value) for values in history.values() for value in values} == {float}


def test_an_epoch_does_not_remember_the_one_before():
    x, y = arrays()
    history = compiled().fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    assert all(first == second for first, second in history.values())


def test_evaluate_gives_the_loss_the_components_in_order_then_the_metrics():
    loss = cl.CompositeLoss({"zeta": "mse", "alpha": "mae", "mid": "huber"})
    model = compiled(loss, metrics=["mae", keras.metrics.RootMeanSquaredError(name="a_rmse")])
    x, y = arrays()
    values = model.evaluate(x, y, verbose=0)
    names = ["loss", "zeta_loss", "alpha_loss", "mid_loss", "mae", "a_rmse"]
    assert model.metrics_names == names
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == names
    assert values == list(logs.values())
    assert logs["alpha_loss"] == pytest.approx(logs["mae"], rel=1e-6)
    assert logs["zeta_loss"] == pytest.approx(logs["a_rmse"] ** 2, rel=1e-5)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_a_single_batch_gives_numbers_in_the_same_order(method):
    model, (x, y) = compiled(metrics=["mae"]), arrays()
    p = predictions(model, x)
    expected = {"loss": mse(y, p) + 0.5 * mae(y, p), "mse_loss": mse(y, p), "mae_loss": mae(y, p)}
    expected["mae"] = mae(y, p)
    logs = getattr(model, method)(x, y, return_dict=True)
    assert list(logs) == list(expected)
    assert {key: float(value) for key, value in logs.items()} == pytest.approx(expected, rel=1e-6)
    values = getattr(model, method)(x, y)
    assert values == list(logs.values())
    assert np.asarray(values).dtype.kind == "f"


def test_a_batch_with_sample_weights_on_its_own():
    model, (x, y) = compiled(), arrays()
    weight = np.linspace(0, 2, 10)
    squares = (y - predictions(model, x))[:, 0] ** 2
    logs = model.test_on_batch(x, y, sample_weight=weight, return_dict=True)
    assert float(logs["mse_loss"]) == pytest.approx(np.mean(weight * squares), rel=1e-6)


def test_the_metrics_can_be_asked_for_their_results():
    model, (x, y) = compiled(metrics=["mae"]), arrays()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {key: float(value) for key, value in model.get_metrics_result().items()} == logs
    model.reset_metrics()
    assert float(model.get_metrics_result()["mse_loss"]) == 0.0


def test_the_progress_bar_shows_the_components(capsys):
    x, y = arrays()
    model = compiled()
    model.fit(x, y, verbose=1)
    model.evaluate(x, y, verbose=1)
    assert capsys.readouterr().out.count("mse_loss: ") >= 2


def test_a_name_that_ends_in_loss_is_not_doubled():
    loss = cl.CompositeLoss({"huber_loss": "huber", "mse": "mse"})
    assert compiled(loss).metrics_names == ["loss", "huber_loss", "mse_loss"]


def test_parts_of_a_nested_composite_follow_it():
    loss = cl.CompositeLoss({"inner": mse_and_mae(), "mse": "mse"})
    names = ["loss", "inner_loss", "inner/mse_loss", "inner/mae_loss", "mse_loss"]
    model, (x, y) = compiled(loss), arrays()
    assert list(model.evaluate(x, y, verbose=0, return_dict=True)) == names


def test_the_metrics_names_of_a_model_that_has_not_seen_data():
    assert compiled().metrics_names == ["loss", "mse_loss", "mae_loss"]
    assert line().metrics_names == []


# Regularisation.


def penalised(kind, cls=cl.Sequential):
    if kind == "add_loss":
        return cls([keras.Input((3,)), Penalty(), keras.layers.Dense(1, "relu")])
    return line(cls, **{kind: keras.regularizers.L2(0.1)})


@pytest.mark.parametrize("kind", ["kernel_regularizer", "activity_regularizer", "add_loss"])
def test_regularization_is_logged_and_counted_once(kind):
    x, y = arrays()
    plain, tracked = penalised(kind, keras.Sequential), penalised(kind)
    tracked.set_weights(plain.get_weights())
    plain.compile(sgd(FROZEN), loss="mse")
    tracked.compile(sgd(FROZEN), loss=mse_and_mae())
    of_mse = mse(y, ops.convert_to_numpy(plain(x)))
    expected = plain.evaluate(x, y, verbose=0) - of_mse
    logs = tracked.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "mse_loss", "mae_loss", "regularization_loss"]
    assert tracked.metrics_names == list(logs)
    assert logs["regularization_loss"] == pytest.approx(expected, rel=1e-5)
    parts = logs["mse_loss"] + 0.5 * logs["mae_loss"] + logs["regularization_loss"]
    assert logs["loss"] == pytest.approx(parts, rel=1e-6)


def test_regularization_trains():
    """With targets that are met, only the penalty moves the kernel: w <- w - lr * 2 * 0.1 * w."""
    penalty = keras.regularizers.L2(0.1)
    model = compiled(cl.CompositeLoss(["mse"]), learning_rate=0.5, kernel_regularizer=penalty)
    x, _ = arrays()
    before = ops.convert_to_numpy(model.layers[0].kernel).copy()
    history = model.fit(x, model.predict(x, verbose=0), batch_size=10, verbose=0).history
    after = ops.convert_to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(after, 0.9 * before, rtol=1e-4)
    assert history["regularization_loss"] == pytest.approx([0.1 * np.sum(before**2)], rel=1e-6)


def test_no_regularization_key_without_regularization():
    x, y = arrays()
    assert "regularization_loss" not in compiled().fit(x, y, verbose=0).history


# Collisions.


class Line(cl.ComponentMetricsMixin, keras.Model):
    """Its outputs show only when it is called for the first time."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("key", ["mse_loss", "mse_weight"])
@pytest.mark.parametrize("which", ["metrics", "weighted_metrics"])
def test_a_metric_that_would_hide_a_component_is_an_error(key, which):
    metrics = ["mae", keras.metrics.MeanSquaredError(name=key)]
    with pytest.raises(ValueError, match=f"'{key}'.*Rename.*Received"):
        line().compile(sgd(), loss=mse_and_mae(), **{which: metrics})


@pytest.mark.parametrize("step", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_it_is_an_error_before_the_first_step_of_a_model_that_is_not_built(step):
    model, (x, y) = Line(), arrays()
    metric = keras.metrics.MeanSquaredError(name="mse_loss")
    with pytest.raises(ValueError, match=r"'mse_loss'.*Rename"):
        model.compile(sgd(), loss=mse_and_mae(), metrics=[metric])
        getattr(model, step)(x, y)
    assert model.optimizer.iterations == 0


def test_a_metric_of_the_name_of_a_component_is_no_collision():
    model, (x, y) = compiled(metrics=["mae", "mse"]), arrays()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "mse_loss", "mae_loss", "mae", "mse"]


# Reduction "none".


@pytest.mark.parametrize("step", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_a_model_cannot_train_on_totals_per_sample(step):
    model, (x, y) = compiled(mse_and_mae(reduction="none")), arrays()
    with pytest.raises(ValueError, match=r"reduction is 'none'.*Received"):
        getattr(model, step)(x, y)


def test_nor_on_children_without_a_reduction():
    loss = cl.CompositeLoss([keras.losses.MeanSquaredError(reduction="none")])
    model, (x, y) = compiled(loss), arrays()
    with pytest.raises(ValueError, match="reduction is 'none'"):
        model.fit(x, y)


def test_a_reduction_that_is_set_to_none_later_is_an_error():
    model, loss = line(), cl.CompositeLoss(["mse", "mae"])
    model.compile(sgd(FROZEN), loss=loss)
    x, y = arrays()
    model.train_on_batch(x, y)
    loss.reduction = "none"
    for run in (model.train_on_batch, model.test_on_batch, model.evaluate, model.fit):
        with pytest.raises(ValueError, match="reduction is 'none'"):
            run(x, y)


# Sources of data.


def test_a_generator_with_sample_weights_adds_up():
    model, (x, y) = compiled(), arrays()
    weight = np.linspace(0.5, 2, 10).astype("float32")

    def batches():
        for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
            yield x[rows], y[rows], weight[rows]

    logs = model.evaluate(batches(), steps=3, verbose=0, return_dict=True)
    squares = (y - predictions(model, x))[:, 0] ** 2
    assert logs["mse_loss"] == pytest.approx(np.mean(weight * squares), rel=1e-6)
    assert logs["loss"] == pytest.approx(logs["mse_loss"] + 0.5 * logs["mae_loss"], rel=1e-6)


def test_class_weights_reach_every_component():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(10, 3)).astype("float32"), np.arange(10) % 2
    y = labels[:, None].astype("float32")
    model = compiled()
    history = model.fit(x, y, class_weight={0: 1.0, 1: 3.0}, verbose=0).history
    weight, error = np.where(labels, 3.0, 1.0), (y - predictions(model, x))[:, 0]
    assert history["mse_loss"] == pytest.approx([np.mean(weight * error**2)], rel=1e-6)
    assert history["mae_loss"] == pytest.approx([np.mean(weight * np.abs(error))], rel=1e-6)


@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_targets_without_the_last_axis_are_aligned_not_broadcast(shape):
    model, (x, y) = compiled(), arrays()
    logs = model.evaluate(x, y.reshape(shape), verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(mse(y, predictions(model, x)), rel=1e-6)


@pytest.mark.parametrize("step", ["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_step_that_fails_leaves_the_model_as_it_was(step, after):
    """On JAX Keras has by then taken the values out of all variables."""
    fails = []

    def fussy(y_true, y_pred):
        if fails:
            raise KeyError("a mistake of the user")
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    x, y = arrays()
    model = line()
    model.compile("adam", loss=cl.CompositeLoss([fussy, "mae"]))
    model.optimizer.build(model.trainable_variables)  # else TensorFlow wants it in the first step
    for _ in range(after):
        model.fit(x, y, batch_size=5, verbose=0)
    before = [w.copy() for w in model.get_weights()]
    fails.append(True)
    options = {} if step == "train_on_batch" else {"verbose": 0}
    with pytest.raises(KeyError, match="mistake"):
        getattr(model, step)(x[:3], y[:3], **options)
    fails.clear()
    for ours, w in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, w)
    expected = mse(y, predictions(model, x)) + mae(y, predictions(model, x))
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(expected, rel=1e-5)
    model.fit(x, y, verbose=0)


def test_two_models_share_a_composite():
    loss, (x, y) = mse_and_mae(), arrays()
    models = [line(seed=seed) for seed in (1, 2)]
    for model in models:
        model.compile(sgd(FROZEN), loss=loss)
    for model in models:
        logs = model.evaluate(x, y, verbose=0, return_dict=True)
        assert logs["mse_loss"] == pytest.approx(mse(y, predictions(model, x)), rel=1e-6)


# Numbers that are not there.


def worst(y_true, y_pred):
    return ops.max(ops.abs(y_true - y_pred), axis=-1)


@pytest.mark.parametrize("child", ["mse", worst, cl.losses.AsymmetricError()])
@pytest.mark.parametrize("reduction", ["per_component", "mean_with_sample_weight"])
def test_a_missing_target_with_weight_0_trains_as_if_the_row_were_not_there(child, reduction):
    x, y = arrays(outputs=2)
    weight = np.ones(10)
    weight[3], y[3] = 0.0, np.nan
    holey, whole = (line(outputs=2) for _ in range(2))
    for model in (holey, whole):
        # A sum over the batch size counts the row, so the step is longer without it.
        rate = 0.09 if model is whole and reduction == "per_component" else 0.1
        model.compile(sgd(rate), loss=cl.CompositeLoss([child], reduction=reduction))
    history = holey.fit(x, y, sample_weight=weight, batch_size=10, verbose=0).history
    whole.fit(np.delete(x, 3, 0), np.delete(y, 3, 0), batch_size=9, verbose=0)
    assert np.isfinite(history["loss"]).all()
    np.testing.assert_allclose(weights_of(holey), weights_of(whole), rtol=1e-5)


# Without a composite nothing changes.

PLAIN = {
    "one loss": lambda: {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mse"]},
    "a list on one output": lambda: {"loss": ["mse", "mae"]},
    "a loss object": lambda: {"loss": keras.losses.Huber(0.5), "metrics": ["mae"]},
    "a function and a weight": lambda: {"loss": worst, "loss_weights": 0.3},
}


def trained(model, x, y, options, **kwargs):
    """Everything that a user can see of a short training."""
    model.compile(keras.optimizers.Adam(0.01), **options())
    history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **kwargs).history
    evaluated = model.evaluate(x, y, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    batch = [float(value) for value in np.ravel(model.test_on_batch(x, y))]
    return history, evaluated, logs, batch, model.metrics_names, weights_of(model).tolist()


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_without_a_composite_logs_and_weights_are_keras_s(options):
    x, y = arrays()
    kwargs = {"sample_weight": np.linspace(0.5, 2, 10), "validation_data": (x, y)}
    dense = {"kernel_regularizer": "l2"}
    plain, tracked = (
        trained(line(cls, **dense), x, y, options, **kwargs)
        for cls in (keras.Sequential, cl.Sequential)
    )
    assert tracked == plain
