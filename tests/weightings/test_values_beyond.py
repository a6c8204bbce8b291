"""Values that a rule is not made for: at or below its bound."""

import contextlib
import inspect
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    FAMO,
    DynamicWeightAverage,
    GeometricMean,
    GradNorm,
    ReLoBRaLo,
    Smoothed,
    SoftAdapt,
    UncertaintyWeighting,
    Weighting,
)
from tests.messages import raises
from tests.weightings import gradients, rules
from tests.weightings.parts import log_of_steps, model_of_parts
from tests.weightings.rules import close, losses, run, state_of

BOUNDED = {
    "DynamicWeightAverage": lambda **kw: DynamicWeightAverage(period=1, **kw),
    "ReLoBRaLo": lambda **kw: ReLoBRaLo(alpha=0.5, rho=0.5, seed=3, **kw),
    "GeometricMean": GeometricMean,
    "FAMO": FAMO,
    "GradNorm": GradNorm,
}
WITHOUT_BOUND = {
    "SoftAdapt": lambda: SoftAdapt(loss_weighted=True),
    "UncertaintyWeighting": lambda: UncertaintyWeighting(learning_rate=0.1),
}
ALL = {**BOUNDED, **WITHOUT_BOUND}
each_bounded = pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)
each = pytest.mark.parametrize("make", ALL.values(), ids=ALL)

GOOD = losses(steps=6, k=2)
BAD = np.stack([GOOD[:, 0], -5 - np.arange(6)], axis=1).astype("float32")  # a loss as SI-SDR is


@pytest.mark.backend_free
def test_every_rule_with_a_bound_is_here():
    all_rules = rules.RULE_CLASSES | gradients.GRAMIAN_CLASSES
    assert {
        cls.__name__ for cls in all_rules if cls.beyond is not cl.weightings.Weighting.beyond
    } == set(ALL)
    bounded = [make() for make in BOUNDED.values()]
    assert all(rule.lower_bound == 0 for rule in bounded)


def part(index):
    """A component with the value of a column of the targets, and a gradient of 1."""

    def value(y_true, y_pred):
        return y_true[:, index] + y_pred[:, index] - ops.stop_gradient(y_pred[:, index])

    return value


def trained(rule, values):
    parts = {f"part{i}": part(i) for i in range(values.shape[1])}
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(len(parts))])
    model.compile(keras.optimizers.SGD(0.1), loss=cl.CompositeLoss(parts, weighting=rule))
    log_of_steps(model, values)
    return model


