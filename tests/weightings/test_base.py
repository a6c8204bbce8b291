"""What every rule has from its base: options, state, configs; and rules of one's own."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    Average,
    GeometricMean,
    MagnitudeBalance,
    RandomWeighting,
    Smoothed,
    SoftAdapt,
    UncertaintyWeighting,
    Weighting,
    Worst,
)
from tests.messages import raises
from tests.weightings.parts import log_of_steps, model_of_parts
from tests.weightings.rules import (
    COMMON,
    OWN,
    PLAIN,
    RULE_CLASSES,
    altered,
    assert_same_state,
    close,
    every_rule,
    losses,
    rules_but,
    run,
    run_with_terms,
    state_of,
    weights_of,
)

VALUES = losses()


@pytest.mark.backend_free
def test_every_rule_is_among_them():
    assert set(PLAIN) == RULE_CLASSES == set(OWN)


# Options of all rules.


def equal_weight(cls, k=3):
    return 1 / k if PLAIN[cls]().sums_to_one else 1.0


@every_rule
def test_a_warm_up_has_equal_weights_and_learns(cls):
    """Afterwards the weights are those of a rule without it."""
    weights = run(PLAIN[cls](warmup=5), VALUES)
    close(weights[:5], np.full((5, 3), equal_weight(cls)))
    if cls is UncertaintyWeighting:  # trained by the optimizer: see test_rules
        return
    close(weights[5:], run(PLAIN[cls](), VALUES)[5:])


@every_rule
@pytest.mark.parametrize("total", ["k", 2.5])
def test_a_warm_up_has_the_total_too(cls, total):
    weights = run(PLAIN[cls](warmup=5, total=total), VALUES)
    close(weights[:5], np.full((5, 3), 1.0 if total == "k" else total / 3))


@every_rule
@pytest.mark.parametrize("warmup", [0, 2])
def test_every_third_step_gives_new_weights(cls, warmup):
    """What is remembered moves in every step: they are those of a rule that never pauses."""
    every = run(PLAIN[cls](), VALUES)
    weights = run(PLAIN[cls](update_every=3, warmup=warmup), VALUES)
    for step in range(warmup, len(VALUES)):
        close(weights[step], every[step - (step - warmup) % 3])


@every_rule
@pytest.mark.parametrize("total", ["k", 3, 0.5, 1e4])
def test_weights_are_rescaled_to_a_total(cls, total):
    raw = run(PLAIN[cls](), VALUES)
    size = 3 if total == "k" else total
    close(run(PLAIN[cls](total=total), VALUES), raw * size / raw.sum(axis=1, keepdims=True))


@every_rule
def test_weights_are_kept_between_caps(cls):
    raw = run(PLAIN[cls](), VALUES)
    low, high = np.quantile(raw, [0.3, 0.7]).tolist()
    close(run(PLAIN[cls](min_weight=low), VALUES), np.maximum(raw, low))
    close(run(PLAIN[cls](max_weight=high), VALUES), np.minimum(raw, high))
    both = run(PLAIN[cls](min_weight=low, max_weight=high), VALUES)
    close(both, np.clip(raw, low, high))


@every_rule
def test_caps_come_after_the_total(cls):
    raw = run(PLAIN[cls](), VALUES)
    scaled = raw * 6 / raw.sum(axis=1, keepdims=True)
    close(run(PLAIN[cls](total=6, max_weight=2.0), VALUES), np.minimum(scaled, 2.0))


@every_rule
def test_a_component_that_is_missing_has_weight_0_whatever_the_options(cls):
    values = VALUES.copy()
    values[3::4, 0] = np.nan
    options = {"min_weight": 0.05, "max_weight": 2.0, "update_every": 2, "total": "k", "warmup": 5}
    for chosen in ([name] for name in options):
        given = {name: options[name] for name in chosen}
        weights = run(PLAIN[cls](**given), values)
        np.testing.assert_array_equal(weights[3::4, 0], 0)
        assert np.all(np.isfinite(weights))
        if chosen == ["total"]:
            close(weights.sum(axis=1), np.isfinite(values).sum(axis=1), rtol=1e-5)


@every_rule
def test_between_two_updates_a_component_that_was_missing_comes_back(cls):
    """With the weight that it had."""
    values = VALUES[:4].copy()
    values[2, 0] = np.nan
    weights = run(PLAIN[cls](update_every=4), values)
    assert weights[2, 0] == 0
    close(weights[3], weights[1])


@every_rule
def test_in_the_warm_up_a_component_that_is_missing_counts_as_absent(cls):
    values = VALUES[:4].copy()
    values[:, 0] = np.nan
    alone = run(PLAIN[cls](warmup=5), VALUES[:4, 1:])
    close(run(PLAIN[cls](warmup=5), values)[:, 1:], alone)


def test_a_component_that_falls_to_zero_by_itself_does_not_take_all():
    values = np.stack([np.geomspace(1, 1e-20, 30), np.ones(30)], axis=1).astype("float32")
    for cls in (MagnitudeBalance, GeometricMean):
        make = {MagnitudeBalance: lambda **kw: MagnitudeBalance(momentum=0.5, **kw)}.get(cls, cls)
        assert run(make(), values)[-1, 0] > 1e3
        assert run(make(max_weight=5.0), values).max() <= 5.0


# State.


@every_rule
def test_without_training_nothing_moves(cls):
    """Neither in `weigh` nor in `step`; whatever the values."""
    rule = PLAIN[cls]()
    run(rule, VALUES[:9])
    before = state_of(rule)
    for values in (VALUES[9], np.full(3, np.nan, "float32"), np.zeros(3, "float32")):
        weights_of(rule, values, training=False)
        rule.step(ops.convert_to_tensor(values), False)
    assert_same_state(before, state_of(rule))


@every_rule
def test_without_training_a_rule_that_remembers_gives_its_last_weights(cls):
    rule = PLAIN[cls]()
    last = run(rule, VALUES[:9])[-1]
    found = weights_of(rule, VALUES[9], training=False)
    if "history" in rule.needs or not rule.needs:
        close(found, last)
    else:  # those of the given values
        close(found, weights_of(built(cls), VALUES[9]))


def built(cls):
    rule = PLAIN[cls]()
    rule.build(3)
    return rule


@every_rule
def test_looking_at_weights_between_steps_changes_no_sequence(cls):
    rule = PLAIN[cls]()
    rule.build(3)
    found = []
    for row in VALUES:
        weights_of(rule, row[::-1].copy(), training=False)
        found.append(weights_of(rule, row))
    close(np.array(found), run(PLAIN[cls](), VALUES))


@every_rule
def test_before_the_first_step_the_weights_are_equal(cls):
    rule = built(cls)
    if "history" in rule.needs or not rule.needs:
        expected = 0.5 if cls is UncertaintyWeighting else equal_weight(cls)
        close(weights_of(rule, VALUES[0], training=False), np.full(3, expected))


@every_rule
def test_reset_starts_over(cls):
    rule = PLAIN[cls]()
    rule.build(3)
    before = state_of(rule)
    first = run(rule, VALUES)
    rule.reset()
    assert_same_state(before, state_of(rule))
    np.testing.assert_array_equal(run(rule, VALUES), first)


@every_rule
def test_its_state_is_variables_of_float32_and_a_saved_one_goes_on(cls):
    rule, other = PLAIN[cls](), PLAIN[cls]()
    run(rule, VALUES[:9])
    for variable in rule.variables:
        is_draw = "seed" in variable.name or variable.dtype.startswith(("uint", "int"))
        assert variable.dtype == "float32" or is_draw
        assert tuple(variable.shape) in ((), (3,), (2,))
    store = {}
    rule.save(store)
    other.build(3)
    other.load(store)
    assert_same_state(state_of(rule), state_of(other))
    np.testing.assert_array_equal(run(rule, VALUES[9:]), run(other, VALUES[9:]))


@every_rule
def test_weights_are_float32_also_under_mixed_precision(half_precision, cls):
    rule = built(cls)
    weights = rule.weigh(values=ops.convert_to_tensor(VALUES[0], dtype="float16"))
    again = [rule.weigh(values=ops.cast(row, "float32")) for row in VALUES[1:3]]
    for found in (weights, *again):
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert np.all(np.isfinite(ops.convert_to_numpy(found)))


@every_rule
def test_a_rule_belongs_to_one_composite(cls):
    rule = PLAIN[cls]()
    cl.CompositeLoss(["mse", "mae"], weighting=rule)
    message = f"This {cls.__name__} weighs the components of another composite", "Received:"
    with raises(ValueError, *message):
        cl.CompositeLoss(["mse", "mae"], weighting=rule)
    with raises(ValueError, *message):
        rule.build(2)


def test_a_smoothed_rule_belongs_to_one_smoothing():
    inner = SoftAdapt()
    cl.CompositeLoss(["mse", "mae"], weighting=Smoothed(inner))
    with raises(ValueError, "This SoftAdapt weighs the components of another composite"):
        cl.CompositeLoss(["mse", "mae"], weighting=Smoothed(inner))


def test_a_composite_that_could_not_be_made_does_not_keep_the_rule():
    rule = SoftAdapt()
    with raises(ValueError, "reduction"):
        cl.CompositeLoss(["mse", "mae"], weighting=rule, reduction="none")
    assert cl.CompositeLoss(["mse", "mae"], weighting=rule).weighting is rule


# Configs.


@pytest.mark.backend_free
@every_rule
def test_its_config_has_every_argument(cls):
    rule = altered(cls)
    serialized = keras.saving.serialize_keras_object(rule)
    assert serialized["registered_name"] == f"combined_losses>{cls.__name__}"
    own = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "kwargs")]
    assert set(serialized["config"]) == {*own, *inspect.signature(Weighting).parameters}
    missing = set(own) - set(OWN[cls]) - set(COMMON) - {"weighting"}
    assert not missing, f"give {missing} a value off its default"
    plain = PLAIN[cls]().get_config()
    assert all(plain[name] != value for name, value in serialized["config"].items())


@every_rule
def test_its_config_comes_back_from_json(cls):
    rule = altered(cls)
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(loaded) is cls
    assert json.dumps(keras.saving.serialize_keras_object(loaded)) == text
    one, other = (run_with_terms(each, VALUES) for each in (rule, loaded))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    # A config says how a rule is made, not what it has seen.
    assert json.dumps(keras.saving.serialize_keras_object(rule)) == text


def test_arrays_in_a_config_come_back():
    rule = Worst(weights=np.array([1.0, 3.0]), reference=np.array([0.5, 0.0]))
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    values = losses(k=2)
    np.testing.assert_array_equal(run(loaded, values), run(rule, values))


# Bad arguments of all rules.

BAD = {
    "update_every": ("an integer of at least 1", [0, -1, 1.5, "a", True, None]),
    "warmup": ("an integer of at least 0", [-1, 1.5, "a", True, None]),
    "min_weight": ("of at least 0", [-0.1, "a", True, np.nan, np.inf]),
    "max_weight": ("of at least 0", [-0.1, "a", True, np.nan, np.inf]),
    "total": ("above 0", [0, -1, "n", True, np.nan, np.inf, [1]]),
}
EACH_BAD = [(name, allowed, bad) for name, (allowed, values) in BAD.items() for bad in values]


@pytest.mark.backend_free
def test_every_common_argument_has_bad_values():
    assert set(BAD) == set(COMMON) == set(inspect.signature(Weighting).parameters)


@pytest.mark.backend_free
@pytest.mark.parametrize("name, allowed, bad", EACH_BAD, ids=str)
def test_a_bad_common_argument_is_an_error_that_says_so(name, allowed, bad):
    for cls in (MagnitudeBalance, Average, RandomWeighting):
        message = f"`{name}` of {cls.__name__}", allowed, f"Received: {bad!r}"
        with raises(ValueError, *message):
            cls(**{name: bad})


def test_the_lower_cap_is_not_above_the_upper_one():
    with raises(ValueError, "`min_weight` of Average", "`max_weight`", "Received: min_weight=2"):
        Average(min_weight=2, max_weight=1)
    assert run(Average(min_weight=1, max_weight=1), VALUES).tolist() == np.ones((24, 3)).tolist()


@pytest.mark.backend_free
def test_a_total_says_that_it_may_be_k():
    with raises(ValueError, "`total` of Average", "'k'"):
        Average(total="sum")


# Rules of one's own.


class Inverse(Weighting):
    """Without a state."""

    def rule(self, values, state, active):
        return 1 / values


@keras.saving.register_keras_serializable("tests_weightings")
class Running(Weighting):
    """With one."""

    needs = frozenset({"values", "history"})

    def __init__(self, share=0.5, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def initial_state(self, k):
        return {"mean": [1.0] * k, "count": 0.0}

    def rule(self, values, state, active):
        mean = self.share * state["mean"] + (1 - self.share) * values
        return 1 / mean, {"mean": mean, "count": state["count"] + 1}


class Given(Weighting):
    """All of one's own: the weights of a table, which it overrides `weigh` for."""

    def weigh(self, values=None, gramian=None, rows=None, training=True):
        return ops.convert_to_tensor([0.25, 0.75, 0.0])


