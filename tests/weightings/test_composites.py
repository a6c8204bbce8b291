"""`weighting=` and schedules in a `CompositeLoss`."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    Average,
    GeometricMean,
    LinearRamp,
    MagnitudeBalance,
    RandomWeighting,
    SoftAdapt,
    UncertaintyWeighting,
    Worst,
)
from tests.composite.children import Y_PRED, Y_TRUE, value
from tests.messages import raises
from tests.weightings.parts import frozen, log_of_steps, model_of_parts, part, parts
from tests.weightings.rules import PLAIN, altered, close, every_rule, losses, rules_but, run

VALUES = losses(steps=8)
MOVING = {
    "rule": lambda: cl.CompositeLoss(["mse", "mae"], weighting=MagnitudeBalance()),
    "schedule": lambda: cl.CompositeLoss(["mse", "mae"], weights={"mae": LinearRamp(10)}),
    "inside": lambda: cl.CompositeLoss({"in": MOVING["rule"](), "mape": "mape"}),
}
every_moving = pytest.mark.parametrize("make", MOVING.values(), ids=MOVING)


def quiet(loss, *data):
    """The value, with the warning that its weights stay as they are."""
    with pytest.warns(UserWarning, match="here they stay as they are"):
        return value(loss, *data)


# What is given.


@pytest.mark.backend_free
def test_a_rule_as_weights_is_an_error():
    for rule in (MagnitudeBalance(), Average()):
        with raises(
            ValueError, "`weights` of 'composite_loss'", "`weighting=`", f"Received: {rule}"
        ):
            cl.CompositeLoss(["mse", "mae"], weights=rule)


@pytest.mark.backend_free
@pytest.mark.parametrize("form", ["dict", "list"])
def test_a_rule_as_one_of_the_weights_is_an_error(form):
    given = {"mae": SoftAdapt()} if form == "dict" else [1.0, SoftAdapt()]
    with raises(ValueError, "component 'mae'", "`weighting=`", "Received: SoftAdapt()"):
        cl.CompositeLoss(["mse", "mae"], weights=given)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["soft", 1.0, LinearRamp(3), [SoftAdapt()]])
def test_what_is_no_rule_is_an_error(bad):
    with raises(ValueError, "`weighting` of 'parts'", "cl.weightings", f"Received: {bad!r}"):
        cl.CompositeLoss(["mse", "mae"], weighting=bad, name="parts")


@pytest.mark.backend_free
def test_a_class_is_no_rule():
    with raises(ValueError, "`weighting`", "create it first: SoftAdapt()", "Received: <class"):
        cl.CompositeLoss(["mse", "mae"], weighting=SoftAdapt)


@pytest.mark.parametrize("reduction", ["none", None])
def test_without_a_reduction_there_is_nothing_to_weigh(reduction):
    with raises(ValueError, "`weighting`", "reduction", "Received: weighting=SoftAdapt()"):
        cl.CompositeLoss(["mse", "mae"], weighting=SoftAdapt(), reduction=reduction)
    unreduced = keras.losses.MeanSquaredError(reduction="none")
    with raises(ValueError, "`weighting`", "reduction"):
        cl.CompositeLoss([unreduced], weighting=SoftAdapt())
    around = cl.CompositeLoss({"in": MOVING["rule"]()}, reduction=reduction)
    with raises(ValueError, "`weighting` of 'composite_loss'", "'none'"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        around(Y_TRUE, Y_PRED)


def test_a_schedule_has_a_value_for_each_sample_too():
    loss = cl.CompositeLoss(
        ["mse", "mae"], weights={"mae": LinearRamp(10, start=0.5)}, reduction="none"
    )
    plain = cl.CompositeLoss(["mse", "mae"], weights={"mae": 0.5}, reduction="none")
    close(quiet(loss, Y_TRUE, Y_PRED), value(plain, Y_TRUE, Y_PRED))


# Steps of training.


@every_rule
def test_fixed_weights_multiply_those_of_the_rule(cls):
    """Which sees the raw values."""
    c = np.array([2.0, 0.5, 1.0])
    _, model = model_of_parts(3, c.tolist(), PLAIN[cls]())
    logs = log_of_steps(model, VALUES)
    expected = c * run(PLAIN[cls](), VALUES, c)
    found = np.stack([logs[f"part{i}_weight"] for i in range(3)], axis=1)
    if cls is UncertaintyWeighting:  # trained by the optimizer: the first step only
        found, expected = found[:1], expected[:1]
    close(found, expected, rtol=1e-4)
    close(logs["base_loss"], (c * VALUES).sum(axis=1))


@every_rule
def test_the_logs_add_up_in_every_step_and_in_validation(cls):
    _, model = model_of_parts(3, [2.0, 0.5, 1.0], PLAIN[cls]())
    for train in (True, False):
        logs = log_of_steps(model, VALUES[:4], train)
        weighted = sum(logs[f"part{i}_weight"] * logs[f"part{i}_loss"] for i in range(3))
        close(logs["loss"], weighted + logs.get("weighting_loss", 0.0), rtol=1e-5, atol=1e-6)


@every_rule
def test_validation_changes_nothing(cls):
    loss, model = model_of_parts(3, None, PLAIN[cls]())
    log_of_steps(model, VALUES[:4])
    before = [ops.convert_to_numpy(v.value).copy() for v in loss.variables]
    log_of_steps(model, VALUES[4:], train=False)
    for old, new in zip(before, loss.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new.value))


def test_a_mean_of_seven_and_three():
    _, model = model_of_parts(2, [7.0, 3.0], Average())
    logs = log_of_steps(model, VALUES[:, :2])
    close(logs["loss"], VALUES[:, :2] @ [0.7, 0.3])
    close(logs["part0_weight"], np.full(8, 0.7))


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_the_total_of_the_worst_is_the_worst(temperature):
    c = np.array([2.0, 0.5, 1.0])
    _, model = model_of_parts(3, c.tolist(), Worst(temperature))
    logs = log_of_steps(model, VALUES)
    y = c * VALUES.astype("float64")
    smooth = temperature and temperature * np.log(np.exp(y / temperature).sum(axis=1))
    close(logs["loss"], y.max(axis=1) if temperature is None else smooth, rtol=1e-5)


def test_a_schedule_acts_step_by_step_and_only_in_training():
    schedule = LinearRamp(4, start=1.0, end=3.0)
    loss, model = model_of_parts(2, {"part1": schedule})
    for step in range(6):
        expected = 1.0 + 0.5 * min(step, 4)
        assert loss.weights["part1"] == expected
        for train in (False, False, True):
            logs = log_of_steps(model, VALUES[step : step + 1, :2], train)
            close(logs["part1_weight"], [expected])
            close(logs["loss"], VALUES[step : step + 1, :2] @ [1.0, expected])
            # With the weights at the end of the schedule, however far it is.
            close(logs["base_loss"], VALUES[step : step + 1, :2] @ [1.0, 3.0])
        assert "part0_weight" not in logs


def test_a_schedule_and_a_rule_multiply():
    c = np.array([[1.0, min(1.0 + 0.5 * step, 3.0)] for step in range(8)])
    _, model = model_of_parts(2, [1.0, LinearRamp(4, 1.0, 3.0)], GeometricMean())
    logs = log_of_steps(model, VALUES[:, :2])
    raw = run(GeometricMean(), VALUES[:, :2])
    close(np.stack([logs["part0_weight"], logs["part1_weight"]], axis=1), c * raw)
    close(logs["loss"], (c * raw * VALUES[:, :2]).sum(axis=1))


def test_the_average_follows_a_schedule():
    c = np.array([[1.0, min(1.0 + 0.5 * step, 3.0)] for step in range(8)])
    _, model = model_of_parts(2, [1.0, LinearRamp(4, 1.0, 3.0)], Average())
    logs = log_of_steps(model, VALUES[:, :2])
    close(logs["loss"], (c * VALUES[:, :2]).sum(axis=1) / c.sum(axis=1))


def test_a_weight_that_is_set_ends_a_schedule_and_stays_under_a_rule():
    loss, model = model_of_parts(2, {"part1": LinearRamp(4)})
    log_of_steps(model, VALUES[:2, :2])
    loss.set_weight("part1", 5.0)
    logs = log_of_steps(model, VALUES[2:5, :2])
    close(logs["loss"], VALUES[2:5, :2] @ [1.0, 5.0])
    loss, model = model_of_parts(2, None, GeometricMean())
    log_of_steps(model, VALUES[:2, :2])
    loss.set_weight("part1", 5.0)
    logs = log_of_steps(model, VALUES[2:5, :2])
    expected = np.array([1.0, 5.0]) * run(GeometricMean(), VALUES[2:5, :2])
    close(logs["loss"], (expected * VALUES[2:5, :2]).sum(axis=1))


def test_only_the_total_that_is_trained_has_a_gradient():
    """The slope of the total by the predictions is sum c w dl, with w constant."""
    x, y = np.array([[1.0], [2.0]], "float32"), np.array([[3.0], [1.0]], "float32")
    loss = cl.CompositeLoss(["mse", "mae"], weights=[2.0, 1.0], weighting=GeometricMean())
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = cl.Sequential([keras.Input((1,)), dense])
    model.compile(keras.optimizers.SGD(1.0), loss=loss)
    model.train_on_batch(x, y)
    errors = -y[:, 0].astype("float64")
    parts_of = np.array([np.mean(errors**2), np.mean(np.abs(errors))])
    w = np.array([2.0, 1.0]) * np.sqrt(parts_of.prod()) / (2 * parts_of)
    slopes = np.array([np.mean(2 * errors * x[:, 0]), np.mean(np.sign(errors) * x[:, 0])])
    close(frozen(model), [-(w @ slopes)])


# Weight 0 and NaN.


@every_rule
def test_a_component_of_weight_0_contributes_neither_value_nor_nan(cls):
    values = VALUES.copy()
    values[:, 1] = np.nan
    _, model = model_of_parts(3, [2.0, 0.0, 1.0], PLAIN[cls]())
    before = frozen(model)
    logs = log_of_steps(model, values[:4])
    assert np.all(np.isfinite(logs["loss"])) and np.all(np.isfinite(logs["base_loss"]))
    np.testing.assert_array_equal(frozen(model), before)
    for variable in model.variables:
        if "combined_losses" not in variable.path:  # the metrics, which show the NaN
            assert np.all(np.isfinite(ops.convert_to_numpy(variable.value))), variable.path


@pytest.mark.parametrize("form", ["fixed", "scheduled", "set"])
def test_the_gradient_of_a_component_of_weight_0_is_0(form):
    """Also where it would be NaN."""

    def bad(y_true, y_pred):
        return ops.sqrt(y_pred[:, 0] - y_pred[:, 0])  # 0, of an infinite slope

    weight = LinearRamp(10, 0.0, 0.0) if form == "scheduled" else 0.0 if form == "fixed" else 1.0
    for rule in (None, MagnitudeBalance(), RandomWeighting(), UncertaintyWeighting()):
        loss = cl.CompositeLoss({"a": "mse", "bad": bad}, {"bad": weight}, rule)
        model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", loss=loss)
        if form == "set":
            loss.set_weight("bad", 0.0)
        logs = model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)), return_dict=True)
        assert np.isfinite(logs["loss"]) and np.all(np.isfinite(frozen(model)))


@pytest.mark.parametrize(
    "make",
    [lambda: Worst(reference=9.0), lambda: Worst(0.5), lambda: UncertaintyWeighting("revised")],
    ids=["worst", "smooth worst", "revised"],
)
def test_the_total_does_not_count_a_component_of_weight_0(make):
    """As if it were not there."""
    logs = log_of_steps(model_of_parts(3, [2.0, 0.0, 1.0], make())[1], VALUES[:1])
    alone = log_of_steps(model_of_parts(2, [2.0, 1.0], make())[1], VALUES[:1][:, [0, 2]])
    close(logs["loss"], alone["loss"], rtol=1e-5)


@every_rule
@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_the_total_stays_nan_where_a_component_that_counts_is(cls, bad):
    """So that `TerminateOnNaN` sees it; the weights are those of the others."""
    values = VALUES[:5].copy()
    values[2, 1] = bad
    _loss, model = model_of_parts(3, None, PLAIN[cls]())
    logs = log_of_steps(model, values)
    if cls is UncertaintyWeighting:  # whose log-variances are trained on the total
        assert not np.isfinite(logs["loss"][2])
        return
    assert np.isfinite(logs["loss"]).tolist() == [True, True, False, True, True]
    assert logs["part1_weight"][2] > 0  # the log does not deny why
    for key in ("part0_weight", "part2_weight"):
        assert np.all(np.isfinite(logs[key]))


# Operators and wrappers.


@pytest.mark.parametrize("kind", ["rule", "schedule"])
def test_operators_do_not_take_it_apart(kind):
    loss = MOVING[kind]()
    for summed in (0.5 * loss + cl.as_loss("mape"), cl.as_loss("mape") + loss * 0.5):
        assert set(summed.names) == {"composite_loss", "mape"}
        assert summed.losses["composite_loss"] is loss
        assert summed.weights == {"composite_loss": 0.5, "mape": 1.0}


def test_operators_take_apart_what_only_holds_such_a_composite():
    loss = MOVING["inside"]()
    summed = 0.5 * loss + cl.as_loss("mae")
    assert summed.names == ("in", "mape", "mae")
    assert summed.losses["in"] is loss.losses["in"]
    assert summed.weights == {"in": 0.5, "mape": 0.5, "mae": 1.0}


def test_operators_keep_a_rule_as_one_component():
    loss = MOVING["rule"]()
    for summed in (0.5 * loss, loss * 0.5, loss / 2):
        assert summed.losses == {"composite_loss": loss}
        assert summed.weights == {"composite_loss": 0.5}
        assert summed._node.moves
    summed = sum([loss, cl.as_loss("mape")])
    assert summed.names == ("composite_loss", "mape")
    assert "composite_loss/mse" in summed.component_names


def test_a_rule_inside_trains_inside():
    """The total is that of the inner one times its weight, plus the others."""
    values = VALUES.copy()
    inner = cl.CompositeLoss(parts(2), [2.0, 1.0], GeometricMean())
    loss = cl.CompositeLoss({"in": inner, "out": part(2)}, {"in": 3.0})
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=loss)
    logs = log_of_steps(model, values)
    weights = np.array([2.0, 1.0]) * run(GeometricMean(), values[:, :2])
    close(logs["in/part0_weight"], weights[:, 0])
    total = (weights * values[:, :2]).sum(axis=1)
    close(logs["in_loss"], total, rtol=1e-5)
    close(logs["loss"], 3 * total + values[:, 2], rtol=1e-5)
    close(logs["in/base_loss"], values[:, :2] @ [2.0, 1.0], rtol=1e-5)


WRAPPERS = {
    "PerChannel": lambda loss: cl.wrappers.PerChannel(loss),
    "PerChannel of several": lambda loss: cl.wrappers.PerChannel([loss, "mse"]),
    "PerElement": lambda loss: cl.wrappers.PerElement(loss),
    "MultiScale": lambda loss: cl.wrappers.MultiScale(loss),
    "DeepSupervision": lambda loss: cl.wrappers.DeepSupervision(loss),
}


@every_moving
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_that_evaluates_several_times_refuses_it(wrap, make):
    with raises(ValueError, wrap.split()[0], "several times in a step", "Received:"):
        WRAPPERS[wrap](make())


@every_moving
def test_other_wrappers_take_it(make):
    for wrap in (
        lambda loss: cl.wrappers.OnSlice(loss, np.s_[:, 0:2]),
        lambda loss: cl.wrappers.Scaled(loss, 2.0),
    ):
        assert wrap(make()).moves


@every_moving
def test_a_composite_whose_weights_move_is_one_component_once(make):
    """As two components it would move twice in a step."""
    loss = make()
    with raises(ValueError, "weights that move", "Received:"):
        cl.CompositeLoss({"a": loss, "b": cl.wrappers.StopGradient(loss)})


# Configs and warnings.


@rules_but()
def test_its_config_comes_back_from_json(cls):
    loss = cl.CompositeLoss(
        {"a": "mse", "b": "mae", "c": "mape"},
        weights={"a": 0.5, "b": LinearRamp(8, end=0.25)},
        weighting=altered(cls),
        reduction="sum",
        name="mine",
    )
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert json.dumps(keras.saving.serialize_keras_object(loaded)) == text
    assert type(loaded.weighting) is cls and loaded.weighting is not loss.weighting
    assert loaded.weights == {"a": 0.5, "b": 0.0, "c": 1.0}


@every_moving
def test_outside_a_tracked_model_it_warns_once_and_does_not_move(make):
    loss = make()
    before = [ops.convert_to_numpy(v.value).copy() for v in loss.variables]
    first = quiet(loss, Y_TRUE, Y_PRED)
    assert value(loss, Y_TRUE, Y_PRED) == first  # a second warning would be an error
    for old, new in zip(before, loss.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new.value))


def test_the_warning_names_the_loss_and_the_way_out():
    loss = cl.CompositeLoss(["mse", "mae"], weighting=SoftAdapt(), name="mine")
    with pytest.warns(UserWarning, match=r"'mine'.*cl\.track\(model\)"):
        loss(Y_TRUE, Y_PRED)


def test_a_plain_keras_model_warns_once_and_trains_with_the_weights_as_they_are():
    x, y = np.ones((4, 1), "float32"), np.full((4, 1), 3.0, "float32")
    loss = cl.CompositeLoss(["mse", "mae"], [2.0, 1.0], SoftAdapt())
    dense = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    with pytest.warns(UserWarning, match="here they stay as they are") as caught:
        history = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    ours = [w for w in caught if "here they stay" in str(w.message)]
    assert len(ours) == 1
    # Equal weights of a rule that sums to one.
    assert history["loss"] == pytest.approx([2 * 9 / 2 + 3 / 2] * 2)


def test_a_tracked_model_does_not_warn():
    _, model = model_of_parts(2, None, SoftAdapt())
    log_of_steps(model, VALUES[:2, :2])
    log_of_steps(model, VALUES[:2, :2], train=False)


def test_its_components_can_be_had_by_hand():
    loss = MOVING["rule"]()
    found = loss.components(Y_TRUE, Y_PRED)
    assert {name: float(v) for name, v in found.items()} == pytest.approx(
        {"mse": np.mean((Y_TRUE - Y_PRED) ** 2), "mae": np.mean(np.abs(Y_TRUE - Y_PRED))}
    )
