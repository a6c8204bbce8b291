"""`set_weight` during a running `fit` acts on the very next batch, on every backend.

NumPy trains beside the model, with the weights that each batch should see.
"""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import arrays, line, mse, sgd, two_heads, weights_of

RATE, MOMENTUM, BATCH = 0.1, 0.9, 4


def numpy_training(model, x, y, weights):
    """Trains a line by SGD in NumPy; in batch `i` `mse` and `mae` have the weights `weights[i]`.

    Returns the final weights as one vector and the mean of the loss over the epoch.
    """
    state = weights_of(model).astype("float64")
    velocity, losses, starts = np.zeros_like(state), 0.0, range(0, len(x), BATCH)
    for start, (of_mse, of_mae) in zip(starts, weights, strict=True):
        inputs, target = x[start : start + BATCH], y[start : start + BATCH]
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        error = (inputs @ state)[:, None] - target
        losses += np.sum(of_mse * error**2 + of_mae * np.abs(error))
        gradient = inputs.T @ (of_mse * 2 * error + of_mae * np.sign(error))[:, 0] / len(inputs)
        velocity = MOMENTUM * velocity - RATE * gradient
        state = state + velocity
    return state, losses / len(x)


def compiled(loss, **options):
    model = line()
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss=loss, **options)
    return model


def mse_and_mae(**kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, **kwargs)


def fit(model, *callbacks, **kwargs):
    x, y = arrays()
    kwargs = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=list(callbacks), **kwargs).history


# The values of `mae` that the three batches of an epoch see.
SCHEDULE = (1.0, 20.0, 0.0)


class Scheduler(keras.callbacks.Callback):
    """Sets the weight for the next batch, found through the model or kept from outside."""

    def __init__(self, loss=None, before=False):
        super().__init__()
        self.loss = loss
        self.before = before

    def set(self, value):
        loss = self.model.loss if self.loss is None else self.loss
        loss.set_weight("mae", value)

    def on_train_batch_begin(self, batch, logs=None):
        if self.before:
            self.set(SCHEDULE[batch])

    def on_train_batch_end(self, batch, logs=None):
        if not self.before and batch < 2:
            self.set(SCHEDULE[batch + 1])


def by_a_closure(loss):
    """A callback that never touches the model."""

    def set_next(batch, logs):
        if batch < 2:
            loss.set_weight("mae", SCHEDULE[batch + 1])

    return keras.callbacks.LambdaCallback(on_train_batch_end=set_next)


CALLBACKS = {
    "by the model": lambda loss: Scheduler(),
    "by the model, before the batch": lambda loss: Scheduler(before=True),
    "by a reference": Scheduler,
    "by a closure": by_a_closure,
}


@pytest.mark.parametrize("way", CALLBACKS)
def test_a_weight_set_between_batches_acts_on_the_next_batch(way):
    loss = mse_and_mae()
    model = compiled(loss)
    state, mean = numpy_training(model, *arrays(), [(1.0, value) for value in SCHEDULE])
    history = fit(model, CALLBACKS[way](loss))
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)
    assert history["loss"] == pytest.approx([mean], rel=1e-6)
    assert history["mae_weight"] == [SCHEDULE[-1]]
    assert "mse_weight" not in history


# On torch `jit_compile` needs a C++ compiler on the machine.
MODES = ["run_eagerly"] if keras.backend.backend() == "torch" else ["run_eagerly", "jit_compile"]


@pytest.mark.parametrize("mode", MODES)
def test_also_in_the_other_modes(mode):
    loss = mse_and_mae()
    model = compiled(loss, **{mode: True})
    state, _ = numpy_training(model, *arrays(), [(1.0, value) for value in SCHEDULE])
    fit(model, by_a_closure(loss))
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)