class WithTerm(Inverse):
    def term(self, values, weights, state):
        return 10.0 + ops.sum(weights)


class WithOffset(Inverse):
    def offset(self, values, weights):
        return ops.sum(weights)


def running(values, share=0.5):
    mean, found = np.ones(values.shape[1]), []
    for row in values:
        mean = np.where(np.isfinite(row), share * mean + (1 - share) * row, mean)
        found.append(np.where(np.isfinite(row), 1 / mean, 0.0))
    return np.array(found)


def test_a_rule_of_ones_own_is_one_method():
    close(run(Inverse(), VALUES), 1 / VALUES)
    close(run(Inverse(total="k"), VALUES).sum(axis=1), np.full(24, 3.0))
    close(run(Running(share=0.25), VALUES), running(VALUES, 0.25))


def test_a_rule_of_ones_own_never_sees_what_is_not_finite():
    values = VALUES.copy()
    values[4, 1], values[7, 0], values[9] = np.nan, np.inf, -np.inf
    close(run(Running(), values), running(values.astype("float64")))
    inverse = np.where(np.isfinite(values), 1 / values, 0.0)
    close(run(Inverse(), values), inverse)


@pytest.mark.backend_free
def test_a_rule_of_ones_own_is_saved():
    rule = Running(share=0.125, total="k")
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert (loaded.share, loaded.total) == (0.125, "k")


