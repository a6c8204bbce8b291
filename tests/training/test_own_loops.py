"""Weights that move in loops of the user's: `training_step()`, `end_epoch()`, `train_on_batch`."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses import weightings as w
from tests.messages import raises
from tests.training.own_loops import LOOPS
from tests.training.tiny import FROZEN, arrays, line, sgd, weights_of

BACKEND = keras.backend.backend()
CHILDREN = ["mse", "mae"]
Y_TRUE, Y_PRED = np.array([[2.0], [1.0]], "float32"), np.zeros((2, 1), "float32")
every_loop = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)


def batches(samples=12, size=4):
    x, y = arrays(samples)
    y = (y * np.linspace(0.5, 2.0, samples)[:, None]).astype("float32")
    return [(x[i : i + size], y[i : i + size]) for i in range(0, samples, size)]


def number(loss, y_true, y_pred):
    return float(ops.convert_to_numpy(loss(y_true, y_pred)))


def state_of(loss):
    return [ops.convert_to_numpy(v.value).copy() for v in loss.variables]


def assert_same_state(loss, other, rtol=1e-4):
    for found, expected in zip(state_of(loss), state_of(other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def of_two(weighting=None, weights=None):
    return cl.CompositeLoss(CHILDREN, weights, weighting)


def of_all():
    """A composite of composites whose weights move in every way that needs no gradients."""
    rules = {
        "values": w.MagnitudeBalance(momentum=0.75),
        "drawn": w.RandomWeighting(seed=3),
        "learned": w.UncertaintyWeighting(),
    }
    inner = {name: of_two(rule) for name, rule in rules.items()}
    inner["ramp"] = of_two(weights={"mae": w.LinearRamp(10)})
    return cl.CompositeLoss(inner, weights={"values": w.LinearRamp(4, 1.0, 2.0)})


def trained(loss, data, loop=None):
    """The weights of a model after training, in a loop or by `train_on_batch`."""
    model, optimizer = line(cl.Sequential), sgd(0.01)
    if loop is None:
        model.compile(optimizer, loss=loss, run_eagerly=BACKEND == "tensorflow")  # it is faster
        for x, y in data:
            model.train_on_batch(x, y)
    else:
        loop(model, loss, optimizer, data)
    return weights_of(model)[:4]  # those of the network


@every_loop
@pytest.mark.parametrize(
    "make", [of_all, lambda: of_two(w.InverseGradientNorm())], ids=["all", "gradients"]
)
def test_a_loop_does_what_the_steps_of_a_model_do(loop, make):
    loss, expected = make(), make()
    np.testing.assert_allclose(
        trained(loss, batches(), loop), trained(expected, batches()), rtol=1e-4
    )
    assert_same_state(loss, expected)


def test_one_block_is_one_step_however_often_the_loss_is_called():
    once, often = of_all(), of_all()
    for _ in range(3):
        with once.training_step():
            first = number(once, Y_TRUE, Y_PRED)
        with often.training_step():
            assert number(often, Y_TRUE, Y_PRED) == pytest.approx(first)
            often(Y_TRUE, Y_PRED + 5)
            often(Y_TRUE, Y_PRED - 7)
        assert_same_state(often, once, rtol=1e-6)


def test_all_calls_of_a_step_have_the_same_scheduled_weights():
    loss = of_two(w.Average(), {"mae": w.LinearRamp(2, start=1.0, end=3.0)})
    for c in (1.0, 2.0, 3.0, 3.0):
        with loss.training_step():
            found = [number(loss, Y_TRUE, Y_PRED) for _ in range(3)]
        assert found == pytest.approx([(2.5 + c * 1.5) / (1 + c)] * 3)


def test_calls_outside_of_the_block_move_nothing_and_need_no_warning():
    loss = of_all()
    with loss.training_step():
        loss(Y_TRUE, Y_PRED)
    before = state_of(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loss(Y_TRUE, Y_PRED + 3)
        loss.components(Y_TRUE, Y_PRED + 3)
    for old, new in zip(before, state_of(loss), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_block_of_a_loss_moves_no_other_one():
    loss, other = of_all(), of_two(w.MagnitudeBalance())
    before = state_of(other)
    with loss.training_step(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other(Y_TRUE, Y_PRED)
    with loss.training_step(), other.training_step():  # both in one
        loss(Y_TRUE, Y_PRED)
    for old, new in zip(before, state_of(other), strict=True):
        np.testing.assert_array_equal(old, new)
    with other.training_step(), loss.training_step():
        other(Y_TRUE, Y_PRED)
    assert any(np.any(old != new) for old, new in zip(before, state_of(other), strict=True))


def test_a_wrapper_around_a_composite_has_steps_too():
    loss = cl.wrappers.OnSlice(of_two(weights={"mae": w.LinearRamp(2)}), np.s_[:, 0:1])
    for expected in (2.5, 2.5 + 0.5 * 1.5, 2.5 + 1.5):
        with loss.training_step():
            assert number(loss, Y_TRUE, Y_PRED) == pytest.approx(expected)


def test_after_an_error_in_the_block_the_next_step_is_a_whole_one():
    loss = of_two(weights={"mae": w.LinearRamp(2)})
    with pytest.raises(RuntimeError), loss.training_step():
        raise RuntimeError
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert number(loss, Y_TRUE, Y_PRED) == pytest.approx(2.5)  # outside
    with loss.training_step():
        loss(Y_TRUE, Y_PRED)
    assert loss.weights["mae"] == 0.5


def test_outside_a_warning_names_the_block():
    with pytest.warns(UserWarning, match=r"cl\.Model.*with loss\.training_step\(\):"):
        of_two(weights={"mae": w.LinearRamp(2)})(Y_TRUE, Y_PRED)


@pytest.mark.parametrize("place", ["parameters", "trunk"])
def test_gradients_of_the_network_need_a_step_of_a_model(place):
    loss = of_two(w.UPGrad(gradients=place))
    said = (
        "'composite_loss'",
        "train_on_batch",
        "gradients='output'",
        f"Received: gradients={place!r}",
    )
    with raises(ValueError, *said), loss.training_step():
        loss(Y_TRUE, Y_PRED)


def test_whole_numbers_cannot_be_trained():
    loss = of_two()
    with raises(ValueError, "floating point in training", "int32"), loss.training_step():
        loss(Y_TRUE, Y_PRED.astype("int32"))


def test_learned_weights_are_the_trainable_variables():
    learned, rest = of_two(w.UncertaintyWeighting()), of_all()
    assert [v.name for v in learned.trainable_variables] == ["weighting_log_variances"]
    for loss in (learned, rest):
        both = [*loss.trainable_variables, *loss.non_trainable_variables]
        assert {id(v) for v in both} == {id(v) for v in loss.variables}
        assert len(both) == len(loss.variables)
    assert of_two().trainable_variables == []


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX keeps state outside of variables")
def test_a_compiled_step_that_is_not_given_the_state_is_an_error():
    import jax

    loss = of_two(w.MagnitudeBalance())

    @jax.jit
    def step(y_pred):
        with loss.training_step():
            return loss(Y_TRUE, y_pred)

    with raises(ValueError, "loss.variables", "keras.StatelessScope", "Received: "):
        step(Y_PRED)
    constant = of_two()  # of which nothing moves

    @jax.jit
    def constant_step(y_pred):
        with constant.training_step():
            return constant(Y_TRUE, y_pred)

    assert float(constant_step(Y_PRED)) == pytest.approx(4.0)


# Ends of epochs.


def test_an_epoch_of_train_on_batch_is_one_of_fit():
    """Without `end_epoch` its weights stay as they are."""
    x, y = arrays(12)
    seen = []
    for ends in (True, False, None):
        loss = of_two(w.DynamicWeightAverage(temperature=0.1))
        model = line(cl.Sequential)
        model.compile(sgd(0.05), loss=loss)
        if ends is None:
            model.fit(x, y, batch_size=4, epochs=4, shuffle=False, verbose=0)
        for _ in range(0 if ends is None else 4):
            for i in range(0, 12, 4):
                model.train_on_batch(x[i : i + 4], y[i : i + 4])
            if ends:
                loss.end_epoch()
        seen.append(ops.convert_to_numpy(loss.weighting.weigh(training=False)))
    np.testing.assert_allclose(seen[0], seen[2], rtol=1e-4)
    assert seen[1].tolist() == [1.0, 1.0] and np.ptp(seen[0]) > 1e-3


@every_loop
def test_an_epoch_of_a_loop_is_one_of_train_on_batch(loop):
    losses = [of_two(w.DynamicWeightAverage(temperature=0.1)) for _ in range(2)]
    models = [line(cl.Sequential) for _ in losses]
    models[1].compile(sgd(0.01), loss=losses[1])
    for _ in range(3):
        loop(models[0], losses[0], sgd(0.01), batches())
        for batch in batches():
            models[1].train_on_batch(*batch)
        for loss in losses:
            loss.end_epoch()
    assert_same_state(*losses)


class OwnByEpochs(w.Weighting):
    """A rule of a user's."""

    def rule(self, values, state, active):
        return ops.ones_like(values)

    def end_epoch(self):
        pass


