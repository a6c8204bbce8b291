"""A saved model loads without `custom_objects`, evaluates the same, and goes on training."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.processes import run_python
from tests.training.tiny import arrays, line, mse, sgd, two_heads, weights_of


@keras.saving.register_keras_serializable("tests_saving")
def squared_mean(y_true, y_pred):
    return ops.square(ops.mean(y_true - y_pred, axis=-1))


def unregistered(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("tests_saving")
class Line(cl.ComponentMetricsMixin, keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


def rich_loss():
    """Children whose own Keras config loses arguments, nesting, and a changed weight."""
    inner = cl.CompositeLoss(["mae", keras.losses.LogCosh(reduction="sum")], [0.5, 0.25])
    children = {
        "huber": keras.losses.Huber(2.0),
        "under": cl.losses.UnderestimationPenalty(weight=3.0),
        "inner": inner,
        "mse": "mse",
    }
    loss = cl.CompositeLoss(children, {"huber": 2.0}, name="rich")
    loss.set_weight("mse", 0.125)
    loss.set_weight("inner/mae", 4.0)
    return loss


def mse_and_mae():
    return cl.CompositeLoss(["mse", "mae"])


def functional():
    inputs = keras.Input((3,))
    return cl.Model(inputs, keras.layers.Dense(1, kernel_regularizer="l2")(inputs))


MODELS = {"functional": functional, "sequential": line, "subclassed": Line}


def logs_of(model, x, y, **kwargs):
    return model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True, **kwargs)


# In a process that has only imported the package.


def test_a_fresh_process_loads_evaluates_trains_and_saves_again(tmp_path):
    x, y = arrays()
    expected = {}
    for name, make in [("functional", functional), ("sequential", line)]:
        model = make()
        model.compile("adam", loss=rich_loss(), metrics=["mae"])
        model.fit(x, 5 * y, epochs=2, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = logs_of(model, x, 5 * y)
    heads = two_heads(structure=dict)
    losses = {"a": rich_loss(), "b": "mse"}
    heads.compile("adam", loss=losses, loss_weights={"b": 0.5})
    heads.save(tmp_path / "heads.keras")
    expected["heads"] = logs_of(heads, x, {"a": 5 * y, "b": 5 * y})
    np.savez(tmp_path / "data.npz", x=x, y=5 * y)
    printed = run_python(
        """
import json
import keras
import numpy as np
import combined_losses

data = np.load("data.npz")
x, y = data["x"], data["y"]
found = {}
for name in ("functional", "sequential", "heads"):
    model = keras.saving.load_model(f"{name}.keras")
    target = {"a": y, "b": y} if name == "heads" else y
    kwargs = dict(batch_size=4, verbose=0)
    found[name] = model.evaluate(x, target, return_dict=True, **kwargs)
    model.fit(x, target, **kwargs)
    model.save("again.keras")
    again = keras.saving.load_model("again.keras").evaluate(x, target, **kwargs)
    assert again == model.evaluate(x, target, **kwargs), again
    assert again[0] < found[name]["loss"]
