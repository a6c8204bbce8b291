"""The model classes, and the way from and to plain Keras models."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.processes import run_python
from tests.training.tiny import arrays, line, mse, sgd, two_heads, weights_of


def mse_and_mae():
    return cl.CompositeLoss(["mse", "mae"])


def functional(cls):
    inputs = keras.Input((3,))
    return cls(inputs, keras.layers.Dense(1, name="head")(inputs))


def deferred(cls):
    return cls([keras.layers.Dense(1)])


def shared(cls):
    """Two inputs through one layer, and a frozen one."""
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    dense = keras.layers.Dense(2)
    frozen = keras.layers.Dense(1, trainable=False)
    return cls({"first": first, "second": second}, frozen(dense(first) + dense(second)))


class Line(cl.ComponentMetricsMixin, keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


class LineOfModel(cl.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs, training=False):
        return self.dense(inputs)


class FunctionalSubclass(cl.Model):
    """A subclass that hands its inputs and outputs to the constructor, as Keras allows."""

    def __init__(self, units=1):
        inputs = keras.Input((3,))
        super().__init__(inputs=inputs, outputs=keras.layers.Dense(units)(inputs))


class MixinOfFunctional(cl.ComponentMetricsMixin, keras.Model):
    """The same with the mixin: there is no class of Keras between."""


def trains(model, x, y):
    """Fits for two epochs and returns what the first and the last evaluation give."""
    model.compile(sgd(), loss=mse_and_mae())
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.fit(x, y, epochs=2, verbose=0)
    return before, model.evaluate(x, y, verbose=0, return_dict=True)


# The classes.


@pytest.mark.parametrize(
    "make",
    [
        lambda: functional(cl.Model),
        lambda: line(cl.Sequential),
        lambda: deferred(cl.Sequential),
        Line,
        LineOfModel,
        FunctionalSubclass,
        lambda: functional(MixinOfFunctional),
        lambda: cl.track(functional(keras.Model)),
        lambda: cl.track(line(keras.Sequential)),
        lambda: cl.track(deferred(keras.Sequential)),
    ],
    ids=[
        "cl.Model",
        "cl.Sequential",
        "deferred cl.Sequential",
        "the mixin",
        "subclass of cl.Model",
        "functional subclass of cl.Model",
        "functional with the mixin",
        "tracked Functional",
        "tracked Sequential",
        "tracked deferred Sequential",
    ],
)
def test_it_trains_and_reports_also_before_it_is_built(make):
    x, y = arrays()
    model = make()
    model.compile(sgd(), loss=mse_and_mae())
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert set(history) == {"loss", "mse_loss", "mae_loss"}
    assert history["loss"][2] < history["loss"][0]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["mse_loss"] == pytest.approx(mse(y, model.predict(x, verbose=0)), rel=1e-6)


def test_a_functional_subclass_leaves_cl_model_as_it_was():
    """Keras makes such a class functional by changing the bases of all classes above it."""
    bases = cl.Model.__bases__
    assert isinstance(FunctionalSubclass(), cl.Model)
    assert cl.Model.__bases__ == bases
    x, y = arrays()
    trains(LineOfModel(), x, y)


def test_the_models_are_what_keras_calls_them():
    assert isinstance(functional(cl.Model), keras.Model)
    assert isinstance(functional(cl.Model), cl.Model)
    assert isinstance(line(), keras.Sequential)
    # Only a Functional model has the layers between as attributes.
    assert functional(cl.Model).get_layer("head").output.shape == (None, 1)


def test_the_loss_adds_no_parameters_to_the_model(capsys):
    model, plain = line(), line(keras.Sequential)
    model.compile(sgd(), loss=mse_and_mae())
    assert model.count_params() == plain.count_params() == 4
    assert [w.shape for w in model.get_weights()] == [w.shape for w in plain.get_weights()]
    model.summary()
    assert "Total params: 4" in capsys.readouterr().out


def test_a_model_inside_a_model_reports_for_the_outer_one():
    inner, (x, y) = line(), arrays()
    inner.compile(sgd(), loss=cl.CompositeLoss(["huber"]))
    outer = cl.Sequential([keras.Input((3,)), inner, keras.layers.Dense(1)])
    outer.compile(sgd(), loss=mse_and_mae())
    assert set(outer.fit(x, y, verbose=0).history) == {"loss", "mse_loss", "mae_loss"}


# track.


@pytest.mark.parametrize("make", [functional, line, shared, two_heads])
def test_track_takes_over_layers_weights_names_and_structure(make):
    model = make(keras.Sequential if make is line else keras.Model)
    tracked = cl.track(model)
    assert [*map(id, tracked.layers)] == [*map(id, model.layers)]
    assert [*map(id, tracked.weights)] == [*map(id, model.weights)]
    assert [*map(id, tracked.trainable_weights)] == [*map(id, model.trainable_weights)]
    assert tracked.name == model.name
    assert [t.shape for t in tracked.inputs] == [t.shape for t in model.inputs]
    assert [t.shape for t in tracked.outputs] == [t.shape for t in model.outputs]
    assert not tracked.compiled


def test_track_keeps_the_names_of_inputs_and_outputs():
    model = cl.track(shared(keras.Model))
    x, y = arrays()
    model.compile(sgd(), loss=mse_and_mae())
    before = weights_of(model)
    model.fit({"second": x, "first": -x}, y, verbose=0)
    # The shared layer sees x and -x: its kernel has no gradient, its bias has.
    np.testing.assert_allclose(weights_of(model)[:6], before[:6], atol=1e-6)
    assert not np.allclose(weights_of(model)[6:8], before[6:8])


def test_training_the_tracked_model_trains_the_given_one():
    model, (x, y) = line(keras.Sequential), arrays()
    before, after = trains(cl.track(model), x, y)
    assert after["loss"] < before["loss"]
    assert mse(y, model.predict(x, verbose=0)) == pytest.approx(after["mse_loss"], rel=1e-6)


@pytest.mark.parametrize("take_over, cls", [(cl.track, keras.Model), (cl.untrack, cl.Model)])
def test_what_has_been_taken_over_is_returned_as_it_is(take_over, cls):
    taken = take_over(functional(cls))
    assert take_over(taken) is taken


def test_there_and_back_again():
    model, (x, _) = functional(keras.Model), arrays()
    back = cl.untrack(cl.track(model))
    assert type(back) is type(model)
    np.testing.assert_array_equal(back.predict(x, verbose=0), model.predict(x, verbose=0))


def test_track_leaves_the_given_model_compiled_as_it_was():
    model, (x, y) = line(keras.Sequential), arrays()
    model.compile(sgd(), loss="mse")
    cl.track(model).compile(sgd(), loss=mse_and_mae())
    assert model.evaluate(x, y, verbose=0) == pytest.approx(
        mse(y, model.predict(x, verbose=0)), rel=1e-6
    )


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    "take_over, model", [(cl.track, Subclassed), (cl.untrack, Line), (cl.track, lambda: "model")]
)
def test_a_subclassed_model_is_an_error_that_says_what_to_write(take_over, model):
    with pytest.raises(ValueError, match=r"cl.ComponentMetricsMixin, keras.Model.*Received"):
        take_over(model())


@pytest.mark.parametrize("take_over", [cl.track, lambda model: cl.untrack(cl.track(model))])
@pytest.mark.parametrize("make", [functional, line])
def test_policy_and_frozen_state_survive(take_over, make):
    model = make(keras.Sequential if make is line else keras.Model)
    model.trainable = False
    model.layers[-1].dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    taken = take_over(model)
    assert not taken.trainable and not taken.trainable_weights
    assert taken.dtype_policy == model.dtype_policy
    assert taken.compute_dtype == model.compute_dtype
    assert taken(np.zeros((1, 3), "float32")).dtype == model(np.zeros((1, 3), "float32")).dtype


def test_a_layer_that_is_frozen_stays_frozen():
    model = cl.track(shared(keras.Model))
    frozen = model.layers[-1]
    x, y = arrays()
    before = frozen.get_weights()[0].copy()
    trains(model, {"first": x, "second": x}, y)
    np.testing.assert_array_equal(frozen.get_weights()[0], before)


# untrack.


@pytest.mark.parametrize("make", [functional, line, shared, two_heads, deferred])
def test_untrack_gives_the_plain_class_and_the_same_layers(make):
    sequential = make in (line, deferred)
    model = make(cl.Sequential if sequential else cl.Model)
    plain = cl.untrack(model)
    assert type(plain).__module__.startswith("keras.")
    assert not isinstance(plain, cl.ComponentMetricsMixin)
    assert [*map(id, plain.layers)] == [*map(id, model.layers)]


def test_what_untrack_gives_loads_without_this_package(tmp_path):
    x, y = arrays()
    models = {
        "functional": functional(cl.Model),
        "sequential": line(),
        "deferred": deferred(cl.Sequential),
    }
    expected = {}
    for name, model in models.items():
        trains(model, x, y)
        expected[name] = model.predict(x, verbose=0)
        cl.untrack(model).save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "expected.npz", x=x, **expected)
    run_python(
        """
import sys
import keras
import numpy as np
data = np.load("expected.npz")
for name in ("functional", "sequential", "deferred"):
    model = keras.saving.load_model(f"{name}.keras")
    np.testing.assert_allclose(model.predict(data["x"], verbose=0), data[name], rtol=1e-5)
    model.compile("sgd", loss="mse")
    model.fit(data["x"], data[name], verbose=0)
assert "combined_losses" not in sys.modules
""",
        tmp_path,
    )