@contextlib.contextmanager
def one_warning(*said):
    """The block warns once, and with these words."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    found = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert len(found) == 1, found
    for words in said:
        assert words in found[0]


@each
def test_one_warning_says_what_is_wrong_and_what_to_do(make):
    rule = make()
    name = type(rule).__name__
    said = "made for values above 0", name, "'composite_loss'", "Received: -5 of 'part1'"
    with one_warning(*said, rule.cure):
        model = trained(rule, BAD)
        log_of_steps(model, BAD)
    takes_bound = "lower_bound" in inspect.signature(type(rule)).parameters
    assert ("`lower_bound`" in rule.cure) == takes_bound


@each
def test_good_values_and_validation_are_passed_over(make):
    model = trained(make(), GOOD)
    log_of_steps(model, BAD, train=False)


@each_bounded
def test_the_cure_cures(make):
    trained(make(lower_bound=-20.0), BAD)


def test_fit_warns_at_the_end_of_the_epoch_in_which_it_happens():
    """And once, of a value that came late."""
    loss, model = model_of_parts(2, weighting=ReLoBRaLo(seed=0))
    x, y = np.ones((4, 1), "float32"), np.array([[1, 1], [1, 1], [1, -2], [1, 1]], "float32")
    with one_warning("-2 of 'part1'"):
        model.fit(x, y, batch_size=1, shuffle=False, epochs=3, verbose=0)
    assert "values" in loss.weighting.settled_warnings


def test_a_rule_inside_is_found():
    inside = cl.CompositeLoss({"a": part(0), "b": part(1)}, weighting=FAMO(), name="in")
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=cl.CompositeLoss({"in": inside, "mse": "mse"}))
    with pytest.warns(UserWarning, match=r"FAMO, the weighting of 'in'.*-1 of 'b'"):
        log_of_steps(model, np.array([[1.0, -1.0]]))


def test_a_smoothed_rule_warns_as_the_rule():
    with pytest.warns(UserWarning, match=r"ReLoBRaLo, the weighting of.*-5 of 'part1'"):
        trained(Smoothed(ReLoBRaLo(seed=0)), BAD)


def test_a_zero_is_said_where_it_has_no_logarithm_and_where_it_stays_a_denominator():
    zero = GOOD.copy()
    zero[2, 1] = 0.0
    for make in (GeometricMean, FAMO):
        with pytest.warns(UserWarning, match="0 of 'part1'"):
            trained(make(), zero)
    for make in (BOUNDED["ReLoBRaLo"], GradNorm, SoftAdapt, WITHOUT_BOUND["UncertaintyWeighting"]):
        trained(make(), zero)
    zero[0, 1] = 0.0
    with pytest.warns(UserWarning, match="0 of 'part1'"):
        trained(BOUNDED["ReLoBRaLo"](), zero)
    zero[:, 1] = 0.0
    with pytest.warns(UserWarning, match="0 of 'part1'"):
        trained(BOUNDED["DynamicWeightAverage"](), zero)


# What becomes of such values.


def test_a_component_below_the_bound_keeps_its_part():
    """It was driven to weight 0, or preferred for getting better."""
    improving = np.stack([np.ones(8), -1.0 * 2 ** np.arange(8)], axis=1).astype("float32")
    for make in (BOUNDED["DynamicWeightAverage"], BOUNDED["ReLoBRaLo"]):
        close(run(make(), improving), np.ones((8, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", ["DynamicWeightAverage", "ReLoBRaLo"])
def test_one_that_crosses_the_bound_is_weighed_above_it_alone(name):
    values = losses(steps=12, k=2)
    values[6:, 1] = -1.0
    weights = run(BOUNDED[name](), values)
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    close(weights.sum(axis=1), np.full(12, 2.0), rtol=1e-5)
    assert np.all(weights[8:, 1] > 0.05)


@each_bounded
def test_measured_from_the_bound_values_are_those_of_another_origin(make):
    values = losses(steps=8, k=3)
    if make is GradNorm:
        rows = gradients.samples("plain", 3, 8)
        found = gradients.run(make(lower_bound=-3), rows, values - 3)
        expected = gradients.run(make(), rows, values)
    else:
        found, expected = run(make(lower_bound=-3), values - 3), run(make(), values)
    close(found, expected, rtol=1e-3)


def test_learned_weights_of_lengths_take_values_below_the_bound_as_they_are():
    """As of one that stays as it is."""
    rows = gradients.samples("plain", 2, 5)
    values = np.stack([np.ones(5), -1.0 - np.arange(5)], axis=1)
    found = gradients.run(GradNorm(), rows, values)
    np.testing.assert_allclose(found, gradients.run(GradNorm(), rows, np.ones((5, 2))), rtol=1e-5)


def test_an_older_file_without_the_note_is_read():
    rule, other = ReLoBRaLo(seed=0), ReLoBRaLo(seed=0)
    run(rule, GOOD)
    store = {}
    rule.save(store)
    del store["beyond"], store["value_beyond"]
    other.build(2)
    other.load(store)
    for one, two in zip(state_of(rule), state_of(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_rule_of_ones_own_may_have_a_bound():
    class Inverse(Weighting):
        cure = "take another loss"

        def beyond(self, values, state):
            return values < 1

        def rule(self, values, state, active):
            return 1 / ops.maximum(values, 1.0)

    with pytest.warns(UserWarning, match=r"Inverse, .*take another loss. Received: 0.5 of 'part0'"):
        trained(Inverse(), np.array([[0.5, 2.0]]))
    trained(Inverse(), np.array([[1.5, 2.0]]))


@pytest.mark.backend_free
@each_bounded
def test_a_bound_is_a_number(make):
    with raises(ValueError, "`lower_bound`", "a finite number", "Received: 'a'"):
        make(lower_bound="a")