def model_with(loss):
    model = line(cl.Sequential, features=1)
    model.compile(sgd(FROZEN), loss=loss)
    return model


def warnings_of(loss, steps, end=None, loop=False):
    """Pairs of a step and the text of a warning that it gives, for steps outside `fit`."""
    model, found = model_with(loss), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, steps + 1):
            if loop:
                with loss.training_step():
                    loss(Y_TRUE, Y_PRED)
            else:
                model.train_on_batch(Y_PRED, Y_TRUE)
            if end and step % end == 0:
                loss.end_epoch()
            found += [(step, str(c.message)) for c in caught if "an epoch" in str(c.message)]
            caught.clear()
    return found


@pytest.fixture
def little_patience(monkeypatch):
    monkeypatch.setattr("combined_losses.composite.weights.PATIENCE", 4)


@pytest.mark.parametrize("loop", [False, True], ids=["train_on_batch", "training_step"])
@pytest.mark.parametrize("place", ["alone", "smoothed", "inside"])
def test_a_rule_that_waits_for_an_epoch_says_so_once(place, loop, little_patience):
    rule = w.DynamicWeightAverage()
    loss = of_two(w.Smoothed(rule) if place == "smoothed" else rule)
    loss = cl.CompositeLoss({"in": loss}) if place == "inside" else loss
    ((step, said),) = warnings_of(loss, 9, loop=loop)
    assert step == 4
    for part in ("DynamicWeightAverage", "`period=`", "`loss.end_epoch()`", "Received: 4 steps"):
        assert part in said


