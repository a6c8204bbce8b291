"""A class and a step of the user's work in a tracked model as they do in `keras.Model`."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.messages import raises
from tests.training.tiny import FROZEN, arrays, line, mse, predictions, sgd, weights_of

BACKEND = keras.backend.backend()


def mse_and_mae():
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": 0.5})


def test_the_mixin_adds_no_private_name():
    private = [n for n in vars(cl.ComponentMetricsMixin) if n.startswith("_") and n[:2] != "__"]
    assert private == []
    public = {n for n in vars(cl.ComponentMetricsMixin) if not n.startswith("_")}
    assert public <= set(dir(keras.Model)), "it overrides what Keras has, and adds nothing"


def test_a_compiled_model_has_one_private_attribute_more():
    plain, tracked = line(keras.Sequential), line(cl.Sequential)
    for model in (plain, tracked):
        model.compile(sgd(FROZEN), loss="mse" if model is plain else mse_and_mae())
        model.fit(*arrays(), verbose=0)
    more = set(vars(tracked)) - set(vars(plain))
    assert more == {"_combined_losses"}


NAMES = [
    "_tracking",
    "_exclude_learned",
    "_loss_variables",
    "_output_names",
    "_as_new",
    "_unpacking",
    "_ordered",
    "_check_trainable",
    "_state",
    "_own_tracker",
    "_routes",
    "_steps",
]


@pytest.mark.parametrize("name", NAMES)
def test_users_may_use_any_name(name):
    class Own(cl.ComponentMetricsMixin, keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            setattr(self, name, {"of": "the user"})

        def call(self, x):
            return self.dense(x)

    model = Own()
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    logs = model.fit(*arrays(), verbose=0, validation_data=arrays()).history
    assert {"loss", "mse_loss", "val_mae_loss"} <= set(logs)
    assert dict(getattr(model, name)) == {"of": "the user"}


# Steps as in Keras's guides, "Customizing what happens in fit()".


def guide_logs(self, loss, y, y_pred):
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return {m.name: m.result() for m in self.metrics}


def guide_tensorflow(self, data):
    import tensorflow as tf

    x, y = data
    with tf.GradientTape() as tape:
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
    trainable_vars = self.trainable_variables
    gradients = tape.gradient(loss, trainable_vars)
    self.optimizer.apply(gradients, trainable_vars)
    return guide_logs(self, loss, y, y_pred)


def guide_torch(self, data):
    import torch

    x, y = data
    self.zero_grad()
    y_pred = self(x, training=True)
    loss = self.compute_loss(y=y, y_pred=y_pred)
    loss.backward()
    trainable_weights = list(self.trainable_weights)
    gradients = [v.value.grad for v in trainable_weights]
    with torch.no_grad():
        self.optimizer.apply(gradients, trainable_weights)
    return guide_logs(self, loss, y, y_pred)


def guide_jax(self, state, data):
    import jax

    trainable, rest, optimizer, metrics_variables = state
    x, y = data

    def loss_and_updates(trainable, rest):
        y_pred, rest = self.stateless_call(trainable, rest, x, training=True)
        return self.compute_loss(x, y, y_pred), (y_pred, rest)

    gradient = jax.value_and_grad(loss_and_updates, has_aux=True)
    (loss, (y_pred, rest)), gradients = gradient(trainable, rest)
    trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
    new_metrics_vars, logs = [], {}
    for metric in self.metrics:
        start = len(new_metrics_vars)
        this = metrics_variables[start : start + len(metric.variables)]
        if metric.name == "loss":
            this = metric.stateless_update_state(this, loss)
        else:
            this = metric.stateless_update_state(this, y, y_pred)
        logs[metric.name] = metric.stateless_result(this)
        new_metrics_vars += this
    return logs, (trainable, rest, optimizer, new_metrics_vars)


GUIDE = {"tensorflow": guide_tensorflow, "torch": guide_torch, "jax": guide_jax}[BACKEND]


def guided(cls, loss, **kwargs):
    own = type("Own", cls, {"train_step": GUIDE})
    model = line(own)
    model.compile(sgd(0.1), loss=loss, **kwargs)
    return model


@pytest.mark.parametrize("metrics", [None, ["mae"]])
def test_the_step_of_the_guide(metrics):
    """Logs are what the step returns, and the parts; on JAX such a step cannot report parts."""
    x, y = arrays()
    tracked = guided((cl.ComponentMetricsMixin, keras.Sequential), mse_and_mae(), metrics=metrics)
    plain = guided((keras.Sequential,), mse_and_mae(), metrics=metrics)
    how = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    found, expected = (model.fit(x, y, **how).history for model in (tracked, plain))
    parts = {key: found.pop(key) for key in ("mse_loss", "mae_loss") if key in found}
    assert bool(parts) == (BACKEND != "jax")
    if metrics is None and BACKEND != "jax":
        # In this step Keras tracks no "loss": the one in the logs is the mixin's.
        found.pop("loss")
        expected.pop("loss")
    assert found.keys() <= expected.keys() | {"loss"}
    for key in found:
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key
    np.testing.assert_allclose(weights_of(tracked), weights_of(plain), rtol=1e-5)


def test_it_finds_no_metric_of_ours():
    x, y = arrays()
    model = guided((cl.ComponentMetricsMixin, keras.Sequential), mse_and_mae(), metrics=["mae"])
    plain = guided((keras.Sequential,), mse_and_mae(), metrics=["mae"])
    for each in (model, plain):
        each.fit(x, y, verbose=0)
    assert [m.name for m in model.metrics] == [m.name for m in plain.metrics]


def test_parts_of_a_step_are_means_of_the_epoch():
    if BACKEND == "jax":
        pytest.skip("that step threads no variables through the loss")
    x, y = arrays()
    model = guided((cl.ComponentMetricsMixin, keras.Sequential), mse_and_mae())
    model.optimizer.learning_rate = FROZEN
    logs = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    p = predictions(model, x)
    assert logs["mse_loss"] == pytest.approx([mse(y, p)] * 2, rel=1e-5)


def stateless_step(self, state, data):
    """A step on JAX that calls `stateless_compute_loss`, so that the parts are reported."""
    import jax

    trainable, rest, optimizer, metrics_variables = state
    x, y = data

    def loss_and_updates(trainable, rest, metrics_variables):
        y_pred, rest = self.stateless_call(trainable, rest, x, training=True)
        loss, (trainable, rest, metrics_variables) = self.stateless_compute_loss(
            trainable, rest, metrics_variables, x=x, y=y, y_pred=y_pred, training=True
        )
        return loss, (rest, metrics_variables)

    gradient = jax.value_and_grad(loss_and_updates, has_aux=True)
    (loss, (rest, metrics_variables)), gradients = gradient(trainable, rest, metrics_variables)
    trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
    return {"my_loss": loss}, (trainable, rest, optimizer, metrics_variables)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX threads variables")
def test_a_step_on_jax_that_reports_parts():
    own = type("Own", (cl.ComponentMetricsMixin, keras.Sequential), {"train_step": stateless_step})
    model = line(own)
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    x, y = arrays()
    logs = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    p = predictions(model, x)
    assert logs["mse_loss"] == pytest.approx([mse(y, p)] * 2, rel=1e-5)
    assert "my_loss" in logs


def test_a_step_that_never_calls_compute_loss():
    """Its logs are what it returns."""

    def step(self, *args):
        return ({"own": 1.0}, args[0]) if BACKEND == "jax" else {"own": 1.0}

    own = type("Own", (cl.ComponentMetricsMixin, keras.Sequential), {"train_step": step})
    model = line(own)
    model.compile(sgd(FROZEN), loss=mse_and_mae(), run_eagerly=BACKEND != "jax")
    history = model.fit(*arrays(), verbose=0).history
    assert history["own"] == [1.0]
    assert not {"mse_loss", "mae_loss"} & set(history)


def bare_step(given):
    """A step that computes the loss and counts nothing; its logs are `given(loss)`."""

    def eager(self, data):
        x, y = data
        return given(self.compute_loss(x, y, self(x, training=True)))

    def stateless(self, state, data):
        trainable, rest, optimizer, metrics_variables = state
        x, y = data
        y_pred, rest = self.stateless_call(trainable, rest, x, training=True)
        loss, (_, rest, metrics_variables) = self.stateless_compute_loss(
            trainable, rest, metrics_variables, x=x, y=y, y_pred=y_pred, training=True
        )
        return given(loss), (trainable, rest, optimizer, metrics_variables)

    return stateless if BACKEND == "jax" else eager


@pytest.mark.parametrize("given", [lambda loss: {}, lambda loss: {"loss": loss}])
def test_the_loss_of_a_step_that_does_not_count_it(given):
    """The logged loss is the mean of the epoch; Keras's own tracker, not updated, would say 0."""
    step = bare_step(given)
    own = type("Own", (cl.ComponentMetricsMixin, keras.Sequential), {"train_step": step})
    model = line(own)
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    x, y = arrays()
    logs = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    p = predictions(model, x)
    expected = mse(y, p) + 0.5 * np.mean(np.abs(y - p))
    assert logs["mse_loss"] == pytest.approx([mse(y, p)] * 2, rel=1e-5)
    assert logs["loss"] == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX threads variables")
