"""What every rule that reads gradients has from its base; and rules of one's own."""

import inspect
import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradientNormBalance,
    GradNorm,
    GramianWeighting,
    InverseGradientNorm,
    NashMTL,
    PCGrad,
    UPGrad,
    Weighting,
)
from tests.messages import raises
from tests.weightings.gradients import (
    COMMON,
    GRAMIAN_CLASSES,
    OWN,
    PLAIN,
    every_rule,
    gramian_of,
    rules,
    run,
    samples,
    weights_of,
)
from tests.weightings.rules import assert_same_state, close, each_bad, state_of

ROWS = samples("conflicting", 3, 9)
VALUES = np.exp(np.random.default_rng(0).normal(size=(9, 3)))

# Of every sort: the options are those of the base, and the others take longer.
some_rules = rules(InverseGradientNorm, GradientNormBalance, GradNorm, PCGrad, ConFIG)


@pytest.mark.backend_free
def test_every_rule_is_among_them():
    assert set(PLAIN) == GRAMIAN_CLASSES == set(OWN)


# Configs.


@pytest.mark.backend_free
@every_rule
def test_its_config_has_every_argument(cls):
    rule = cls(**OWN[cls], **COMMON)
    serialized = keras.saving.serialize_keras_object(rule)
    assert serialized["registered_name"] == f"combined_losses>{cls.__name__}"
    common = set(inspect.signature(Weighting).parameters)
    common |= set(inspect.signature(GramianWeighting).parameters) - {"kwargs"}
    own = set(inspect.signature(cls).parameters) - {"kwargs"} - common
    own |= {"preference"} if hasattr(cls(), "preference") else set()
    assert set(serialized["config"]) == own | common
    assert own == set(OWN[cls]) and common - {"function"} == set(COMMON)
    plain = PLAIN[cls]().get_config()
    for name, value in serialized["config"].items():
        assert plain[name] != value or name == "function", f"give {name} a value off its default"


@every_rule
def test_its_config_comes_back_from_json(cls):
    rule = cls(**OWN[cls], **COMMON)
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(loaded) is cls
    assert json.dumps(keras.saving.serialize_keras_object(loaded)) == text
    one, other = (run(each, ROWS[:3], VALUES[:3])[2] for each in (rule, loaded))
    np.testing.assert_array_equal(one, other)
    assert json.dumps(keras.saving.serialize_keras_object(rule)) == text


# State.


@every_rule
def test_its_state_is_variables_of_float32_and_a_saved_one_goes_on(cls):
    rule, other = PLAIN[cls](), PLAIN[cls]()
    run(rule, ROWS[:2], VALUES[:2])
    for variable in rule.variables:
        is_draw = variable.dtype.startswith(("uint", "int"))
        assert variable.dtype == "float32" or is_draw
        assert tuple(variable.shape) in ((), (3,), (2,), (3, 3))
    store = {}
    rule.save(store)
    other.build(3)
    other.load(store)
    assert_same_state(state_of(rule), state_of(other))
    one, two = (run(each, ROWS[3:4], VALUES[3:4]) for each in (rule, other))
    np.testing.assert_array_equal(one, two)


@every_rule
def test_reset_starts_over(cls):
    rule = PLAIN[cls]()
    rule.build(3)
    before = state_of(rule)
    first = run(rule, ROWS[:2], VALUES[:2])
    rule.reset()
    assert_same_state(before, state_of(rule))
    close(run(rule, ROWS[:2], VALUES[:2]), first, rtol=1e-4)


@every_rule
def test_validation_gets_the_last_weights_and_moves_nothing(cls):
    rule = PLAIN[cls]()
    last = run(rule, ROWS[:2], VALUES[:2])[-1]
    before = state_of(rule)
    close(weights_of(rule, ROWS[2], training=False), last)
    close(ops.convert_to_numpy(rule.weigh(training=False)), last)
    assert_same_state(before, state_of(rule))


@every_rule
def test_before_the_first_step_the_weights_are_equal(cls):
    rule = PLAIN[cls]()
    rule.build(3)
    expected = 1 / 3 if rule.sums_to_one else 1.0
    close(ops.convert_to_numpy(rule.weigh(training=False)), np.full(3, expected))