def test_a_weight_set_between_epochs_acts_on_the_next_epoch():
    loss = mse_and_mae()
    model = compiled(loss)
    # A rate of 0: only the weight changes from one epoch to the next.
    model.optimizer.learning_rate = 0.0
    set_it = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: loss.set_weight("mae", 3.0 + epoch)
    )
    history = fit(model, set_it, epochs=3, validation_data=arrays())
    for epoch, weight in enumerate((1.0, 3.0, 4.0)):
        for prefix in ("", "val_"):
            parts = [history[f"{prefix}{name}_loss"][epoch] for name in ("mse", "mae")]
            total = parts[0] + weight * parts[1]
            assert history[f"{prefix}loss"][epoch] == pytest.approx(total, rel=1e-6)
    # The first change came after the first epoch and its validation, which are filled in with 1.
    assert history["mae_weight"] == [1.0, 3.0, 4.0]
    assert history["val_mae_weight"] == [1.0, 3.0, 4.0]


def test_a_weight_set_between_single_batches_acts_on_the_next():
    model = compiled(mse_and_mae())
    x, y = arrays()
    state, _ = numpy_training(model, x, y, [(1.0, value) for value in SCHEDULE])
    for index, weight in enumerate(SCHEDULE):
        rows = slice(BATCH * index, BATCH * (index + 1))
        model.loss.set_weight("mae", weight)
        model.reset_metrics()  # `train_on_batch` does it since Keras 3.13
        logs = model.train_on_batch(x[rows], y[rows], return_dict=True)
        assert logs["loss"] == pytest.approx(logs["mse_loss"] + weight * logs["mae_loss"], rel=1e-6)
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)


def test_training_goes_on_with_a_new_weight_after_an_interruption():
    """In a notebook: stop, change a weight, `fit` again; the momentum is kept."""
    loss, (x, y) = mse_and_mae(), arrays()
    model = compiled(loss)
    weights = [(1.0, 1.0), *[(1.0, 3.0)] * 3]
    state, _ = numpy_training(model, np.r_[x[:BATCH], x], np.r_[y[:BATCH], y], weights)

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
    loss.set_weight("mae", 3.0)
    fit(model)
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)


def test_a_weight_set_between_two_fits():
    model = compiled(mse_and_mae())
    fit(model)
    model.loss.set_weight("mae", 5.0)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss=model.loss)
    state, mean = numpy_training(model, *arrays(), [(1.0, 5.0)] * 3)
    assert fit(model)["loss"] == pytest.approx([mean], rel=1e-6)
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)


def test_the_weight_of_a_nested_component():
    inner = cl.CompositeLoss({"mae": "mae"})
    loss = cl.CompositeLoss({"mse": "mse", "inner": inner}, {"inner": 2.0})
    model = compiled(loss)
    state, _ = numpy_training(model, *arrays(), [(1.0, 2.0), (1.0, 1.0), (1.0, 1.0)])
    set_it = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: loss.set_weight("inner/mae", 0.5)
    )
    history = fit(model, set_it)
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)
    assert history["inner/mae_weight"] == [0.5]


def test_the_weight_of_a_composite_on_several_outputs():
    model, (x, y) = two_heads(), arrays()
    loss = mse_and_mae()
    model.compile(sgd(0.0), loss=loss)
    set_it = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: loss.set_weight("mae", 3.0)
    )
    history = model.fit(x, [y, y], epochs=2, callbacks=[set_it], verbose=0).history
    parts = {key: values[-1] for key, values in history.items()}
    of_mse, of_mae = (parts[f"a_{c}_loss"] + parts[f"b_{c}_loss"] for c in ("mse", "mae"))
    assert parts["loss"] == pytest.approx(of_mse + 3 * of_mae, rel=1e-6)


def test_two_models_that_share_a_composite_see_the_change():
    loss, (x, y) = mse_and_mae(), arrays()
    models = [compiled(loss) for _ in range(2)]
    totals = []
    for model in models:
        model.evaluate(x, y, verbose=0)
    loss.set_weight("mae", 3.0)
    for model in models:
        logs = model.evaluate(x, y, verbose=0, return_dict=True)
        totals.append(logs["loss"])
        assert logs["loss"] == pytest.approx(logs["mse_loss"] + 3 * logs["mae_loss"], rel=1e-6)
    assert totals[0] == totals[1]


# A component that is not finite.


def fails_above_three(y_true, y_pred):
    """`mae`, whose value and gradient are NaN where a target is above 3."""
    return ops.mean(ops.abs(y_pred - y_true) + 0 * ops.sqrt((3.0 - y_true) * y_pred**2), axis=-1)


