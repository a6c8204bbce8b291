"""Point sets in `fit` and `evaluate`: which points each epoch has, adapted ones, and resuming."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.messages import raises
from tests.training.tiny import FROZEN, sgd, weights_of

SIZES = {"pde": 12, "ic": 4, "bc": 6}
KERNEL = np.array([[1.0], [-2.0]], "float32")
MODELS = [keras.Model, cl.Model]


def network(cls=keras.Model, learning_rate=FROZEN, loss="mse", **compile_arguments):
    """`u = x - 2 t` at the points of each set, an output for each."""
    kernel = keras.initializers.Constant(KERNEL)
    layer = keras.layers.Dense(1, kernel_initializer=kernel)
    inputs = {name: keras.Input((2,), name=name) for name in SIZES}
    model = cls(inputs, {f"u_{name}": layer(x) for name, x in inputs.items()})
    losses = {f"u_{name}": loss for name in SIZES}
    model.compile(sgd(learning_rate), loss=losses, **compile_arguments)
    return model


def boxes(steps=2, seed=0, **arguments):
    sets = {
        "pde": cl.Box([-1.0, 0.0], [1.0, 1.0], method="latin"),
        "ic": cl.Box([-1.0, 0.0], [1.0, 0.0]),
        "bc": np.random.default_rng(0).random((10, 2)),
    }
    targets = {"u_pde": ("pde", 0.0), "u_bc": ("bc", np.ones((10, 1)))}
    targets["u_ic"] = ("ic", lambda x: np.sin(x[:, :1]))
    return cl.PointSets(sets, targets, batch=SIZES, steps=steps, seed=seed, **arguments)


def expected(epoch, **arguments):
    """The loss of each output in an epoch, by NumPy."""
    points = boxes(**arguments)
    points.epoch = epoch
    found = {}
    for name in SIZES:
        squares = []
        for x, y, *weights in points:
            error = np.mean((x[name] @ KERNEL - y[f"u_{name}"]) ** 2, axis=-1)
            squares.append(error * (weights[0][f"u_{name}"] if weights else 1.0))
        found[f"u_{name}_loss"] = np.mean(squares)
    return found | {"loss": sum(found.values())}


def assert_logs(history, epochs, **arguments):
    for place, epoch in enumerate(epochs):
        for key, value in expected(epoch, **arguments).items():
            np.testing.assert_allclose(history[key][place], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_each_epoch_has_the_points_of_its_number(cls, steps):
    """Over several calls too, and whether or not the model is built first."""
    model, points = network(cls), boxes(steps)
    for epochs in ([0, 1, 2], [3, 4]):
        history = model.fit(points, epochs=len(epochs), verbose=0).history
        assert_logs(history, epochs, steps=steps)
        assert points.epoch == epochs[-1] + 1
    fresh = boxes(steps)
    assert_logs(model.fit(fresh, epochs=2, verbose=0).history, [0, 1], steps=steps)


@pytest.mark.parametrize("cls", MODELS)
def test_evaluate_has_the_points_of_an_epoch(cls):
    model, points = network(cls), boxes()
    for epoch in (0, 1):
        found = model.evaluate(points, verbose=0, return_dict=True)
        assert_logs({key: [value] for key, value in found.items()}, [epoch])


def test_validation_may_have_the_same_points_in_every_epoch():
    model, arguments = network(), {"seed": 1, "redraw_every": None}
    history = model.fit(boxes(), validation_data=boxes(**arguments), epochs=3, verbose=0).history
    validation = {key.removeprefix("val_"): history[key] for key in history if "val_" in key}
    assert_logs(validation, [0, 0, 0], **arguments)
    assert_logs(history, [0, 1, 2])


@pytest.mark.parametrize("cls", MODELS)
def test_sample_weights_of_one_output(cls):
    arguments = {"sample_weight": {"u_ic": lambda x: 1.0 + x[:, 0]}}
    history = network(cls).fit(boxes(**arguments), epochs=2, verbose=0).history
    assert_logs(history, [0, 1], **arguments)


def test_an_output_without_target():
    points = cl.PointSets({"pde": cl.Box([0, 0], [1, 1])}, batch=4, steps=2, seed=0)
    x = keras.Input((2,), name="pde")
    model = keras.Model({"pde": x}, {"u": keras.layers.Dense(1)(x)})
    assert model.predict(points, verbose=0)["u"].shape == (8, 1)


def test_the_parts_of_a_composite_beside():
    loss = cl.CompositeLoss(["mse", "mae"])
    model = network(cl.Model, loss=loss)
    history = model.fit(boxes(), epochs=2, verbose=0).history
    for place, epoch in enumerate((0, 1)):
        for name in SIZES:
            value = expected(epoch)[f"u_{name}_loss"]
            np.testing.assert_allclose(history[f"u_{name}_mse_loss"][place], value, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it on torch")
def test_several_steps_in_one_call():
    model = network(steps_per_execution=2)
    assert_logs(model.fit(boxes(4), epochs=2, verbose=0, shuffle=False).history, [0, 1], steps=4)


# Adapted points.


def residual(model, x):
    return keras.ops.square(
        keras.ops.matmul(x, keras.ops.convert_to_tensor(model.layers[-1].kernel))
    )


def test_points_are_adapted_to_the_residual_of_the_model():
    points = boxes()
    adapt = cl.callbacks.AdaptPoints(
        points, {"pde": residual}, every=2, candidates=50, k=2.0, c=0.5
    )
    model = network()
    model.fit(points, epochs=2, callbacks=[adapt], verbose=0)
    assert "pde/probability" not in points.get_state()
    model.fit(points, initial_epoch=2, epochs=4, callbacks=[adapt], verbose=0)
    state, twin = points.get_state(), boxes()
    twin.epoch = 2  # at whose beginning they were taken
    candidates = twin.candidates("pde", 50)
    np.testing.assert_array_equal(state["pde/candidates"], candidates)
    size = (candidates.astype("float64") @ KERNEL)[:, 0] ** 4
    density = size / size.mean() + 0.5
    np.testing.assert_allclose(state["pde/probability"], density / density.sum(), rtol=1e-4)
    drawn = np.concatenate([x["pde"] for x, _ in points])
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in candidates}


def test_the_residual_is_that_of_the_weights_of_now():
    """Also on JAX, which keeps them elsewhere while it trains."""
    found = []

    def remember(model, x):
        found.append(keras.ops.convert_to_numpy(model.layers[-1].kernel))
        return residual(model, x)

    points, model = boxes(), network(learning_rate=0.1)
    adapt = cl.callbacks.AdaptPoints(points, {"pde": remember}, candidates=20)
    model.fit(points, epochs=3, callbacks=[adapt], verbose=0)
    assert len(found) == 2
    assert not np.array_equal(found[0], KERNEL) and not np.array_equal(found[0], found[1])


# Resuming.


class Stop(Exception):
    pass


class StopAt(keras.callbacks.Callback):
    """An interruption in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop_at, self.now = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.stop_at:
            raise Stop