@every_rule
def test_equal_weights_are_those_of_orthogonal_gradients_of_one_length(cls):
    """`sums_to_one` says which of the two they are; the length of a bargain is another thing."""
    if cls in (NashMTL, FairGrad, CAGrad, GradientNormBalance):
        return
    expected = 1 / 3 if cls.sums_to_one else 1.0
    found = weights_of(PLAIN[cls](), np.eye(3))
    close(found, np.full(3, expected), rtol=1e-4)


@every_rule
def test_weights_are_float32_also_under_mixed_precision(half_precision, cls):
    rule = PLAIN[cls]()
    rule.build(3)
    values = ops.convert_to_tensor(VALUES[0], dtype="float16")
    weights = rule.weigh(values, ops.convert_to_tensor(gramian_of(ROWS[0])))
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    assert np.all(np.isfinite(ops.convert_to_numpy(weights)))


@every_rule
def test_a_rule_belongs_to_one_composite(cls):
    rule = PLAIN[cls]()
    cl.CompositeLoss(["mse", "mae"], weighting=rule)
    with raises(ValueError, f"This {cls.__name__} weighs the components of another composite"):
        cl.CompositeLoss(["mse", "mae"], weighting=rule)


# Options.


@some_rules
def test_a_warm_up_has_equal_weights(cls):
    weights = run(PLAIN[cls](warmup=3), ROWS, VALUES)
    close(weights[:3], np.full((3, 3), 1.0))
    if cls is not PCGrad:  # whose draws differ
        assert not np.allclose(weights[3:5], 1.0)


@some_rules
@pytest.mark.parametrize("warmup", [0, 2])
def test_every_third_step_gives_new_weights_and_in_between_nothing_moves(cls, warmup):
    """They are those of a rule that has these steps alone; it sees no others."""
    weights = run(PLAIN[cls](update_every=3, warmup=warmup), ROWS, VALUES)
    due = [step for step in range(len(ROWS)) if (step - warmup) % 3 == 0]
    alone = run(PLAIN[cls](), ROWS[due], VALUES[due])
    for step in range(warmup, len(ROWS)):
        last = sum(each <= step for each in due) - 1
        if cls is not PCGrad:
            close(weights[step], alone[last])
        np.testing.assert_array_equal(weights[step], weights[due[last]])


@some_rules
@pytest.mark.parametrize("total", ["k", 0.5, 1e4])
def test_weights_are_rescaled_to_a_total_and_capped(cls, total):
    raw = run(PLAIN[cls](), ROWS[:3], VALUES[:3])
    size = 3 if total == "k" else total
    expected = raw * size / raw.sum(axis=1, keepdims=True)
    close(run(PLAIN[cls](total=total), ROWS[:3], VALUES[:3]), expected)
    highest = 0.4 * size
    capped = run(PLAIN[cls](total=total, max_weight=highest), ROWS[:3], VALUES[:3])
    close(capped, np.minimum(expected, highest))
    low = run(PLAIN[cls](total=total, min_weight=highest / 2), ROWS[:3], VALUES[:3])
    close(low, np.maximum(expected, highest / 2))


@some_rules
def test_a_component_without_a_gradient_has_weight_0_whatever_the_options(cls):
    rows = ROWS.copy()
    rows[1::2, 1] = 0.0
    for options in ({"min_weight": 0.5}, {"total": "k"}, {"max_weight": 2.0}):
        weights = run(PLAIN[cls](**options), rows, VALUES)
        np.testing.assert_array_equal(weights[1::2, 1], 0)
        if "total" in options:
            close(weights.sum(axis=1), np.tile([3.0, 2.0], 5)[:9], rtol=1e-5)


def test_the_cosines_of_the_last_gradients_are_kept():
    rule = InverseGradientNorm(update_every=2)
    rows = ROWS[:2].copy()
    rows[0, 2] = 0.0
    run(rule, rows)
    units = rows[0, :2] / np.linalg.norm(rows[0, :2], axis=1, keepdims=True)
    expected = np.zeros((3, 3))
    expected[:2, :2] = units @ units.T
    close(ops.convert_to_numpy(rule.cosines), expected, rtol=1e-4, atol=1e-6)
    close(ops.convert_to_numpy(rule.min_cosine), expected[0, 1], rtol=1e-4)