def test_a_rule_of_the_users_that_goes_by_epochs_says_so_too(little_patience):
    ((_, said),) = warnings_of(of_two(OwnByEpochs()), 6)
    assert "OwnByEpochs" in said and "end_epoch" in said and "period" not in said


@pytest.mark.parametrize("end, rule", [(3, w.DynamicWeightAverage), (None, w.SoftAdapt)])
def test_a_rule_that_waits_for_nothing_is_silent(end, rule, little_patience):
    assert warnings_of(of_two(rule()), 9, end) == []
    assert warnings_of(of_two(w.DynamicWeightAverage(period=2)), 9) == []


def test_fit_ends_epochs_by_itself(little_patience):
    model = model_with(of_two(w.DynamicWeightAverage()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.tile(Y_PRED, (4, 1)), np.tile(Y_TRUE, (4, 1)), batch_size=1, verbose=0)


@pytest.mark.parametrize("rule", [w.UncertaintyWeighting, w.GeometricMean])
def test_a_loop_hears_of_values_that_a_rule_is_not_made_for(rule):
    loss = cl.CompositeLoss({"below": lambda y, p: p[:, 0] - 1, "mse": "mse"}, weighting=rule())
    with pytest.warns(UserWarning, match="'below'"), loss.training_step():
        loss(Y_TRUE, Y_PRED)


def test_a_loop_hears_of_a_conflict_that_cannot_be_seen():
    parts = [cl.wrappers.OnSlice(keras.losses.MeanSquaredError(), np.s_[:, i]) for i in range(2)]
    loss = cl.CompositeLoss({"a": parts[0], "b": parts[1]}, weighting=w.UPGrad())
    y_true, y_pred = np.ones((3, 2), "float32"), np.zeros((3, 2), "float32")
    with pytest.warns(UserWarning, match="cannot see a conflict"), loss.training_step():
        loss(y_true, y_pred)


# Losses inside a composite whose rule reads gradients.


def test_a_schedule_inside_is_at_one_step_for_value_and_gradient():
    """On some backends each part is evaluated again for its gradient, at the same step."""
    ramp = w.LinearRamp(2, start=0.5, end=4.0)
    inner = of_two(weights={"mae": ramp})
    loss = cl.CompositeLoss({"in": inner, "mae": "mae"}, weighting=w.InverseGradientNorm())
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(sgd(FROZEN), loss=loss)
    for step in range(3):
        model.reset_metrics()
        logs = model.train_on_batch(Y_PRED, Y_TRUE, return_dict=True)
        error = Y_TRUE - 0.5
        slope = 2 * error + float(ramp(step)) * np.sign(error)
        expected = np.linalg.norm(np.sign(error)) / np.linalg.norm(slope)
        assert logs["in_weight"] / logs["mae_weight"] == pytest.approx(expected, rel=1e-4)


def test_fit_ends_the_epochs_of_a_loss_whose_class_overrides_that():
    class Counting(cl.CompositeLoss):
        ended = 0

        def end_epoch(self):
            self.ended += 1
            super().end_epoch()

    loss = Counting(["mse", "mae"], weighting=cl.weightings.DynamicWeightAverage())
    model, (x, y) = line(), arrays()
    model.compile("sgd", loss=loss)
    model.fit(x, y, epochs=3, verbose=0)
    assert loss.ended == 3
