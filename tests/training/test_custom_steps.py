"""Steps, losses and loops that the user writes."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import FROZEN, arrays, line, mae, mse, predictions, sgd, weights_of

BACKEND = keras.backend.backend()


def mse_and_mae(**kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": 0.5}, **kwargs)


# compute_loss.


class MoreLoss(cl.Model):
    """A loss that no component gives."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + 0.1 * ops.sum(ops.square(self.layers[-1].kernel))


class TwiceTheLoss(cl.Model):
    """Without the argument `training`, which Keras added late."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight)


@pytest.mark.parametrize("cls", [MoreLoss, TwiceTheLoss])
def test_the_logged_loss_is_what_compute_loss_returns(cls):
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    model = cls(inputs=inputs, outputs=dense(inputs))
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    x, y = arrays()
    p = predictions(model, x)
    total = mse(y, p) + 0.5 * mae(y, p)
    expected = {"loss": total + 0.1 * 3 if cls is MoreLoss else 2 * total}
    expected |= {"mse_loss": mse(y, p), "mae_loss": mae(y, p)}
    history = model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y)).history
    assert history == {
        f"{prefix}{key}": [pytest.approx(value, rel=1e-6)]
        for prefix in ("", "val_")
        for key, value in expected.items()
    }


def test_a_term_of_compute_loss_trains():
    """With targets that are met only the term moves the kernel: w <- w - lr * 2 * 0.1 * w."""
    inputs = keras.Input((3,))
    model = MoreLoss(inputs=inputs, outputs=keras.layers.Dense(1)(inputs))
    model.compile(sgd(0.5), loss=cl.CompositeLoss(["mse"]))
    x, _ = arrays()
    before = weights_of(model)
    model.fit(x, model.predict(x, verbose=0), batch_size=10, verbose=0)
    np.testing.assert_allclose(weights_of(model)[:3], 0.9 * before[:3], rtol=1e-4)


# train_step and test_step.


class NoisyStep(cl.ComponentMetricsMixin, keras.Model):
    """Changes the batch, then lets Keras train: what works on every backend."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, *args):
        *state, (x, y, *rest) = args
        return super().train_step(*state, (2 * x, y, *rest))

    def test_step(self, *args):
        *state, (x, y, *rest) = args
        return super().test_step(*state, (3 * x, y, *rest))


def test_a_step_that_changes_the_batch_reports_what_it_has_seen():
    model = NoisyStep()
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    x, y = arrays()
    history = model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y)).history
    for prefix, factor in (("", 2), ("val_", 3)):
        p = factor * x.astype("float64").sum(axis=1, keepdims=True)
        total = mse(y, p) + 0.5 * mae(y, p)
        expected = {"loss": total, "mse_loss": mse(y, p), "mae_loss": mae(y, p)}
        logs = {key: history[prefix + key] for key in expected}
        assert logs == {key: [pytest.approx(value, rel=1e-6)] for key, value in expected.items()}


def tensorflow_step(self, data):
    import tensorflow as tf

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with tf.GradientTape() as tape:
        y_pred = self(x, training=True)
        loss = self.compute_loss(x, y, y_pred, sample_weight)
    gradients = tape.gradient(loss, self.trainable_variables)
    self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=ops.shape(x)[0])
    return self.get_metrics_result()


def torch_step(self, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    self.zero_grad()
    loss = self.compute_loss(x, y, self(x, training=True), sample_weight)
    loss.backward()
    gradients = [v.value.grad for v in self.trainable_weights]
    import torch

    with torch.no_grad():
        self.optimizer.apply(gradients, self.trainable_weights)
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=len(x))
    return self.get_metrics_result()


def jax_step(self, state, data):
    import jax

    trainable, rest, optimizer, metrics = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
    (_, (loss, _, rest, metrics)), gradients = gradient(
        trainable, rest, metrics, x, y, sample_weight, training=True, optimizer_variables=optimizer
    )
    trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
    with keras.StatelessScope(
        state_mapping=list(zip(self.metrics_variables, metrics, strict=True))
    ) as scope:
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=len(x))
        logs = self.get_metrics_result()
    metrics = [scope.get_current_value(v) for v in self.metrics_variables]
    return logs, (trainable, rest, optimizer, metrics)


