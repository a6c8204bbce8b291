"""`on_nonfinite`: a component that is not finite spoils the step, or is left out of it."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    FAMO,
    LinearRamp,
    MagnitudeBalance,
    Smoothed,
    UncertaintyWeighting,
    UPGrad,
)
from tests.messages import raises
from tests.training.tiny import line, sgd, two_heads, weights_of


@keras.saving.register_keras_serializable("tests")
def root(y_true, y_pred):
    """Neither its value nor its gradient is finite below 0."""
    return ops.mean(ops.sqrt(y_pred), axis=-1)


def steep(y_true, y_pred):
    """The mean absolute value; where the target is 0 its gradient is not finite."""
    nothing = ops.sqrt(ops.square(y_pred - ops.stop_gradient(y_pred)) + y_true)
    return ops.mean(ops.abs(y_pred) + nothing - ops.sqrt(y_true), axis=-1)


X, Y = np.full((4, 3), 0.5, "float32"), np.ones((4, 2), "float32")
SOUND, BROKEN = (X, Y), (-X, Y)  # predictions of 2 and of -2
STEEP = (X, Y * [0, 1])

RULES = {
    "none": lambda: None,
    "magnitudes": MagnitudeBalance,
    "famo": FAMO,
    "smoothed": lambda: Smoothed(MagnitudeBalance(), 0.5),
    "learned": UncertaintyWeighting,
    "output": UPGrad,
    "layer": lambda: UPGrad(gradients="trunk"),
    "parameters": lambda: UPGrad(gradients="parameters"),
}


def each(name, values, first):
    """All values of a parameter; those that are not among the first ones are thorough."""
    marks = {value: () if value in first else pytest.mark.thorough for value in values}
    params = [
        pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=m) for v, m in marks.items()
    ]
    return pytest.mark.parametrize(name, params)


def network(outputs=2, activation=None):
    inputs = keras.Input((3,))
    ones = {"kernel_initializer": keras.initializers.Constant(1 / np.sqrt(3))}
    trunk = keras.layers.Dense(4, **ones, name="trunk")(inputs)
    return cl.Model(inputs, keras.layers.Dense(outputs, activation, **ones)(trunk))


def trained(parts, *batches, model=None, **kwargs):
    """A model after some steps, and the logs of the last one."""
    model = model or network()
    kwargs = {"on_nonfinite": "skip", **kwargs}
    model.compile(sgd(0.01), loss=cl.CompositeLoss(parts, **kwargs))
    for x, y in batches:
        model.reset_metrics()
        logs = model.train_on_batch(x, y, return_dict=True)
    return model, {key: float(value) for key, value in logs.items()}


def assert_adds_up(logs, names=("mse", "root")):
    total = sum(logs.get(f"{name}_weight", 1.0) * logs[f"{name}_loss"] for name in names)
    assert logs["loss"] == pytest.approx(total + logs.get("weighting_loss", 0.0), rel=1e-5)


# Skipped.


def test_a_step_is_that_of_the_other_components():
    model, logs = trained({"mse": "mse", "root": root}, BROKEN)
    alone, expected = trained({"mse": "mse"}, BROKEN, on_nonfinite="propagate")
    np.testing.assert_allclose(weights_of(model), weights_of(alone), rtol=1e-6)
    assert logs == {**expected, "root_loss": 0.0, "mse_skipped": 0.0, "root_skipped": 1.0}


@each("rule", RULES, ["magnitudes", "learned", "layer", "parameters"])
def test_a_rule_goes_on_without_it(rule):
    parts = {"mse": "mse", "root": root}
    model, logs = trained(parts, SOUND, BROKEN, weighting=RULES[rule]())
    assert np.isfinite(weights_of(model)).all()
    assert (logs["root_loss"], logs["root_skipped"], logs["mse_skipped"]) == (0, 1, 0)
    assert logs["mse_loss"] > 0 and logs.get("root_weight", 0.0) == 0
    assert_adds_up(logs)
    state = {v.path: ops.convert_to_numpy(v.value) for v in model.loss.variables}
    assert all(np.isfinite(value).all() for value in state.values()), state
    logs = {k: float(v) for k, v in model.train_on_batch(*SOUND, return_dict=True).items()}
    assert np.isfinite(list(logs.values())).all()


def test_a_scheduled_weight_is_0_in_that_step():
    weights = {"root": LinearRamp(steps=10, start=1.0, end=2.0)}
    model, logs = trained({"mse": "mse", "root": root}, SOUND, BROKEN, weights=weights)
    assert logs["root_weight"] == 0
    assert_adds_up(logs)
    model.reset_metrics()
    logs = model.train_on_batch(*SOUND, return_dict=True)
    assert float(logs["root_weight"]) == pytest.approx(1.2)


def test_a_gradient_that_is_not_finite_is_left_out_too():
    model, logs = trained({"mse": "mse", "steep": steep}, STEEP)
    alone, _ = trained({"mse": "mse"}, STEEP)
    np.testing.assert_allclose(weights_of(model), weights_of(alone), rtol=1e-6)
    assert logs["steep_loss"] == pytest.approx(2.0) and logs["steep_skipped"] == 0
    assert_adds_up(logs, ["mse", "steep"])


@each("rule", ["output", "layer", "parameters"], ["output"])
def test_to_a_rule_such_a_gradient_is_none(rule):
    parts = {"mse": "mse", "steep": steep}
    model, logs = trained(parts, SOUND, STEEP, weighting=RULES[rule]())
    assert np.isfinite(weights_of(model)).all()
    assert logs["steep_loss"] > 1 and logs["steep_weight"] == 0
    assert_adds_up(logs, parts)


def test_an_epoch_logs_the_share_of_the_steps():
    x = np.concatenate([X, -X, X, X])
    y = np.concatenate([Y] * 4)
    model = network()
    loss = cl.CompositeLoss({"mse": "mse", "root": root}, on_nonfinite="skip")
    model.compile(sgd(0.0), loss=loss)
    data = {"batch_size": 4, "verbose": 0}
    history = model.fit(x, y, shuffle=False, validation_data=(-X, Y), **data).history
    found = {key: value[0] for key, value in history.items()}
    assert (found["root_skipped"], found["val_root_skipped"]) == (0.25, 1.0)
    assert found["root_loss"] / (1 - found["root_skipped"]) == pytest.approx(np.sqrt(2), rel=1e-5)
    assert_adds_up(found)
    evaluated = model.evaluate(x, y, return_dict=True, **data)
    assert evaluated == pytest.approx({k: v for k, v in found.items() if "val" not in k})


def test_it_changes_nothing_where_all_is_finite():
    """Nor the gradient of cross-entropies, which Keras takes at the logits behind probabilities."""
    x, y = 300 * X * [[1], [-1], [1], [-1]], np.eye(2, dtype="float32")[[0, 1, 1, 0]]
    kernel = np.arange(8, dtype="float32").reshape(4, 2)
    found = []
    for mode in ("skip", "propagate"):
        model = network(activation="softmax")
        model.layers[-1].kernel.assign(kernel)
        parts = {"ce": "categorical_crossentropy", "mse": "mse"}
        found.append(weights_of(trained(parts, (x, y), model=model, on_nonfinite=mode)[0]))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)


# Losses in losses.


def test_a_nested_composite_is_skipped_as_a_whole():
    inner = cl.CompositeLoss({"mae": "mae", "root": root})
    model, logs = trained({"mse": "mse", "inner": inner}, BROKEN)
    alone, _ = trained({"mse": "mse"}, BROKEN)
    np.testing.assert_allclose(weights_of(model), weights_of(alone), rtol=1e-6)
    assert logs["inner_skipped"] == 1
    assert logs["inner_loss"] == logs["inner/mae_loss"] == logs["inner/root_loss"] == 0


def test_a_nested_one_skips_its_own():
    inner = cl.CompositeLoss({"mae": "mae", "root": root}, on_nonfinite="skip")
    parts = {"mse": "mse", "inner": inner}
    model, logs = trained(parts, BROKEN, on_nonfinite="propagate")
    alone, _ = trained({"mse": "mse", "mae": "mae"}, BROKEN)
    np.testing.assert_allclose(weights_of(model), weights_of(alone), rtol=1e-6)
    assert "inner_skipped" not in logs and logs["inner/root_skipped"] == 1
    assert logs["inner_loss"] == logs["inner/mae_loss"] > 0


def test_what_is_learned_inside_stays_finite():
    inner = cl.CompositeLoss({"mae": "mae", "root": root}, weighting=UncertaintyWeighting())
    model, logs = trained({"mse": "mse", "inner": inner}, BROKEN)
    assert np.isfinite(weights_of(model)).all()
    assert all(np.isfinite(value) for value in logs.values())


def test_wrappers_hand_it_on():
    inner = cl.CompositeLoss({"mse": "mse", "root": root}, on_nonfinite="skip")
    model = network()
    model.compile(sgd(), loss=cl.wrappers.OnSlice(inner, np.s_[..., :1]))
    logs = model.train_on_batch(*BROKEN, return_dict=True)
    assert np.isfinite(weights_of(model)).all()
    assert (float(logs["root_skipped"]), float(logs["root_loss"])) == (1, 0)
    with raises(ValueError, "several times", "on_nonfinite='skip'"):
        cl.wrappers.MultiScale(inner)


def of_two_outputs(kind):
    """A loss that skips, for the outputs `a` and `b`, and the keys of what it skips."""
    parts, skip = {"mse": "mse", "root": root}, {"on_nonfinite": "skip"}
    if kind == "joint":
        parts = {"mse": cl.wrappers.OnOutput("mse", "a"), "root": cl.wrappers.OnOutput(root, "b")}
        return cl.CompositeLoss(parts, **skip), ["mse_skipped", "root_skipped"]
    apart = {name: cl.CompositeLoss(parts, **skip) for name in "ab"}
    joiner = "_" if kind == "apart" else "/"
    keys = [f"{name}{joiner}{part}_skipped" for name in "ab" for part in parts]
    if kind == "apart":
        return apart, keys
    return cl.CompositeLoss({n: cl.wrappers.OnOutput(c, n) for n, c in apart.items()}), keys


@each("kind", ["apart", "nested", "joint"], ["joint"])
def test_several_outputs(kind):
    loss, keys = of_two_outputs(kind)
    model = two_heads(structure=dict)
    model.compile(sgd(), loss=loss)
    x = 3 * np.eye(4, 3, dtype="float32")  # of both signs
    logs = model.train_on_batch(x, dict.fromkeys("ab", Y[:, :1]), return_dict=True)
    assert [key for key in logs if key.endswith("_skipped")] == keys
    assert np.isfinite(weights_of(model)).all()
    assert [float(logs[key]) for key in keys] == [float("root" in key) for key in keys]


# Without a model.


def test_totals_of_samples_are_without_it():
    parts = {"mse": "mse", "root": root}
    loss = cl.CompositeLoss(parts, reduction="none", on_nonfinite="skip")
    y_pred = np.array([[4.0, 4.0], [-1.0, 1.0]], "float32")
    found = ops.convert_to_numpy(loss(np.ones((2, 2), "float32"), y_pred))
    np.testing.assert_allclose(found, [9.0, 2.0])
    values = loss.components(np.ones((2, 2), "float32"), y_pred)
    assert np.isnan(ops.convert_to_numpy(values["root"])[1])  # as they are


def test_metrics_of_a_plain_model_show_0():
    loss = cl.CompositeLoss({"mse": "mse", "root": root}, on_nonfinite="skip")
    model = line(keras.Sequential, outputs=2, kernel_initializer="ones")
    model.compile(sgd(), loss=loss, weighted_metrics=loss.as_metrics())
    logs = model.evaluate(*BROKEN, verbose=0, return_dict=True)
    assert logs["root_loss"] == 0 and logs["loss"] == pytest.approx(logs["mse_loss"])


def test_operators_keep_it_as_one_component():
    loss = cl.CompositeLoss({"mse": "mse", "root": root}, on_nonfinite="skip")
    total = 0.5 * loss + cl.as_loss("mae")
    assert total.component_names[-1] == "mae" and "composite_loss/root" in total.component_names
    assert np.isfinite(float(total(Y, -Y)))


def test_it_is_saved(tmp_path):
    model, _ = trained({"mse": "mse", "root": root}, SOUND)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.on_nonfinite == "skip"
    logs = loaded.evaluate(*BROKEN, verbose=0, return_dict=True)
    assert logs == pytest.approx(model.evaluate(*BROKEN, verbose=0, return_dict=True))
    assert logs["root_skipped"] == 1
    config = model.loss.get_config()
    del config["on_nonfinite"]  # of a version before
    assert cl.CompositeLoss.from_config(config).on_nonfinite == "propagate"


# What is refused, and what is said.


def test_an_unknown_mode_is_refused():
    for mode in ("ignore", None, True, np.nan):
        with raises(ValueError, "'propagate' or 'skip'", "on_nonfinite"):
            cl.CompositeLoss(["mse"], on_nonfinite=mode)


def test_what_cannot_be_cut_off_is_refused():
    def equation(model, x, y, y_pred):
        return ops.mean(model(x), axis=-1)

    with raises(ValueError, "'equation'", "more than its output", "'skip'"):
        cl.CompositeLoss([cl.wrappers.OnInputs(equation)], on_nonfinite="skip")
    model = network()

    def reader(y_true, y_pred):
        return ops.mean(model.layers[-1].kernel) + 0 * y_pred[:, 0]

    loss = cl.CompositeLoss({"mse": "mse", "reader": reader}, on_nonfinite="skip")
    with raises(ValueError, "'reader'", "reads the trained model", "'skip'"):
        model.compile(sgd(), loss=loss)


def test_an_epoch_of_nothing_is_said():
    model, _ = trained({"root": root}, SOUND)
    before = weights_of(model)
    with pytest.warns(UserWarning, match="every component .* skipped in every step of the train"):
        history = model.fit(*BROKEN, epochs=2, verbose=0).history
    assert history["loss"] == [0.0, 0.0] and history["root_skipped"] == [1.0, 1.0]
    np.testing.assert_array_equal(weights_of(model), before)


@pytest.mark.filterwarnings("ignore:In epoch 1 every component")
def test_it_stops_at_what_is_skipped_throughout_alone(capsys):
    model, _ = trained({"mse": "mse", "root": root}, SOUND)
    stop = cl.callbacks.TerminateOnComponentNaN()
    history = model.fit(*BROKEN, epochs=2, verbose=0, callbacks=[stop]).history
    assert len(history["loss"]) == 2 and stop.components == ()
    history = model.fit(np.nan * X, Y, epochs=2, verbose=0, callbacks=[stop]).history
    assert len(history["loss"]) == 1 and stop.components == ("mse", "root")
    assert "skipped in every step of epoch 1; training stops." in capsys.readouterr().out


def test_diagnose_looks_at_it_as_it_is():
    model, _ = trained({"mse": "mse", "root": root}, SOUND)
    assert "not finite" in str(cl.diagnose(model, *BROKEN))


# Propagated.


@each("rule", RULES, ["magnitudes", "layer"])
def test_the_log_does_not_deny_what_spoils_the_step(rule):
    parts = {"mse": "mse", "root": root}
    _, logs = trained(parts, SOUND, BROKEN, weighting=RULES[rule](), on_nonfinite="propagate")
    assert np.isnan([logs["loss"], logs["root_loss"]]).all()
    assert "root_skipped" not in logs
    assert logs.get("root_weight", 1.0) > 0


# Half precision.


def ones(gramian):
    return ops.ones(gramian.shape[:1])


@each(
    "mode, place",
    [(m, p) for m in ("propagate", "skip") for p in (None, "output", "trunk", "parameters")],
    [("propagate", "trunk"), ("propagate", "parameters"), ("skip", None)],
)
def test_a_step_that_float16_overflows_logs_the_right_numbers(half_precision, mode, place):
    """It is applied by no means without the component whose gradient has overflowed."""
    rule = place and cl.weightings.GramianWeighting(ones, gradients=place)
    loss = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weighting=rule, on_nonfinite=mode)
    model = network()
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**15)
    model.compile(optimizer, loss=loss)
    before = weights_of(model)
    logs = model.train_on_batch(X, np.full((4, 2), -100.0, "float32"), return_dict=True)
    mse, mae = float(logs["mse_loss"]), float(logs["mae_loss"])
    assert mse == pytest.approx(102**2, rel=1e-2)
    assert float(logs["loss"]) == pytest.approx(mse + mae, rel=1e-6)
    np.testing.assert_array_equal(weights_of(model), before)


def test_it_can_be_changed_later():
    loss = cl.CompositeLoss({"root": root, "mse": "mse"})
    assert np.isnan(ops.convert_to_numpy(loss(Y, -Y)))
    loss.on_nonfinite = "skip"
    assert float(ops.convert_to_numpy(loss(Y, -Y))) == 4.0
    assert loss.get_config()["on_nonfinite"] == "skip"
    model = line(features=3, outputs=2)
    model.compile(sgd(), loss=loss)
    assert "root_skipped" in model.fit(X, Y, verbose=0).history
    loss.on_nonfinite = "propagate"
    assert np.isnan(ops.convert_to_numpy(loss(Y, -Y)))


def test_a_later_change_is_checked():
    loss = cl.CompositeLoss({"a": cl.wrappers.OnInputs(lambda model, x, y, y_pred: y_pred)})
    with raises(ValueError, "'a'", "on_nonfinite='skip'"):
        loss.on_nonfinite = "skip"
    with raises(ValueError, "'propagate' or 'skip'", "'never'"):
        loss.on_nonfinite = "never"
    assert loss.on_nonfinite == "propagate"