def test_a_component_that_turns_nan_can_be_switched_off_mid_fit_and_on_again():
    loss = cl.CompositeLoss({"mse": "mse", "mae": fails_above_three})
    model = compiled(loss)
    x, y = arrays()
    y[BATCH : 2 * BATCH] = 5.0  # the second batch alone
    state, _ = numpy_training(model, x, y, [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
    switch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: loss.set_weight("mae", float(batch != 1))
    )
    history = model.fit(
        x, y, batch_size=BATCH, shuffle=False, callbacks=[switch], verbose=0
    ).history
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)
    assert np.isfinite(history["loss"]).all()
    assert np.isnan(history["mae_loss"]).all()  # it is still watched


def test_a_component_of_weight_0_from_the_start_is_only_watched():
    model = compiled(cl.CompositeLoss({"mse": "mse", "mae": fails_above_three}, {"mae": 0}))
    x, y = arrays()
    y += 5.0
    state, _ = numpy_training(model, x, y, [(1.0, 0.0)] * 3)
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    np.testing.assert_allclose(weights_of(model), state, rtol=1e-5)
    assert history["loss"] == pytest.approx(history["mse_loss"], rel=1e-6)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(mse(y, model.predict(x, verbose=0)), rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing here")
def test_changing_a_weight_does_not_compile_the_step_again():
    """A child is called while a step is traced; only the first weight of 0 needs another step."""
    traced = []

    def child(y_true, y_pred):
        traced.append(1)
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    loss = cl.CompositeLoss({"mse": "mse", "mae": child})
    model, (x, y) = compiled(loss), arrays()
    counts = []
    for weight in (1.0, 2.0, 3.0, 0.0, 4.0, 0.0):
        loss.set_weight("mae", weight)
        model.fit(x, y, verbose=0)
        counts.append(len(traced))
    assert counts[0] == counts[1] == counts[2]
    assert counts[3] == counts[4] == counts[5]


# The first change compiles the steps anew, and no other does.


def test_only_the_first_change_compiles_the_steps_anew():
    loss = cl.CompositeLoss(["mse", "mae"])
    model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    x, y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    steps = []
    for weight in (None, 0.5, 0.25, 2.0):
        if weight is not None:
            loss.set_weight("mae", weight)
        model.reset_metrics()  # Keras 3.12 does not do it by itself
        logs = model.train_on_batch(x, y, return_dict=True)
        assert logs["loss"] == pytest.approx(
            logs["mse_loss"] + (weight or 1.0) * logs["mae_loss"], rel=1e-6
        )
        steps.append(model.train_function)
    assert steps[0] is not steps[1]
    assert steps[1] is steps[2] is steps[3]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
def test_a_step_that_the_user_has_compiled_sees_every_change():
    import tensorflow as tf

    class Compiled(cl.Sequential):
        @tf.function
        def train_step(self, data):
            return super().train_step(data)

    loss = cl.CompositeLoss(["mse", "mae"])
    model = Compiled([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    x, y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    for weight in (None, 0.5, 2.0):
        if weight is not None:
            loss.set_weight("mae", weight)
        model.reset_metrics()  # Keras 3.12 does not do it by itself
        logs = model.train_on_batch(x, y, return_dict=True)
        total = logs["mse_loss"] + (weight or 1.0) * logs["mae_loss"]
        assert logs["loss"] == pytest.approx(total, rel=1e-6)


def test_a_change_after_loading_a_file_of_changed_weights_acts(tmp_path):
    """The file holds the same numbers, so the compiled step is right until the next change."""
    x, y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    models = []
    for _ in range(2):
        model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), loss=cl.CompositeLoss(["mse", "mae"]))
        model.train_on_batch(x, y)
        models.append(model)
    changed, constant = models
    changed.loss.set_weight("mae", 1.0)
    changed.save_weights(tmp_path / "changed.weights.h5")
    constant.load_weights(tmp_path / "changed.weights.h5")
    constant.loss.set_weight("mae", 3.0)
    constant.reset_metrics()  # Keras 3.12 does not do it by itself
    logs = constant.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["mse_loss"] + 3.0 * logs["mae_loss"], rel=1e-6)