def test_a_whole_training_step_of_the_user_trains_and_reports():
    """As in Keras's guides: own gradients, `compute_loss`, `get_metrics_result`."""
    step = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}[BACKEND]
    own = type("Own", (cl.ComponentMetricsMixin, keras.Sequential), {"train_step": step})
    x, y = arrays()
    seen = []
    for cls in (own, cl.Sequential):
        model = line(cls)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=mse_and_mae())
        history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
        seen.append((history, weights_of(model)))
    (history, weights), (expected_history, expected_weights) = seen
    assert set(history) == {"loss", "mse_loss", "mae_loss"}
    for key, values in expected_history.items():
        assert history[key] == pytest.approx(values, rel=1e-5), key
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-5)


# Loops without Keras's.


def test_components_serve_a_loop_without_fit():
    """Gradient descent on a vector of predictions, by the derivative of the parts themselves."""
    loss = mse_and_mae(reduction="sum")
    y = np.array([[1.0], [2.0], [-3.0]], "float32")
    p = np.zeros_like(y)
    for _ in range(3):
        parts = loss.components(y, p)
        assert list(parts) == ["mse", "mae"]
        of_mse, of_mae = (float(value) for value in parts.values())
        assert of_mse == pytest.approx(np.sum((y - p) ** 2), rel=1e-6)
        assert of_mae == pytest.approx(np.sum(np.abs(y - p)), rel=1e-6)
        assert float(loss(y, p)) == pytest.approx(of_mse + 0.5 * of_mae, rel=1e-6)
        p = p - 0.1 * (2 * (p - y) + 0.5 * np.sign(p - y))
    assert float(loss(y, p)) < float(loss(y, 0 * p))


def test_components_have_a_gradient_of_their_own():
    """Each by itself, as multi-task methods need it, with the backend's own tools."""
    loss = mse_and_mae()
    y = np.array([[1.0], [2.0], [-3.0]], "float32")
    p = np.zeros_like(y)
    expected = {"mse": 2 * (p - y) / 3, "mae": np.sign(p - y) / 3}
    for name, gradient in gradients_of(loss, y, p).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-6)


def gradients_of(loss, y, p):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        p = tf.constant(p)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(p)
            parts = loss.components(y, p)
        return {name: tape.gradient(value, p).numpy() for name, value in parts.items()}
    if BACKEND == "jax":
        import jax

        return {
            name: jax.grad(lambda p, name=name: loss.components(y, p)[name])(p)
            for name in loss.names
        }
    import torch

    p = torch.tensor(p, requires_grad=True)
    parts = loss.components(torch.tensor(y), p)
    return {
        name: torch.autograd.grad(value, p, retain_graph=True)[0].numpy()
        for name, value in parts.items()
    }


class InAnotherOrder(cl.Model):
    """Steps that return their logs in another order than that of `metrics_names`."""

    def train_step(self, *args):
        return in_reverse(super().train_step(*args))

    def test_step(self, *args):
        return in_reverse(super().test_step(*args))


def in_reverse(result):
    if BACKEND == "jax":  # logs and state
        return dict(reversed(result[0].items())), *result[1:]
    return dict(reversed(result.items()))


def test_lists_of_results_have_the_order_of_metrics_names():
    inputs = keras.Input((3,))
    model = InAnotherOrder(inputs, keras.layers.Dense(1)(inputs))
    model.compile(sgd(FROZEN), loss=mse_and_mae(), metrics=["mae", "mse"])
    x, y = arrays()
    assert list(model.train_on_batch(x, y, return_dict=True)) == model.metrics_names
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "mse_loss", "mae_loss", "mae", "mse"] == model.metrics_names
    model.loss.set_weight("mae", 0.25)
    assert list(model.test_on_batch(x, y, return_dict=True)) == model.metrics_names
    assert "mae_weight" in model.metrics_names
