"""What Keras does in training and saving and does not promise, see test_keras_seams.py."""

from collections import UserDict

import keras
import numpy as np
import pytest
from keras import ops

from combined_losses._backend import keras_private
from tests.seams import X, Y, line, numbers, on, seam

pytestmark = [pytest.mark.depends_on_version, pytest.mark.fast]


# Steps and their functions.


def make_function(model, step):
    """Lets Keras compile the function of a step where there is none."""
    getattr(model, f"make_{step.removesuffix('step')}function")()


@seam(
    "step_function",
    "set_step_function",
    "recompile_step",
    "replacing_step",
    files=["training/mixin.py: make_train_function, make_test_function"],
)
@pytest.mark.parametrize("step", ["train_step", "test_step"])
def test_functions_of_steps(step):
    model, traced = line(), []
    run = model.train_on_batch if step == "train_step" else model.test_on_batch
    method = getattr(model, step)

    def own(*args):
        traced.append(step)
        return method(*args)

    assert keras_private.step_function(model, step) is None
    with keras_private.replacing_step(model, step, own):
        make_function(model, step)
    run(X, Y)
    # On torch Keras reads the method again when it runs the function.
    is_replaced = keras.backend.backend() != "torch"
    assert bool(traced) == is_replaced
    first = keras_private.step_function(model, step)
    make_function(model, step)
    assert keras_private.step_function(model, step) is first

    del traced[:]
    with keras_private.replacing_step(model, step, lambda *args: own(*args)):
        keras_private.recompile_step(model, step)
    run(X, Y)
    assert bool(traced) == is_replaced and keras_private.step_function(model, step) is not first

    function, called = keras_private.step_function(model, step), []
    keras_private.set_step_function(model, step, lambda *a: called.append(1) or function(*a))
    run(X, Y)
    assert called
    keras_private.set_step_function(model, step, None)
    assert keras_private.step_function(model, step) is None


@seam("batch_of", "split_result", "join_result", files=["training/steps.py", "_core/outputs.py"])
def test_steps_are_given_batches_and_the_logs_of_their_functions_are_theirs():
    class Own(keras.Model):
        def train_step(self, *args):
            logs, state = keras_private.split_result(super().train_step(*args))
            x, y, _ = keras.utils.unpack_x_y_sample_weight(keras_private.batch_of(args))
            logs = {**logs, "vector": ops.ones((3,)), "arrays": {"x": x, "y": y}}
            return keras_private.join_result(logs, state)

    model, seen = line(Own), {}
    make_function(model, "train_step")
    function = keras_private.step_function(model, "train_step")

    def look(*args):
        logs, state = keras_private.split_result(function(*args))
        seen.update(logs)
        return keras_private.join_result({"loss": logs["loss"]}, state)

    keras_private.set_step_function(model, "train_step", look)
    model.fit(X, Y, shuffle=False, verbose=0)
    assert numbers(seen["vector"]) == [1.0] * 3
    assert numbers(seen["arrays"]["x"]) == X.tolist()
    assert numbers(seen["arrays"]["y"]) == Y.tolist()