def test_without_a_pair_the_smallest_cosine_is_1():
    rule = InverseGradientNorm()
    run(rule, np.array([[[1.0, 0.0], [0.0, 0.0]]]))
    assert float(ops.convert_to_numpy(rule.min_cosine)) == 1.0


@every_rule
def test_rows_are_as_good_as_their_gramian(cls):
    one, other = PLAIN[cls](), PLAIN[cls]()
    for rule in (one, other):
        rule.build(3)
    values = ops.convert_to_tensor(VALUES[0].astype("float32"))
    rows = ops.convert_to_tensor(ROWS[0].astype("float32"))
    gramian = ops.convert_to_tensor(gramian_of(ROWS[0]))
    weights = [one.weigh(values, gramian), other.weigh(values, rows=rows)]
    close(*map(ops.convert_to_numpy, weights), rtol=1e-3, atol=1e-5)


# A function of one's own.


@keras.saving.register_keras_serializable("tests_gramian")
def inverse_length(gramian):
    return 1 / ops.sqrt(ops.diagonal(gramian))


class Doubled(GramianWeighting):
    """A subclass, with a state."""

    def initial_state(self, k):
        return {"count": 0.0}

    def combine(self, gradients, state):
        count = state["count"] + 1
        return count * gradients.active, {"count": count}


def test_a_function_of_the_gramian_is_a_rule():
    rule = GramianWeighting(inverse_length)
    lengths = np.linalg.norm(ROWS, axis=2)
    close(run(rule, ROWS), 1 / lengths, rtol=1e-4)
    scaled = run(GramianWeighting(inverse_length, total="k", warmup=1), ROWS)
    close(scaled.sum(axis=1), np.full(9, 3.0), rtol=1e-5)


def test_a_function_sees_no_component_without_a_gradient():
    rows, seen = ROWS[0].copy(), []

    def looking(gramian):
        seen.append(ops.convert_to_numpy(gramian))
        return ops.ones((3,))

    rows[1] = 0
    assert weights_of(GramianWeighting(looking), rows).tolist() == [1, 0, 1]
    rows = rows[[0, 2]]
    close(seen[0][np.ix_([0, 2], [0, 2])], rows @ rows.T, rtol=1e-4, atol=1e-6)
    assert np.all(seen[0][1, [0, 2]] == 0) and np.all(seen[0][[0, 2], 1] == 0)
    close(seen[0][1, 1], np.trace(rows @ rows.T) / 2, rtol=1e-4)


def test_a_function_is_saved_by_its_registered_name():
    rule = GramianWeighting(inverse_length, gradients="shared", total=2.0)
    text = json.dumps(keras.saving.serialize_keras_object(rule))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert (loaded.function, loaded.gradients, loaded.total) == (inverse_length, "shared", 2.0)
    np.testing.assert_array_equal(run(rule, ROWS[:2]), run(loaded, ROWS[:2]))


def test_a_subclass_has_a_state_of_its_own():
    weights = run(Doubled(update_every=2), ROWS[:5])
    close(weights[:, 0], [1, 1, 2, 2, 3])


# Bad arguments.

NUMBERS = ["a", None, True, np.nan, np.inf]
PREFERENCES = [1.0, "ab", [1.0, 0.0], [1.0, -1], [1.0, np.nan], [1.0, "a"], [True, 1.0], {"a": 1}]


