"""`callbacks.TerminateOnComponentNaN`: which component, where, and on what."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.training.for_callbacks import last_batch
from tests.messages import raises
from tests.training.tiny import arrays, line, two_heads


def logarithm(y_true, y_pred):
    """NaN for negative targets."""
    return ops.log(y_true[:, 0]) + ops.square(y_pred[:, 0])


def root(y_true, y_pred):
    """A finite value, with a gradient that is not for negative targets."""
    return ops.sqrt(ops.square(ops.where(y_true < 0, 0.0, 1.0) * y_pred))[:, 0]


def data(bad):
    """20 samples, of which one has a negative target."""
    x, y = arrays(20)
    y = abs(y) + 0.1
    y[bad] = -1.0
    return x, y


def fit(loss, callback, x, y, **kwargs):
    model = kwargs.pop("model", None) or line()
    model.compile("sgd", loss=loss, **kwargs.pop("compile", {}))
    how = {"batch_size": 5, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, callbacks=[callback], **how)


def test_names_component_step_and_batch(capsys):
    stop = cl.callbacks.TerminateOnComponentNaN()
    x, y = data(bad=12)
    history = fit(cl.CompositeLoss({"mse": "mse", "log": logarithm}), stop, x, y, epochs=3)
    assert (stop.components, stop.epoch, stop.batch, stop.step) == (("log",), 0, 2, 3)
    assert len(history.history["loss"]) == 1
    assert capsys.readouterr().out == (
        "Component 'log' is nan in step 3 (epoch 1, batch 2); training stops.\n"
    )


def test_leaves_a_healthy_training_alone(capsys):
    stop = cl.callbacks.TerminateOnComponentNaN()
    x, y = arrays(20)
    history = fit(cl.CompositeLoss(["mse", "mae"]), stop, x, y, epochs=2)
    assert len(history.history["loss"]) == 2
    assert (stop.components, stop.step) == ((), 8)
    assert capsys.readouterr().out == ""


def test_counts_steps_over_epochs_and_starts_over():
    def batches(bad):
        for step in range(1, 100):
            x, y = arrays(5)
            yield x, (-1 if step == bad else 1) * (abs(y) + 0.1)

    stop = cl.callbacks.TerminateOnComponentNaN()
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "log": logarithm}))
    how = {"steps_per_epoch": 4, "epochs": 3, "verbose": 0, "shuffle": False}
    model.fit(batches(bad=7), callbacks=[stop], **how)
    assert (stop.components, stop.epoch, stop.batch, stop.step) == (("log",), 1, 2, 7)
    fresh = line()
    fresh.compile("sgd", loss=cl.CompositeLoss(["mse"]))
    fresh.fit(batches(bad=7), callbacks=[stop], **how)
    assert (stop.components, stop.epoch, stop.step) == ((), 2, 12)


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_infinity_and_several_components():
    x, y = data(bad=0)
    losses = {"mse": "mse", "log": logarithm, "far": lambda t, p: ops.exp(500 * abs(t))[:, 0]}
    stop = cl.callbacks.TerminateOnComponentNaN(raise_error=True)
    with raises(RuntimeError, "Components 'log' and 'far' are nan or inf in step 1"):
        fit(cl.CompositeLoss(losses), stop, x, y)
    assert stop.components == ("log", "far")


def test_parts_of_nested_composites_and_of_outputs(capsys):
    x, y = data(bad=3)
    inner = cl.CompositeLoss({"log": logarithm, "mae": "mae"})
    stop = cl.callbacks.TerminateOnComponentNaN()
    loss = {"a": cl.CompositeLoss({"mse": "mse", "inner": inner}), "b": "mse"}
    fit(loss, stop, x, {"a": y, "b": abs(y)}, model=two_heads())
    assert stop.components == ("a_inner", "a_inner/log")


def test_a_total_that_no_component_explains(capsys):
    x, y = arrays(20)
    stop = cl.callbacks.TerminateOnComponentNaN()
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(1, activity_regularizer=endless)
    model = cl.Model(inputs, dense(inputs))
    fit(cl.CompositeLoss(["mse", "mae"]), stop, x, y, model=model)
    assert stop.components == ("loss",)
    said = capsys.readouterr().out
    assert said.startswith("The loss is not finite and all components are (a weight or penalty is")


def endless(outputs):
    return float("inf") * ops.sum(ops.ones_like(outputs))


# The batch.


def test_saves_the_batch(tmp_path, capsys):
    path = tmp_path / "new" / "batch.npz"
    x, y = data(bad=12)
    weights = np.linspace(0.1, 1.0, 20).astype("float32")
    stop = cl.callbacks.TerminateOnComponentNaN(path)
    loss = cl.CompositeLoss({"mse": "mse", "log": logarithm})
    fit(loss, stop, x, y, sample_weight=weights)
    saved = dict(np.load(path))
    assert list(saved) == ["sample_weight", "x", "y"]
    for name, whole in (("x", x), ("y", y), ("sample_weight", weights)):
        np.testing.assert_array_equal(saved[name], whole[10:15])
    assert f"The batch of this step is in {path}." in capsys.readouterr().out


def fails_halfway(path, **arrays):
    with open(path, "wb") as file:
        file.write(b"a part")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("raise_error", [False, True])
def test_a_file_that_cannot_be_written_does_not_hide_the_finding(
    tmp_path, capsys, monkeypatch, raise_error
):
    """What was there before stays as it was, and nothing unfinished is left."""
    path = tmp_path / "batch.npz"
    path.write_bytes(b"of another run")
    monkeypatch.setattr(np, "savez", fails_halfway)
    stop = cl.callbacks.TerminateOnComponentNaN(path, raise_error=raise_error)
    said = f"could not be written to {path}: No space left on device."
    loss = cl.CompositeLoss({"mse": "mse", "log": logarithm})
    if raise_error:
        with raises(RuntimeError, "Component 'log' is nan in step 3", said):
            fit(loss, stop, *data(bad=12))
    else:
        assert fit(loss, stop, *data(bad=12)).epoch == [0]
        found = "Component 'log' is nan in step 3 (epoch 1, batch 2); training stops."
        assert capsys.readouterr().out == f"{found} The batch of this step {said}\n"
    assert stop.components == ("log",)
    assert path.read_bytes() == b"of another run"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "file" / "batch.npz")
    fit(cl.CompositeLoss({"mse": "mse", "log": logarithm}), stop, *data(bad=12))
    out = capsys.readouterr().out
    assert "Component 'log' is nan" in out
    assert "could not be written" in out


def test_saves_the_batch_before_where_its_gradient_was_to_blame(tmp_path, capsys):
    x, y = data(bad=7)
    stop = cl.callbacks.TerminateOnComponentNaN(str(tmp_path / "batch.npz"))
    fit(cl.CompositeLoss({"mse": "mse", "root": root}), stop, x, y)
    assert (stop.components, stop.step) == (("mse", "root"), 3)
    said = capsys.readouterr().out
    assert "Components 'mse' and 'root' are nan in step 3" in said
    assert "the network is to blame, by the gradient of the step before" in said
    assert "The batch of the step before is in" in said
    np.testing.assert_array_equal(np.load(tmp_path / "batch.npz")["y"], y[5:10])


@pytest.mark.parametrize("what", ["x", "y"])
def test_data_that_are_not_finite_are_to_blame_themselves(tmp_path, capsys, what):
    """Such data make all components NaN at once, as a network that is not finite does too."""
    x, y = arrays(20)
    (x if what == "x" else y)[7] = np.nan
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    fit(cl.CompositeLoss(["mse", "mae"]), stop, x, y)
    assert stop.step == 2
    assert (
        "in step 2 (epoch 1, batch 1), whose data are not finite; training"
        in capsys.readouterr().out
    )
    np.testing.assert_array_equal(np.load(tmp_path / "batch.npz")[what], (x, y)[what == "y"][5:10])


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
def test_a_component_of_weight_0_does_not_stop_it(capsys):
    x, y = data(bad=7)
    losses = {"mse": "mse", "log": logarithm, "far": lambda t, p: ops.exp(500 * abs(t))[:, 0]}
    stop = cl.callbacks.TerminateOnComponentNaN()
    fit(cl.CompositeLoss(losses, weights={"log": 0.0, "far": 0.0}), stop, x, y)
    assert (stop.components, stop.step) == ((), 4)
    y[17] = 1e30
    fit(cl.CompositeLoss(losses, weights={"log": 0.0}), stop, x, y)
    assert "far" in stop.components


def test_the_saved_batch_is_for_diagnose(tmp_path):
    """Inputs and outputs may have names or none."""
    x, y = data(bad=0)
    loss = {"a": cl.CompositeLoss({"mse": "mse", "log": logarithm}), "b": "mse"}
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    fit(loss, stop, {"left": x, "right": x}, {"a": y, "b": y}, model=two_sides())
    from combined_losses.diagnosis.command import read_arrays

    saved = read_arrays(tmp_path / "batch.npz")
    np.testing.assert_array_equal(saved[0]["right"], x[:5])
    np.testing.assert_array_equal(saved[1]["b"], y[:5])
    assert saved[2] is None
    fresh = two_sides()
    fresh.compile("sgd", loss=loss)
    assert cl.diagnose(fresh, *saved).flags == {"a_log": ("not finite",)}


def two_sides():
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    both = keras.layers.Concatenate()(list(inputs.values()))
    return cl.Model(inputs, {name: keras.layers.Dense(1, name=name)(both) for name in "ab"})


def test_keeping_batches_changes_no_number(tmp_path):
    x, y = arrays(23)
    losses = []
    for path in (None, tmp_path / "batch.npz"):
        loss = cl.CompositeLoss(["mse", "mae"])
        stop = cl.callbacks.TerminateOnComponentNaN(path)
        losses.append(fit(loss, stop, x, y, epochs=3, validation_data=(x, y)).history)
    assert losses[0].keys() == losses[1].keys()
    for key in losses[0]:
        np.testing.assert_allclose(losses[0][key], losses[1][key], rtol=1e-6)
    assert not (tmp_path / "batch.npz").exists()


def test_an_interrupted_training_keeps_no_batch(tmp_path):
    x, y = arrays(20)
    model = line()
    loss = cl.CompositeLoss(["mse", "mae"])

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    boom = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    model.compile("sgd", loss=loss)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, verbose=0, callbacks=[stop, boom])
    with raises(ValueError, "not available"):
        last_batch(model)
    model.fit(x, y, verbose=0)
    with raises(ValueError, "not available"):
        last_batch(model)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="nothing is compiled there")
def test_steps_that_keep_batches_are_compiled_once(tmp_path):
    traced = []

    def noted(y_true, y_pred):
        traced.append(y_pred.shape)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    x, y = arrays(20)
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"noted": noted, "mae": "mae"}))
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    how = {"batch_size": 5, "verbose": 0}
    for callbacks in ([], [stop]):
        model.fit(x, y, callbacks=callbacks, **how)
    before = len(traced)
    for callbacks in ([], [stop], [], [stop]):
        model.fit(x, y, callbacks=callbacks, **how)
    assert len(traced) == before
    model.loss.set_weight("mae", 0.0)
    for callbacks in ([stop], []):
        logs = model.fit(x, y, callbacks=callbacks, **how).history
        assert logs["mae_weight"] == [0.0]
        assert logs["loss"] == pytest.approx(logs["noted_loss"], rel=1e-6)


class Own(cl.Sequential):
    def train_step(self, *args):
        found = super().train_step(*args)
        logs, *state = found if isinstance(found, tuple) else (found,)
        logs = {"loss": logs["loss"]}
        return (logs, *state) if state else logs


def test_a_train_step_that_hides_the_batch(tmp_path):
    x, y = arrays(20)
    for callback in (
        cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz"),
        cl.callbacks.GradientConflict(every=1),
    ):
        with raises(ValueError, "all that `super().train_step(...)` returns"):
            fit(cl.CompositeLoss(["mse"]), callback, x, y, model=line(Own))


# Errors.


def test_errors():
    with raises(ValueError, "None or a file '.npz'", "Received: 'batch.csv'"):
        cl.callbacks.TerminateOnComponentNaN("batch.csv")
    x, y = arrays(8)
    stop = cl.callbacks.TerminateOnComponentNaN()
    with raises(ValueError, "cl.track(model)", "Received: <Sequential"):
        fit(cl.CompositeLoss(["mse"]), stop, x, y, model=line(keras.Sequential))
    with raises(ValueError, "compiled with a CompositeLoss"):
        fit("mse", stop, x, y)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras on torch takes steps one by one"
)
def test_several_steps_in_one_call(tmp_path, capsys):
    x, y = data(bad=12)
    loss = cl.CompositeLoss({"mse": "mse", "log": logarithm})
    how = {"compile": {"steps_per_execution": 2}}
    stop = cl.callbacks.TerminateOnComponentNaN(tmp_path / "batch.npz")
    with raises(ValueError, "one batch a step", "steps_per_execution=2"):
        fit(loss, stop, x, y, **how)
    stop = cl.callbacks.TerminateOnComponentNaN()
    fit(loss, stop, x, y, **how)
    assert "in steps 3 to 4 (epoch 1, batches 2 to 3)" in capsys.readouterr().out