class Notes(keras.Model):
    """A model that notes which of its methods Keras calls."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.noted = []

    def stateless_call(self, *args, **kwargs):
        self.noted.append("stateless_call")
        return super().stateless_call(*args, **kwargs)

    def stateless_compute_loss(self, *args, **kwargs):
        self.noted.append("stateless_compute_loss")
        assert kwargs.keys() <= {"x", "y", "y_pred", "sample_weight", "training"}
        return super().stateless_compute_loss(*args, **kwargs)

    def zero_grad(self, *args, **kwargs):
        self.noted.append("zero_grad")
        return super().zero_grad(*args, **kwargs)

    def compute_loss(self, *args, **kwargs):
        self.noted.append("compute_loss")
        return super().compute_loss(*args, **kwargs)

    def get_metrics_result(self):
        return {**super().get_metrics_result(), "more": 7.0}


@seam(
    files=[
        "training/backend_steps.py: stateless_call, stateless_compute_loss, zero_grad",
        "training/mixin.py: compute_loss",
    ]
)
def test_a_step_calls_what_the_mixin_overrides():
    model = line(Notes)
    model.fit(X, Y, verbose=0)
    del model.noted[:]  # of the call that built it
    keras_private.recompile_step(model, "train_step")
    history = model.fit(X, Y, verbose=0).history
    expected = {
        "jax": ["stateless_call", "stateless_compute_loss", "compute_loss"],
        "torch": ["zero_grad", "compute_loss"],
        "tensorflow": ["compute_loss"],
    }[keras.backend.backend()]
    assert [name for name in dict.fromkeys(model.noted) if name in expected] == expected
    assert history["more"] == [7.0]


@on("jax")
@seam("state_given", "read_state", "with_metrics", files=["_backend/jax.py"])
def test_the_state_of_a_step_on_jax():
    model, found = line(Notes, optimizer="adam", metrics=["mae"]), {}

    def own_step(step, method):
        def own(*args):
            given = keras_private.state_given(args)
            found[step] = keras_private.read_state(given)
            logs, (state,) = keras_private.split_result(method(*args))
            metrics = keras_private.read_state(state).metrics
            assert keras_private.with_metrics(state, metrics) == state
            return keras_private.join_result(logs, [state])

        return own

    for step in ("train_step", "test_step"):
        with keras_private.replacing_step(model, step, own_step(step, getattr(model, step))):
            make_function(model, step)
    model.train_on_batch(X, Y)
    model.test_on_batch(X, Y)

    def shapes(values):
        return [tuple(value.shape) for value in values]

    for step, state in found.items():
        assert shapes(state.trainable) == shapes(model.trainable_variables), step
        assert shapes(state.non_trainable) == shapes(model.non_trainable_variables), step
        assert shapes(state.metrics) == shapes(model.metrics_variables), step
    assert shapes(found["train_step"].optimizer) == shapes(model.optimizer.variables)
    assert found["test_step"].optimizer is None


@seam(files=["training/mixin.py: non_trainable_variables, metrics_variables"])
def test_steps_thread_the_variables_that_a_property_adds():
    counts = [keras.Variable(0.0, trainable=False) for _ in range(2)]

    class Counting(Notes):
        @property
        def non_trainable_variables(self):
            return [*super().non_trainable_variables, counts[0]]

        @property
        def metrics_variables(self):
            return [*super().metrics_variables, counts[1]]

        def compute_loss(self, *args, **kwargs):
            for count in counts:
                count.assign_add(1.0)
            return super().compute_loss(*args, **kwargs)

    line(Counting).fit(X, Y, batch_size=1, epochs=2, verbose=0)
    assert list(map(numbers, counts)) == [4.0, 4.0]


@seam("bring_back_state")
def test_what_is_assigned_between_two_steps_is_what_the_next_begins_with():
    model = line(optimizer=keras.optimizers.SGD(0.0))

    class Assign(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            keras_private.bring_back_state(model)
            for variable in model.trainable_variables:
                variable.assign(variable + 1.0)

    before = [v + 0.0 for v in model.trainable_variables]
    model.fit(X, Y, batch_size=1, verbose=0, callbacks=[Assign()])
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(numbers(variable), numbers(value + 2.0), rtol=1e-6)


@on("torch")
@seam("clear_gradient")
def test_the_gradient_of_a_variable_on_torch():
    variable = keras.Variable([2.0])
    ops.sum(variable * 3.0).backward()
    assert variable.value.grad.tolist() == [3.0]
    keras_private.clear_gradient(variable)
    assert variable.value.grad is None


# Callbacks.


@seam("add_callbacks")
@pytest.mark.parametrize("given", [None, "one", "list", "CallbackList"])
def test_callbacks_before_and_after_those_of_the_user(given):
    called = []

    class Named(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            called.append((self.name, self.model))

    model, users = line(), Named("users")
    callbacks = {
        None: None,
        "one": users,
        "list": [users],
        "CallbackList": keras.callbacks.CallbackList([users], add_history=True, model=model),
    }[given]
    kwargs = {"callbacks": callbacks, "verbose": 0}
    ours = [Named("first")], [Named("last")]
    args, kwargs = keras_private.add_callbacks(keras.Model.fit, model, (X, Y), kwargs, *ours)
    if given in (None, "one"):  # training takes its time
        names = [callback.name for callback in kwargs["callbacks"]]
        assert names == (["first", "users", "last"] if given else ["first", "last"])
        return
    model.fit(*args, **kwargs)
    assert called == [(name, model) for name in ("first", "users", "last")]


@seam("reads_steps")
def test_who_reads_the_logs_of_steps():
    model, early = line(), keras.callbacks.EarlyStopping("loss")

    def read(callbacks, **kwargs):
        kwargs = {"callbacks": callbacks, **kwargs}
        return keras_private.reads_steps(keras.Model.fit, model, (X, Y), kwargs)

    class Steps(keras.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            pass

    given = []
    on_step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: given.append(logs))
    assert read(None) and read(None, verbose=2) and not read(None, verbose=0)
    for silent in (early, [early], keras.callbacks.LambdaCallback(on_epoch_end=print)):
        assert not read(silent, verbose=0)
    for reader in (Steps(), [early, on_step], keras.callbacks.ModelCheckpoint("x.keras")):
        assert read(reader, verbose=0)
    callbacks = keras.callbacks.CallbackList
    assert not read(callbacks([early], model=model))
    assert read(callbacks([early, on_step], model=model))
    assert read(callbacks([early], add_progbar=True, model=model))
    # Keras converts no entry of logs that count as false, and gives them at the end of the epoch.
    function = model.make_train_function() or model.train_function
    model.train_function = lambda *args: _false(function(*args))
    history = model.fit(X, Y, verbose=0, callbacks=[on_step]).history
    assert given == [{}] and len(history["loss"]) == 1


class _False(UserDict):
    def __bool__(self):
        return False


def _false(result):
    logs, states = keras_private.split_result(result)
    return keras_private.join_result(_False(logs), states)


@on("tensorflow")
@seam("epoch_tags", "write_layout", files=["callbacks/tensorboard.py"])
def test_files_of_tensorboard(tmp_path):
    import re

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = keras.callbacks.TensorBoard(tmp_path)
    line().fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[board])
    train = tmp_path / "train"
    keras_private.write_layout(str(train), b"layout")
    events = [path.name for path in sorted(train.glob("events.out.tfevents.*"))]
    assert events[0] == "events.out.tfevents.0.composites" and len(events) == 2
    for run in ("train", "validation"):
        tags = EventAccumulator(str(tmp_path / run)).Reload().Tags()["tensors"]
        assert any(re.match(keras_private.epoch_tags(["loss"]), tag) for tag in tags), run


# Saving.


@keras.saving.register_keras_serializable("seams")
class Keeps(keras.losses.Loss):
    """A loss that holds a number of its own, and maybe other losses."""

    def __init__(self, name="keeps", inner=(), networks=()):
        super().__init__(name=name)
        # The saver meets `_a` first; it looks into lists, not into objects that are none of Keras.
        self._b, self._a, self._inner = list(inner[1:]), list(inner), list(inner)
        self.networks, self.state = tuple(networks), keras.Variable(1.0)
        self.found = self.beside = None

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    def save_own_variables(self, store):
        store["state"] = ops.convert_to_numpy(self.state)

    def load_own_variables(self, store):
        self.found = keras_private.names_in(store)
        self.beside = [n for n in ("_a", "_b", "loss") if keras_private.is_beside(store, n)]
        self.state.assign(np.array(store["state"]))

    def get_config(self):
        def stored(things):
            return [keras_private.share(keras.saving.serialize_keras_object(t), t) for t in things]

        return {"name": self.name, "inner": stored(self._inner), "networks": stored(self.networks)}

    @classmethod
    def from_config(cls, config):
        load = keras.saving.deserialize_keras_object
        stored = {key: [load(e) for e in config[key]] for key in ("inner", "networks")}
        return cls(config["name"], **stored)


@seam(
    "names_in", "is_beside", "share", files=["composite: save_own_variables", "wrappers/outputs.py"]
)
def test_the_saver_walks_over_the_loss_of_a_model(tmp_path):
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name="network")
    inner = [Keeps("one"), Keeps("two")]
    model = line(loss=Keeps(inner=inner, networks=[network, network]))
    for loss in (model.loss, *inner):
        loss.state.assign(5.0)
    model.save(tmp_path / "model.keras")
    loss = keras.models.load_model(tmp_path / "model.keras").loss
    assert [numbers(each.state) for each in (loss, *loss._inner)] == [5.0] * 3
    assert loss.found == ["state"] and loss.beside == ["_a"]
    assert loss.networks[0] is loss.networks[1]


@seam("names_in", files=["composite: the order of `_nodes` and `_parts`"])
def test_the_saver_writes_a_loss_once_under_the_first_attribute(tmp_path):
    import h5py

    model = line(loss=Keeps(inner=[Keeps("one"), Keeps("two")]))
    model.save_weights(tmp_path / "a.weights.h5")
    paths = []
    with h5py.File(tmp_path / "a.weights.h5") as file:
        file.visit(paths.append)
    written = [path for path in paths if path.startswith("loss") and path.endswith("state")]
    assert len(written) == 3
    assert all("/_a/" in path for path in written if path.count("/") > 2)


@seam("hide", "drop_hidden", files=["training/model_state.py"])
def test_nobody_looks_into_what_is_hidden(tmp_path):
    model, layer = line(), keras.layers.Dense(1)
    layer.build((None, 3))

    class State:
        def __init__(self):
            self.held = [layer]

    before = len(model.weights)
    keras_private.hide(model, "_hidden_state", State())
    assert model._hidden_state.held == [layer]
    assert len(model.weights) == before and layer not in model.layers
    model.save(tmp_path / "model.keras")
    assert not hasattr(keras.models.load_model(tmp_path / "model.keras"), "_hidden_state")
    keras_private.drop_hidden(model, "_hidden_state")
    assert not hasattr(model, "_hidden_state")


@seam("complete_config")
def test_the_arguments_of_a_serialized_object():
    serialized = keras.saving.serialize_keras_object(keras.losses.CosineSimilarity(name="own"))
    serialized["config"].pop("axis", None)  # a later Keras has it
    keras_private.complete_config(serialized, "axis", 1)
    keras_private.complete_config(serialized, "name", "another")
    loss = keras.saving.deserialize_keras_object(serialized)
    assert keras_private.whole_config(loss)["axis"] == 1 and loss.name == "own"