@pytest.mark.parametrize(
    "make, expected",
    [
        (Inverse, 1 / VALUES),
        (Running, running(VALUES)),
        (Given, np.tile([0.25, 0.75, 0.0], (24, 1))),
        (lambda: Smoothed(Given()), np.tile([0.25, 0.75, 0.0], (24, 1))),
    ],
    ids=["stateless", "state", "weigh", "smoothed"],
)
def test_a_rule_of_ones_own_trains_a_model(make, expected):
    _, model = model_of_parts(3, [2.0, 1.0, 0.5], make())
    logs = log_of_steps(model, VALUES[:6])
    expected = np.array([2.0, 1.0, 0.5]) * expected[:6]
    close(np.stack([logs[f"part{i}_weight"] for i in range(3)], axis=1), expected)
    close(logs["loss"], (expected * VALUES[:6]).sum(axis=1), rtol=1e-5)
    assert "weighting_loss" not in logs


def test_a_rule_of_ones_own_may_add_a_term():
    for make, more in ((WithTerm, 10.0), (WithOffset, 0.0)):
        _, model = model_of_parts(3, None, make())
        logs = log_of_steps(model, VALUES[:3])
        terms = (1 / VALUES[:3]).sum(axis=1) + more
        close(logs["weighting_loss"], terms)
        close(logs["loss"], 3 + terms)
        validation = log_of_steps(model, VALUES[:3], train=False)
        close(validation["weighting_loss"], terms)


def test_a_rule_without_its_method_says_so():
    with pytest.raises(NotImplementedError):
        run(Weighting(), VALUES)


@rules_but(UncertaintyWeighting)  # its weights have a gradient, and its s moves in between
def test_weigh_and_offset_are_what_step_gives(cls):
    """The two ways to use a rule by hand; `offset` after `weigh`."""
    rule, other = built(cls), built(cls)
    for row in VALUES[:5]:
        values = ops.convert_to_tensor(row)
        weights = rule.weigh(values=values)
        term = rule.offset(values, weights)
        expected, expected_term = other.step(values, True)
        close(ops.convert_to_numpy(weights), ops.convert_to_numpy(expected))
        close(ops.convert_to_numpy(term), ops.convert_to_numpy(expected_term), atol=1e-6)