def bad_arguments():
    """`(class, argument, what the message says is allowed, bad values)`."""
    yield InverseGradientNorm, "rescale", "True or False", ["no", 1, None]
    yield GradientNormBalance, "momentum", "of at least 0 and below 1", [-0.1, 1, *NUMBERS]
    yield GradientNormBalance, "mode", "'norm_sum', 'norm_ref', 'max_mean'", ["sum", None, 1]
    yield GradientNormBalance, "reference", "'norm_sum'", [0, 1]
    yield GradNorm, "alpha", "of at least 0", [-0.1, *NUMBERS]
    yield GradNorm, "lower_bound", "a finite number", NUMBERS
    yield GradNorm, "learning_rate", "above 0", [0, -1, *NUMBERS]
    yield MGDA, "normalize", "True or False", ["no", 1, None]
    yield CAGrad, "c", "of at least 0", [-0.1, *NUMBERS]
    yield CAGrad, "rescale", "None, 'squared' or 'linear'", ["paper", True, 1]
    yield PCGrad, "seed", "None or an integer", ["a", 1.5, True]
    yield NashMTL, "max_norm", "above 0", [0, -1, *NUMBERS]
    no_float32 = "of at least 0.1 and at most 100: beyond, the powers in its equation"
    yield FairGrad, "alpha", no_float32, [0, -1, 0.09, 101, 1e30, *NUMBERS]
    yield AlignedMTL, "scale", "'min', 'median' or 'mean'", ["rmse", None, 1.0]
    for cls in (UPGrad, DualProj, ConFIG, AlignedMTL):
        yield cls, "preference", "None or a list of numbers above 0", PREFERENCES


@pytest.mark.backend_free
@each_bad(bad_arguments())
def test_a_bad_argument_is_an_error_that_says_so(cls, name, allowed, value):
    with raises(ValueError, f"`{name}`", cls.__name__, allowed, f"Received: {value!r}"):
        cls(**{name: value})


@pytest.mark.backend_free
def test_every_argument_of_its_own_has_bad_values():
    given = set(itertools.chain.from_iterable(((cls, name) for name in OWN[cls]) for cls in OWN))
    assert given == {(cls, name) for cls, name, *_ in bad_arguments()}


@pytest.mark.backend_free
@pytest.mark.parametrize("mode", ["norm_ref", "max_mean", "mean_ref"])
@pytest.mark.parametrize("bad", [None, -1, 0.5, "mse", True])
def test_a_mode_with_a_reference_needs_one(mode, bad):
    message = "`reference` of GradientNormBalance", "index", f"mode={mode!r}", f"Received: {bad!r}"
    with raises(ValueError, *message):
        GradientNormBalance(mode=mode, reference=bad)


def test_a_reference_is_one_of_the_components():
    rule = GradientNormBalance(mode="norm_ref", reference=2)
    with raises(ValueError, "`reference` of GradientNormBalance", "below 2", "Received: 2"):
        cl.CompositeLoss(["mse", "mae"], weighting=rule)


@rules(UPGrad, DualProj, ConFIG, AlignedMTL)
def test_a_preference_has_a_number_for_each_component(cls):
    rule = cls(preference=[1.0, 2.0, 3.0])
    with raises(ValueError, f"`preference` of {cls.__name__}", "2 components", "Received: [1.0"):
        cl.CompositeLoss(["mse", "mae"], weighting=rule)


@pytest.mark.backend_free
def test_what_each_rule_needs():
    assert GradNorm().needs == {"values", "gramian", "history"}
    assert GradientNormBalance().needs == {"gramian", "history"}
    for mode, more in (("norm_ref", set()), ("max_mean", {"rows"}), ("mean_ref", {"rows"})):
        rule = GradientNormBalance(mode=mode, reference=0)
        assert rule.needs == {"gramian", "history"} | more
    stateless = GRAMIAN_CLASSES - {GradNorm, GradientNormBalance}
    assert all(cls.needs == {"gramian"} for cls in stateless)
    lengths = {InverseGradientNorm, GradNorm, GradientNormBalance}
    assert {cls for cls in GRAMIAN_CLASSES if not cls.reads_cosines} == lengths


BAD_PLACES = {
    "gradients": ("'output', 'parameters' or the name of a layer", [None, 3, "", ["output"]]),
    "log_conflict": ("True or False", [None, 1, "yes"]),
}


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "name, allowed, bad", [(n, a, bad) for n, (a, all_bad) in BAD_PLACES.items() for bad in all_bad]
)
def test_a_bad_place_is_an_error_that_says_so(name, allowed, bad):
    for make in (UPGrad, lambda **kwargs: GramianWeighting(inverse_length, **kwargs)):
        with raises(ValueError, f"`{name}` of ", allowed, f"Received: {bad!r}"):
            make(**{name: bad})


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", ["trunk", [], [1], 3])
def test_shared_layers_are_names_and_belong_to_parameters(bad):
    with raises(ValueError, "`shared_layers` of UPGrad", "names of layers", f"Received: {bad!r}"):
        UPGrad(gradients="parameters", shared_layers=bad)
    with raises(ValueError, "`shared_layers`", "'parameters'", "Received: gradients='output'"):
        UPGrad(shared_layers=["trunk"])