print(json.dumps(found))
""",
        tmp_path,
    )
    found = json.loads(printed.splitlines()[-1])
    for name, logs in expected.items():
        assert found[name] == pytest.approx(logs, rel=1e-6), name


# In this process.


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_training_goes_on_as_if_it_had_not_been_interrupted(make, tmp_path):
    x, y = arrays()
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    model = make()
    loss = cl.CompositeLoss({"mse": "mse", "tail": squared_mean})
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    model.fit(x, y, **options)
    loss.set_weight("tail", 3.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert logs_of(loaded, x, y) == logs_of(model, x, y)
    assert loaded.metrics_names == model.metrics_names
    histories = [m.fit(x, y, **options).history for m in (model, loaded)]
    assert histories[0] == histories[1]
    np.testing.assert_array_equal(weights_of(loaded), weights_of(model))


def test_a_loaded_composite_is_still_changed_by_set_weight(tmp_path):
    x, y = arrays()
    model = line()
    model.compile(sgd(0.0), loss=mse_and_mae())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    before = logs_of(loaded, x, y)
    loaded.loss.set_weight("mae", 3.0)
    logs = logs_of(loaded, x, y)
    assert logs["loss"] == pytest.approx(before["mse_loss"] + 3 * before["mae_loss"], rel=1e-6)
    assert logs["mae_weight"] == 3.0
    assert model.loss.weights["mae"] == 1.0


LOSSY = {
    "Huber": lambda: keras.losses.Huber(5.0),
    "CosineSimilarity": lambda: keras.losses.CosineSimilarity(axis=1),
    "Tversky": lambda: keras.losses.Tversky(alpha=0.2, beta=0.9),
    "BinaryCrossentropy": lambda: keras.losses.BinaryCrossentropy(label_smoothing=0.3),
    "CategoricalCrossentropy": lambda: keras.losses.CategoricalCrossentropy(axis=1),
    "reduction": lambda: keras.losses.MeanSquaredError(reduction="sum"),
    "AsymmetricError": lambda: cl.losses.AsymmetricError(5.0, 0.5, 1.5),
    "BoundaryDisagreement": lambda: cl.losses.BoundaryDisagreement(axes=(2,)),
}


@pytest.mark.parametrize("child", LOSSY)
def test_children_keep_every_argument(child, tmp_path):
    plain = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(3, "softmax")])
    plain.compile("sgd", loss=LOSSY[child]())
    model = cl.track(plain)
    model.compile("sgd", loss=cl.CompositeLoss({"child": LOSSY[child]()}))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 6, 4, 3)).astype("float32")
    logs = logs_of(loaded, x, y)
    # The child alone, in a model of Keras and never saved, is the oracle.
    assert logs["child_loss"] == pytest.approx(logs_of(plain, x, y)["loss"], rel=1e-6)


def test_load_without_compiling(tmp_path):
    model, (x, _) = line(), arrays()
    model.compile("sgd", loss=rich_loss())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_file_of_weights_restores_changed_weights_of_the_loss(tmp_path):
    x, y = arrays()
    model, other = line(seed=1), line(seed=2)
    model.compile(sgd(0.0), loss=mse_and_mae())
    model.loss.set_weight("mae", 7.0)
    model.save_weights(tmp_path / "model.weights.h5")
    other.compile(sgd(0.0), loss=mse_and_mae())
    other.fit(x, y, verbose=0)
    other.load_weights(tmp_path / "model.weights.h5")
    assert other.loss.weights == {"mse": 1.0, "mae": 7.0}
    assert logs_of(other, x, y)["loss"] == logs_of(model, x, y)["loss"]


def test_weights_pass_between_plain_and_tracked_models(tmp_path):
    plain, tracked = line(keras.Sequential, seed=1), line(seed=2)
    plain.compile("sgd", loss="mse")
    tracked.compile("sgd", loss=mse_and_mae())
    tracked.loss.set_weight("mae", 7.0)
    plain.save_weights(tmp_path / "plain.weights.h5")
    tracked.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(weights_of(tracked), weights_of(plain))
    assert tracked.loss.weights["mae"] == 7.0
    other = line(keras.Sequential, seed=3)
    tracked.save_weights(tmp_path / "tracked.weights.h5")
    other.load_weights(tmp_path / "tracked.weights.h5")
    np.testing.assert_array_equal(weights_of(other), weights_of(plain))


# What cannot be saved.


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_a_lambda_trains_but_saving_it_is_an_error_that_names_it(tmp_path):
    x, y = arrays()
    model = line()
    tail = lambda y_true, y_pred: ops.mean(ops.abs(y_true - y_pred), axis=-1)  # noqa: E731
    model.compile(sgd(), loss=cl.CompositeLoss({"mse": "mse", "tail": tail}))
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    with pytest.raises(ValueError, match=r"'tail' is a lambda(.|\n)*register_keras_serializable"):
        model.save(tmp_path / "model.keras")


def test_an_unregistered_function_says_at_loading_which_component_it_was(tmp_path):
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"tail": unregistered}))
    try:
        model.save(tmp_path / "model.keras")
    except ValueError as error:
        assert "'tail'" in str(error)
        return
    with pytest.raises((TypeError, ValueError)) as info:
        keras.saving.load_model(tmp_path / "model.keras")
    told = str(info.value) + "".join(getattr(info.value, "__notes__", []))
    assert "'tail'" in told and "register_keras_serializable" in told
    objects = {"unregistered": unregistered}
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)
    assert loaded.loss.names == ("tail",)


# Interruption and compiling again.


class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.model.loss.set_weight("mae", 0.25)
        if epoch == 2:
            raise KeyboardInterrupt


class Anneal(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.model.loss.set_weight("mae", 0.25)


def test_backup_and_restore_resumes_with_the_changed_weight(tmp_path):
    x, y = arrays()
    options = {"batch_size": 10, "epochs": 5, "shuffle": False, "verbose": 0}

    def fresh():
        model = line()
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss=mse_and_mae())
        return model

    uninterrupted = fresh()
    expected = uninterrupted.fit(x, y, callbacks=[Anneal()], **options).history
    with pytest.raises(KeyboardInterrupt):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fresh().fit(x, y, callbacks=[backup, Interrupt()], **options)
    resumed = fresh()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = resumed.fit(x, y, callbacks=[backup], **options).history
    assert len(history["loss"]) < 5
    assert history["loss"][-1] == pytest.approx(expected["loss"][-1], rel=1e-6)
    np.testing.assert_allclose(weights_of(resumed), weights_of(uninterrupted), rtol=1e-5)


def test_compiling_again_changes_what_is_logged_and_trained():
    x, y = arrays()
    model = line()
    keys = []
    for loss in ("mse", mse_and_mae(), cl.CompositeLoss(["huber"]), "mae", rich_loss()):
        model.compile(sgd(0.01), loss=loss)
        logs = model.fit(x, y, verbose=0).history
        keys.append(sorted(logs))
    assert keys[:2] == [["loss"], ["loss", "mae_loss", "mse_loss"]]
    assert keys[2:4] == [["huber_loss", "loss"], ["loss"]]
    assert "mae_loss" not in keys[4] and "inner/mae_loss" in keys[4]


def test_a_model_compiled_again_saves_the_last_loss(tmp_path):
    x, y = arrays()
    model = line()
    for loss in (mse_and_mae(), "mse"):
        model.compile(sgd(0.0), loss=loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    logs = logs_of(loaded, x, y)
    assert logs == {"loss": pytest.approx(mse(y, model.predict(x, verbose=0)), rel=1e-6)}