def train(folder, *callbacks, epochs=6):
    """A training that goes on from what is in the folder."""
    points, model = boxes(seed=5), network(learning_rate=0.1)
    backups = []
    if folder is not None:
        backups = [
            cl.callbacks.BackupPoints(points, folder / "points.npz"),
            keras.callbacks.BackupAndRestore(str(folder / "model")),
        ]
    adapt = cl.callbacks.AdaptPoints(points, {"pde": residual}, every=2, candidates=60)
    options = {"epochs": epochs, "shuffle": False, "verbose": 0}
    history = model.fit(points, callbacks=[adapt, *backups, *callbacks], **options).history
    return model, points, history


@pytest.mark.parametrize("stopped_at", [1, 3, 4])
def test_an_interrupted_training_goes_on_to_the_last_bit(stopped_at, tmp_path):
    model, points, history = train(None)
    with pytest.raises(Stop):
        train(tmp_path, StopAt(stopped_at))
    assert (tmp_path / "points.npz").exists()
    resumed, resumed_points, rest = train(tmp_path)
    assert rest == {key: values[stopped_at:] for key, values in history.items()}
    np.testing.assert_array_equal(weights_of(resumed), weights_of(model))
    state, resumed_state = points.get_state(), resumed_points.get_state()
    assert state.keys() == resumed_state.keys() >= {"pde/candidates"}
    for key in state:
        np.testing.assert_array_equal(resumed_state[key], state[key])
    assert not (tmp_path / "points.npz").exists()  # as Keras removes the backup of the model


def test_a_backup_may_stay(tmp_path):
    points = boxes()
    backup = cl.callbacks.BackupPoints(points, tmp_path / "new" / "p.npz", delete_checkpoint=False)
    network().fit(points, epochs=2, callbacks=[backup], verbose=0)
    with np.load(tmp_path / "new" / "p.npz") as state:
        assert int(state["epoch"]) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.npz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, {"pde": residual}), ("cl.PointSets", "Received: None")),
        ((boxes(), {}), ("`residuals`", "Received: {}")),
        ((boxes(), residual), ("`residuals`", "f(model, points)")),
        ((boxes(), {"bc": residual}), ("'pde' and 'ic'", "Received: 'bc'")),
    ],
)
def test_wrong_arguments_of_adapt_points_are_refused(arguments, said):
    with raises(ValueError, "Received", *said):
        cl.callbacks.AdaptPoints(*arguments)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"candidates": 1.5}, {"k": -1.0}, {"c": None}])
def test_wrong_numbers_of_adapt_points_are_refused(wrong):
    with raises(ValueError, f"`{next(iter(wrong))}`", f"Received: {next(iter(wrong.values()))}"):
        cl.callbacks.AdaptPoints(boxes(), {"pde": residual}, **wrong)


def test_backup_points_needs_point_sets():
    with raises(ValueError, "cl.PointSets", "Received: 3"):
        cl.callbacks.BackupPoints(3, "points.npz")