@pytest.mark.backend_free
def test_a_rule_of_gradients_needs_a_function_or_a_subclass():
    with raises(ValueError, "`function` of GramianWeighting", "Received: None"):
        GramianWeighting()
    with raises(ValueError, "UPGrad", "GramianWeighting(function)"):
        UPGrad(function=ops.diagonal)
    with raises(ValueError, "`function` of GramianWeighting", "Received: 3"):
        GramianWeighting(3)


def test_a_rule_of_gradients_is_not_given_none():
    rule = UPGrad()
    rule.build(2)
    with raises(ValueError, "UPGrad needs the Gramian", "(2, 2)", "Received: gramian=None"):
        rule.weigh(values=ops.ones((2,)))
    with raises(ValueError, "UPGrad needs the Gramian", "Received: gramian=of shape (3, 3)"):
        rule.weigh(gramian=ops.ones((3, 3)))
    rule = GradientNormBalance(mode="mean_ref", reference=0)
    rule.build(2)
    with raises(ValueError, "GradientNormBalance needs the `rows`", "Received: None"):
        rule.weigh(gramian=ops.convert_to_tensor(np.eye(2, dtype="float32")))


# What a rule answers.


class OfItsOwn(Weighting):
    """All of one's own, from the Gramian."""

    needs = frozenset({"gramian"})

    def weigh(self, values=None, gramian=None, rows=None, training=True):
        return 1 / ops.sqrt(ops.diagonal(gramian))


def _answers(rule):
    return rule.reads_gradients, rule.place, rule.shared_layers, rule.logs_conflict


@pytest.mark.backend_free
def test_a_rule_answers_where_it_reads_gradients():
    assert _answers(cl.weightings.MagnitudeBalance()) == (False, None, None, False)
    assert _answers(OfItsOwn()) == (True, "output", None, False)
    assert _answers(UPGrad()) == (True, "output", None, False)
    assert _answers(UPGrad(gradients="trunk", log_conflict=True)) == (True, "trunk", None, True)
    shared = GradientNormBalance(
        mode="max_mean", reference=0, gradients="parameters", shared_layers=["trunk"]
    )
    assert _answers(shared) == (True, "parameters", ["trunk"], False)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "inside",
    [cl.weightings.FAMO(), MGDA(gradients="trunk"), OfItsOwn()],
    ids=lambda rule: type(rule).__name__,
)
def test_a_rule_around_a_rule_answers_as_that_does(inside):
    twice = cl.weightings.Smoothed(cl.weightings.Smoothed(inside))
    assert _answers(twice) == _answers(inside)
    assert twice.innermost is inside.innermost is inside
    parameters = UPGrad(gradients="parameters", shared_layers=["trunk"], log_conflict=True)
    assert _answers(cl.weightings.Smoothed(parameters)) == _answers(parameters)


@pytest.mark.backend_free
def test_a_rule_of_ones_own_has_answers_without_a_state():
    rule = OfItsOwn()
    assert rule.values_beyond() == {}
    assert rule.components_without_gradient() == []
    assert not rule.reads_cosines


class AtAPlace(OfItsOwn):
    """A rule of a user's that says as ours do where it reads gradients."""

    def __init__(self, gradients="output", **kwargs):
        super().__init__(**kwargs)
        self.gradients = gradients


@pytest.mark.backend_free
@pytest.mark.parametrize("place", ["output", "trunk", "parameters"])
def test_a_rule_of_ones_own_reads_where_its_argument_says(place):
    rule = AtAPlace(place)
    assert _answers(rule) == _answers(cl.weightings.Smoothed(AtAPlace(place)))
    assert rule.reads_gradients and rule.place == place