def test_weights_in_a_step_on_jax_that_threads_none():
    """Each change of a weight compiles the step anew; weights that move are an error."""
    x, y = arrays()
    tracked = guided((cl.ComponentMetricsMixin, keras.Sequential), mse_and_mae())
    expected = line(cl.Sequential)
    expected.compile(sgd(0.1), loss=mse_and_mae())
    for model in (tracked, expected):
        for weight in (0.5, 2.0, 0.0, 3.0):
            model.loss.set_weight("mae", weight)
            model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(weights_of(tracked), weights_of(expected), rtol=1e-5)
    moving = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.MagnitudeBalance())
    model = guided((cl.ComponentMetricsMixin, keras.Sequential), moving)
    with raises(ValueError, "weights that move", "self.stateless_compute_loss"):
        model.fit(x, y, verbose=0)


# A trainer that is one layer, as in Keras's own tests.

TRAINER = next(base for base in keras.Model.__mro__ if base.__name__.endswith("Trainer"))


class OneLayer(cl.ComponentMetricsMixin, TRAINER, keras.layers.Dense):
    def __init__(self, units):
        keras.layers.Dense.__init__(self, units, kernel_regularizer=keras.regularizers.L2(0.1))
        TRAINER.__init__(self)

    def call(self, x):
        return keras.layers.Dense.call(self, x)


def test_a_trainer_without_layers():
    x, y = arrays()
    model = OneLayer(1)
    assert not hasattr(model, "layers")
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    history = model.fit(x, y, verbose=0).history
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    total = logs["mse_loss"] + 0.5 * logs["mae_loss"] + logs["regularization_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    assert history["mse_loss"][0] == pytest.approx(logs["mse_loss"], rel=1e-5)
