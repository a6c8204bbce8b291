"""The rules: stored sequences, what their papers claim, and values that are missing or extreme."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import (
    FAMO,
    Average,
    CoVWeighting,
    DynamicWeightAverage,
    GeometricMean,
    MagnitudeBalance,
    RandomWeighting,
    ReLoBRaLo,
    Smoothed,
    SoftAdapt,
    UncertaintyWeighting,
    Worst,
)
from tests.messages import raises
from tests.weightings.parts import frozen, log_of_steps, model_of_parts
from tests.weightings.rules import (
    PLAIN,
    SEQUENCES,
    close,
    each_bad,
    every_rule,
    losses,
    read_sequences,
    rules_but,
    run,
    run_with_terms,
    state_of,
)

STORED = read_sequences()
every_sequence = pytest.mark.parametrize("name", SEQUENCES)


# Reference sequences.


def assert_as_stored(case, name, weights, totals):
    entry = STORED[case]
    tolerance = entry["looser"].get(name, entry["rtol_f32"])
    expected = entry["arrays"][f"{name}/w"]
    scale = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max(axis=1, keepdims=True))
    assert np.max(np.abs(weights - expected) / scale) <= tolerance
    total = entry["arrays"].get(f"{name}/total")
    if total is not None:
        np.testing.assert_allclose(totals, total, rtol=tolerance, atol=tolerance)


def fixed_weights(case, name):
    """c of the stored sequence: that of `Average`, whose result is stored as c * w."""
    arrays = STORED[case]["arrays"]
    return arrays.get(f"{name}/w0", np.ones(STORED[case]["k"], "float32"))


@pytest.fixture
def draw(monkeypatch):
    """Makes `keras.random` give the numbers of a sequence."""

    def give(numbers):
        numbers = iter(numbers)
        for function in ("normal", "uniform"):
            monkeypatch.setattr(keras.random, function, lambda shape, **_: _next(numbers, shape))

    return give


def _next(numbers, shape):
    number = np.asarray(next(numbers), "float32")
    return ops.convert_to_tensor(number[len(number) - shape[0] :] if shape else number)


def draws_of(arrays, name):
    if name == "RandomWeighting":
        return arrays[f"{name}/z"]
    # A draw b is 1 where a uniform number is below rho.
    return 1.0 - arrays["ReLoBRaLo/draws"]


@pytest.mark.parametrize("case", STORED)
@every_sequence
def test_it_gives_the_stored_sequence(name, case, draw):
    arrays, c = STORED[case]["arrays"], fixed_weights(case, name)
    draw(draws_of(arrays, name))
    weights, terms = run_with_terms(SEQUENCES[name](), arrays["values"], c)
    weights = weights * c
    assert_as_stored(case, name, weights, (weights * arrays["values"]).sum(axis=1) + terms)


class GivenZ(RandomWeighting):
    """With the stored draws, found by the number of the step; as the next one."""

    def rule(self, values, state, active):
        z = ops.take(ops.convert_to_tensor(self.draws_given), ops.cast(state["steps"], "int32"), 0)
        return ops.softmax(z)


class GivenB(ReLoBRaLo):
    def rule(self, values, state, active):
        given = ops.convert_to_tensor(self.draws_given)
        return self._after_draw(
            values, state, active, ops.take(given, ops.cast(state["steps"], "int32"))
        )


def with_stored_draws(name, arrays):
    rule = SEQUENCES[name]()
    if isinstance(rule, RandomWeighting):
        rule = GivenZ()
        rule.draws_given = arrays["RandomWeighting/z"]
    elif isinstance(rule, ReLoBRaLo):
        rule = GivenB(alpha=rule.alpha, rho=rule.rho, temperature=rule.temperature)
        rule.draws_given = arrays["ReLoBRaLo/draws"]
    return rule


@every_sequence
def test_a_compiled_step_gives_the_stored_sequence(name):
    """Values go through a model of `k` components whose layers do not learn."""
    case = "k3"
    arrays, c = STORED[case]["arrays"], fixed_weights(case, name)
    rule = with_stored_draws(name, arrays)
    _loss, model = model_of_parts(3, weights=c.tolist(), weighting=rule)
    logs = log_of_steps(model, arrays["values"])
    weights = np.stack([logs[f"part{i}_weight"] for i in range(3)], axis=1)
    assert_as_stored(case, name, weights, logs["loss"])
    close(logs["base_loss"], (c * arrays["values"]).sum(axis=1))
    terms = logs.get("weighting_loss", 0.0)
    close(logs["loss"], (weights * arrays["values"]).sum(axis=1) + terms, rtol=1e-5, atol=1e-5)


# Laws that the sheet states.

SUM_OF_ONE = {RandomWeighting, SoftAdapt, CoVWeighting, FAMO}
SUM_OF_K = {DynamicWeightAverage, ReLoBRaLo}


def assert_sum(cls, weights, active):
    """`active` `(steps, k)`: the components that count."""
    active = np.broadcast_to(active, weights.shape)
    if cls in SUM_OF_ONE:
        close(weights.sum(axis=1), active.any(axis=1).astype(float), rtol=1e-5)
    if cls in SUM_OF_K:
        close(weights.sum(axis=1), active.sum(axis=1).astype(float), rtol=1e-5)


@every_rule
@pytest.mark.parametrize("k", [2, 5])
def test_weights_are_not_negative_and_sum_as_in_the_paper(cls, k):
    weights = run(PLAIN[cls](), losses(k=k))
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert_sum(cls, weights, True)


@rules_but(RandomWeighting)
def test_a_permutation_of_the_components_permutes_the_weights(cls):
    values, c, order = losses(k=4), np.array([2.0, 0.5, 1.0, 3.0], "float32"), [2, 0, 3, 1]
    expected = run(PLAIN[cls](), values, c)
    close(run(PLAIN[cls](), values[:, order], c[order]), expected[:, order])


def test_random_weights_are_permuted_with_their_draws(draw):
    z, values, order = np.random.default_rng(5).normal(size=(6, 4)), losses(6, 4), [2, 0, 3, 1]
    draw(z)
    expected = run(RandomWeighting(), values)
    draw(z[:, order])
    close(run(RandomWeighting(), values[:, order]), expected[:, order])


@rules_but(RandomWeighting, Worst)
def test_equal_components_have_equal_weights(cls):
    values = np.repeat(losses(k=1), 3, axis=1)
    weights = run(PLAIN[cls](), values)
    close(weights, np.repeat(weights[:, :1], 3, axis=1))


@pytest.mark.parametrize("cls", [DynamicWeightAverage, ReLoBRaLo, CoVWeighting])
def test_units_of_the_components_do_not_matter(cls):
    values, units = losses(), np.array([1e3, 1.0, 1e2], "float32")
    close(run(PLAIN[cls](), values * units), run(PLAIN[cls](), values), rtol=2e-3, atol=1e-6)


def test_balanced_magnitudes_undo_the_units():
    values, units = losses(), np.array([1e4, 1.0, 1e-4], "float32")
    expected = run(MagnitudeBalance(), values) / units
    close(run(MagnitudeBalance(), values * units), expected)


def test_the_geometric_mean_undoes_the_units_up_to_a_common_factor():
    values, units = losses(), np.array([1e3, 1.0, 1e-3], "float32") * 8
    expected = run(GeometricMean(), values) / units * np.prod(units.astype("float64")) ** (1 / 3)
    close(run(GeometricMean(), values * units), expected)


def test_the_total_of_the_geometric_mean_is_it_and_the_weights_are_its_slopes():
    values = losses(k=4).astype("float64")
    weights = run(GeometricMean(), values)
    mean = np.exp(np.log(values).mean(axis=1))
    close((weights * values).sum(axis=1), mean)
    step = 1e-6
    for index in range(4):
        ahead = values.copy()
        ahead[:, index] += step
        slope = (np.exp(np.log(ahead).mean(axis=1)) - mean) / step
        close(weights[:, index], slope, rtol=1e-4)


def test_a_lower_bound_moves_the_origin():
    values = losses()
    close(run(GeometricMean(lower_bound=-3.0), values - 3), run(GeometricMean(), values), rtol=1e-4)
    for cls in (FAMO, DynamicWeightAverage, ReLoBRaLo):
        moved, plain = (run(PLAIN[cls](lower_bound=b), values + b) for b in (-3, 0))
        close(moved, plain, rtol=1e-3)


def test_balanced_magnitudes_make_every_component_1_at_first():
    values = losses()
    close(run(MagnitudeBalance(), values)[0] * values[0], np.ones(3))
    close(run(MagnitudeBalance(momentum=0.0), values) * values, np.ones_like(values))


def test_the_least_magnitude_is_eps():
    weights = run(MagnitudeBalance(momentum=0.0, eps=0.5), losses(low=0.01, high=2.0))
    close(weights, 1 / np.maximum(losses(low=0.01, high=2.0), 0.5))
    assert weights.max() == 2.0


def test_a_component_that_falls_slowly_gets_more():
    """In the rules that compare a component with itself."""
    steps = np.arange(24, dtype="float32")[:, None]
    values = np.concatenate([0.7**steps, 0.9**steps, 0.99**steps], axis=1)
    for rule in (ReLoBRaLo(alpha=0.5, rho=1.0), FAMO(), DynamicWeightAverage(1, 2)):
        weights = run(rule, values)[5:]
        if isinstance(rule, FAMO):
            weights = weights * values[5:]  # the share of each in the logarithmic descent
        assert np.all(np.diff(weights, axis=1) > 0), type(rule).__name__
    values = 10 - steps * np.array([0.4, 0.2, 0.1], "float32")  # here falls count, not ratios
    for rule in (SoftAdapt(), SoftAdapt(normalized=True), SoftAdapt(loss_weighted=True)):
        assert np.all(np.diff(run(rule, values)[5:], axis=1) > 0)


def test_a_higher_temperature_makes_weights_more_equal():
    values = losses()
    for cls in (DynamicWeightAverage, ReLoBRaLo):
        cold, warm = (run(PLAIN[cls](temperature=t), values).std(axis=1).sum() for t in (0.5, 50.0))
        assert warm < cold / 5


def test_the_first_epochs_have_equal_weights():
    weights = run(DynamicWeightAverage(period=4), losses())
    assert np.all(weights[:8] == 1) and np.all(weights[8:] != 1)
    assert np.all(weights[8:12] == weights[8]) and not np.any(weights[12] == weights[8])


def test_an_epoch_ends_where_fit_says_so():
    """As a period of that many steps."""
    values = losses(steps=15)
    rule = DynamicWeightAverage()
    found = []
    for epoch in range(5):
        found.append(run(rule, values[3 * epoch : 3 * epoch + 3]))
        rule.end_epoch()
    close(np.concatenate(found), run(DynamicWeightAverage(period=3), values))


def test_an_end_of_an_epoch_without_steps_changes_nothing():
    values = losses(steps=15)
    rules = DynamicWeightAverage(), DynamicWeightAverage()
    for epoch in range(5):
        found = [run(rule, values[3 * epoch : 3 * epoch + 3]) for rule in rules]
        close(found[0], found[1])
        rules[0].end_epoch()
        for _ in range(2):
            rules[1].end_epoch()


def test_a_rule_that_counts_steps_ignores_epochs():
    values, rule = losses(steps=12), DynamicWeightAverage(period=3)
    found = []
    for row in values:
        found.append(run(rule, row[None]))
        rule.end_epoch()
    close(np.concatenate(found), run(DynamicWeightAverage(period=3), values))


def test_a_look_back_is_as_likely_as_said():
    """With `alpha=1` weights change only where the rule looks back at the first values."""
    values = losses(steps=300)
    for rho in (0.0, 0.3, 1.0):
        weights = run(ReLoBRaLo(alpha=1.0, rho=rho, seed=1), values)
        kept = np.mean(np.all(np.isclose(weights[2:], weights[1:-1], rtol=1e-5), axis=1))
        assert kept == pytest.approx(rho, abs=5 * np.sqrt(rho * (1 - rho) / 298) + 1e-9)


@pytest.mark.parametrize("cls", [RandomWeighting, ReLoBRaLo])
def test_a_seed_gives_the_same_weights_again(cls):
    values = losses()
    one, same, other = (run(PLAIN[cls](seed=seed), values) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("cls", [RandomWeighting, ReLoBRaLo])
def test_without_a_seed_two_runs_differ(cls):
    values = losses()
    assert not np.allclose(run(PLAIN[cls](seed=None), values), run(PLAIN[cls](seed=None), values))


def test_random_weights_are_a_softmax_of_normal_numbers():
    weights = run(RandomWeighting(seed=2), losses(steps=400, k=3)).astype("float64")
    # Differences of logarithms are those of two normal numbers: mean 0, variance 2.
    gaps = np.log(weights[:, 1:]) - np.log(weights[:, :-1])
    assert abs(gaps.mean()) < 5 * np.sqrt(2 / 400)
    assert gaps.var() == pytest.approx(2, abs=5 * 2 * np.sqrt(2 / 400))


def test_famo_lets_logits_go_to_the_component_that_does_not_fall():
    """And weight decay holds them back."""
    steps = np.arange(60, dtype="float32")[:, None]
    values = np.concatenate([0.9**steps, 1.0 + 0 * steps], axis=1)
    free, held = (run(FAMO(weight_decay=w) if w else FAMO(weight_decay=0), values) for w in (0, 10))
    shares = [w * values / (w * values).sum(axis=1, keepdims=True) for w in (free, held)]
    assert np.all(np.diff(shares[0][2:, 1]) > 0)
    assert shares[1][-1, 1] < shares[0][-1, 1]


# Fixed rules.


def test_seven_and_three_act_as_shares_of_the_sum():
    weights = run(Average(), losses(k=2), np.array([7.0, 3.0]))
    close(weights * [7.0, 3.0], np.tile([0.7, 0.3], (24, 1)))


C = np.array([2.0, 0.5, 1.0])


def tchebycheff(values, c, own, reference, temperature):
    y = c * own * (values.astype("float64") - reference)
    highest = y.max(axis=1, keepdims=True)
    if temperature is None:
        return highest[:, 0], c * own * (y == highest)
    powers = np.exp((y - highest) / temperature)
    total = highest[:, 0] + temperature * np.log(powers.sum(axis=1))
    return total, c * own * powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [None, 0.3, 5.0])
@pytest.mark.parametrize("own, reference", [(1, 0), ([1.0, 2.0, 0.25], [0.5, 0.0, -0.5]), (2, 0.7)])
def test_the_worst_is_minimised(temperature, own, reference):
    """The total is the largest, or its smooth form, and c * w are the slopes of it."""
    values = losses()
    rule = Worst(temperature, own, reference)
    weights, terms = run_with_terms(rule, values, C)
    total, slopes = tchebycheff(values, C, np.asarray(own), np.asarray(reference), temperature)
    close(C * weights, slopes)
    close((C * weights * values).sum(axis=1) + terms, total, rtol=1e-5, atol=1e-6)


def test_a_cold_smooth_worst_is_the_worst():
    values = losses(seed=3)
    close(run(Worst(temperature=1e-4), values), run(Worst(), values), atol=1e-4)


def test_of_equally_bad_components_the_first_is_the_worst():
    assert run(Worst(), np.ones((2, 3))).tolist() == [[1, 0, 0], [1, 0, 0]]


# One component.

ALONE = {
    MagnitudeBalance: lambda values: 1 / values[:1],  # of momentum 1 - 1e-9, see below
    UncertaintyWeighting: lambda values: np.full(1, 0.5),
    Smoothed: lambda values: 1 / values[:1],
}


@every_rule
def test_one_component_alone_has_weight_1(cls):
    values = np.full((12, 1), 0.3, "float32")
    weights = run(PLAIN[cls](), values)
    expected = ALONE.get(cls, lambda values: np.ones(1))(values[0])
    close(weights, np.tile(expected, (12, 1)), rtol=1e-5)


# Components that are missing: NaN or infinite.

every_hole = pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf], ids=str)


@every_hole
@every_rule
def test_a_component_that_is_never_finite_counts_as_absent(cls, hole, draw):
    z = np.random.default_rng(2).normal(size=(24, 3))
    values, c = losses(), np.array([2.0, 0.5, 1.0], "float32")
    draws = z if cls is RandomWeighting else (z[:, 0] > 0)
    draw(draws)
    alone, alone_terms = run_with_terms(PLAIN[cls](), values[:, 1:], c[1:])
    values[:, 0] = hole
    draw(draws)
    weights, terms = run_with_terms(PLAIN[cls](), values, c)
    np.testing.assert_array_equal(weights[:, 0], 0)
    close(weights[:, 1:], alone, rtol=1e-5)
    close(terms, alone_terms, rtol=1e-5, atol=1e-6)


@every_hole
@every_rule
def test_a_hole_in_one_step_does_not_reach_the_state(cls, hole):
    """Not that of the component, nor, where it is apart, that of the others."""
    values = losses()
    rule, other = PLAIN[cls](), PLAIN[cls]()
    run(rule, values[:6])
    run(other, values[:6])
    before = state_of(rule)
    values[6, 1] = hole
    weights = run(rule, values[6:7])
    assert weights[0, 1] == 0 and np.all(np.isfinite(weights))
    inner = [rule, rule.weighting] if cls is Smoothed else [rule]
    named = [name for each in inner for name in each._state]
    for name, old, new in zip(named, before, state_of(rule), strict=False):
        assert np.all(np.isfinite(new)), name
        # A period of DynamicWeightAverage may end with the step.
        of_rule = name not in ("current", "missed") and cls is not DynamicWeightAverage
        if new.shape == (3,) and of_rule:
            assert new[1] == old[1], name
    after = run(rule, values[7:])
    assert np.all(np.isfinite(after)) and np.all(after >= 0)
    if cls is not Worst:
        assert np.all(after > 0)
    assert_sum(cls, after, True)


@every_rule
def test_a_hole_in_one_step_is_soon_forgotten(cls):
    """The weights come back near those of a run without it."""
    values = losses(steps=60, low=0.5)
    spoilt = values.copy()
    spoilt[[5, 9], [0, 2]] = np.nan, np.inf
    clean, found = run(PLAIN[cls](), values)[-1], run(PLAIN[cls](), spoilt)[-1]
    close(found, clean, rtol=0.35, atol=0.05)


@every_rule
def test_where_no_component_is_finite_all_weights_are_0_and_nothing_is_learned(cls):
    values = losses()
    rule = PLAIN[cls]()
    run(rule, values[:5])
    before = {name: ops.convert_to_numpy(v.value).copy() for name, v in rule._state.items()}
    weights, terms = run_with_terms(rule, np.full((2, 3), np.nan))
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_array_equal(terms, 0)
    for name, variable in rule._state.items():
        periods = cls is DynamicWeightAverage  # one may end with the step
        if variable.shape == (3,) and name not in ("current", "missed") and not periods:
            np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), before[name])
    after = run(rule, values[5:])
    assert np.all(np.isfinite(after))
    assert_sum(cls, after, True)


@every_rule
def test_a_run_may_begin_with_holes(cls):
    values = losses()
    values[0] = np.nan
    values[:3, 1] = np.inf
    weights = run(PLAIN[cls](), values)
    active = np.isfinite(values)
    assert np.all(np.isfinite(weights)) and np.all(weights[~active] == 0)
    assert_sum(cls, weights, active)


@every_rule
def test_components_may_take_turns(cls):
    """The second is there only while the first one is not."""
    values = losses()
    values[:8, 0] = values[8:16, 1:] = np.nan
    weights = run(PLAIN[cls](), values)
    active = np.isfinite(values)
    assert np.all(np.isfinite(weights)) and np.all(weights[~active] == 0)
    assert_sum(cls, weights, active)


# Float64 twins that pass over what is missing, component by component. What has changed over a
# pause counts as a change from step to step.


def magnitudes(values, momentum=0.99):
    weights, mean = np.zeros(values.shape), np.full(values.shape[1], np.nan)
    when = np.zeros(values.shape[1])
    for step, row in enumerate(values):
        for i in np.flatnonzero(np.isfinite(row)):
            past = 0.0 if np.isnan(mean[i]) else momentum ** (step - when[i])
            mean[i] = past * np.nan_to_num(mean[i]) + (1 - past) * abs(row[i])
            weights[step, i], when[i] = 1 / mean[i], step
    return weights


def softmax_of(x, active):
    powers = np.where(active, np.exp(np.where(active, x, 0.0)), 0.0)
    return powers / powers.sum()


def slopes(values, beta=0.1):
    weights, last = np.zeros(values.shape), np.full(values.shape[1], np.nan)
    when = np.zeros(values.shape[1])
    for step, row in enumerate(values):
        active, change = np.isfinite(row), np.nan_to_num((row - last) / np.maximum(step - when, 1))
        weights[step] = softmax_of(beta * change, active)
        last, when = np.where(active, row, last), np.where(active, step, when)
    return weights


def _rate(before, last):
    return (last[1] / before[1]) ** (1 / (last[0] - before[0]))


def averages(values, period, temperature=2.0):
    """A component's mean over a period is that of the steps in which it was there."""
    weights, means = np.zeros(values.shape), [[] for _ in range(values.shape[1])]
    for step, row in enumerate(values):
        if step and step % period == 0:
            for i, column in enumerate(values[step - period : step].T):
                if np.any(np.isfinite(column)):
                    means[i].append((step // period, column[np.isfinite(column)].mean()))
        active = np.isfinite(row)
        ratio = np.array([_rate(*m[-2:]) if len(m) > 1 else 1.0 for m in means])
        started = any(len(m) > 1 for m in means)
        weights[step] = (
            active.sum() * softmax_of(ratio / temperature, active) if started else active
        )
    return weights


def variations(values, decay=None):
    """Each component with its own count of steps."""
    k = values.shape[1]
    seen, mean, ratio, squares = (np.zeros(k) for _ in range(4))
    deviation, when = np.zeros(k), np.zeros(k)
    weights = np.zeros(values.shape)
    for step, row in enumerate(values):
        active = np.isfinite(row)
        known = active & (seen > 1)
        spread = np.where(active, deviation / np.maximum(ratio, 1e-8), 0.0)
        if known.any():
            spread = np.where(active & ~known, spread[known].mean(), spread)
        weights[step] = spread / spread.sum() if known.any() else active / active.sum()
        for i in np.flatnonzero(active):
            past = 0.0 if not seen[i] else 1 - 1 / (seen[i] + 1) if decay is None else decay
            for _ in range(int(step - when[i]) - 1 if seen[i] else 0):  # those it has missed
                mean[i] = past * mean[i] + (1 - past) * row[i]
            when[i] = step
            r = row[i] / mean[i] if seen[i] else 1.0
            moved = past * ratio[i] + (1 - past) * r
            squares[i] += (r - ratio[i]) * (r - moved)
            ratio[i], mean[i] = moved, past * mean[i] + (1 - past) * row[i]
            deviation[i] = np.sqrt(squares[i] / (seen[i] + 1) + 1e-8)
            seen[i] += 1
    return weights


TWINS = {
    "magnitudes": (MagnitudeBalance, magnitudes),
    "slopes": (lambda: SoftAdapt(beta=0.1), slopes),
    "variations": (CoVWeighting, variations),
    "variations that decay": (lambda: CoVWeighting(0.8), lambda v: variations(v, 0.8)),
    **{
        f"averages over {n}": (
            lambda n=n: DynamicWeightAverage(period=n),
            lambda values, n=n: averages(values, n),
        )
        for n in (1, 2, 3)
    },
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", TWINS)
def test_steps_without_a_value_are_passed_over(kind, seed):
    make, twin = TWINS[kind]
    values = losses(steps=30, seed=seed)
    holes = np.random.default_rng(seed).random((30, 2)) < 0.25
    values[:, :2][holes] = np.nan  # the last one is always there
    close(run(make(), values), twin(values.astype("float64")), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("kind", TWINS)
def test_a_component_that_appears_when_the_others_are_gone_counts_as_alone(kind):
    make, twin = TWINS[kind]
    values = losses(steps=12)
    values[:6, 0] = values[6:, 1:] = np.nan
    close(run(make(), values), twin(values.astype("float64")), rtol=2e-3, atol=1e-5)


# Zeros, and values of every size.


@every_rule
@pytest.mark.parametrize("first", [0, 7], ids=["at first", "later"])
def test_a_zero_spoils_nothing(cls, first):
    values = losses()
    values[first, 0] = 0.0
    values[first + 1, :2] = 0.0
    values[first + 2] = 0.0
    rule = PLAIN[cls]()
    weights = run(rule, values)
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert all(np.all(np.isfinite(value)) for value in state_of(rule))
    assert_sum(cls, weights, True)


@every_rule
def test_components_of_0_all_the_time_spoil_nothing(cls):
    for zeros in ([0], [0, 1, 2]):
        values = losses()
        values[:, zeros] = 0.0
        weights = run(PLAIN[cls](), values)
        assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
        assert_sum(cls, weights, True)


FORGETFUL = {
    ReLoBRaLo: lambda: ReLoBRaLo(alpha=0.9, rho=1.0),  # else it looks back at the first values
    MagnitudeBalance: lambda: MagnitudeBalance(momentum=0.9),
    Smoothed: lambda: Smoothed(MagnitudeBalance(momentum=0.9, max_weight=10.0), 0.8),
}


@rules_but(FAMO, GeometricMean)  # they divide by the value of the step
def test_a_zero_in_one_step_is_soon_forgotten(cls):
    values = losses(steps=60, low=0.5)
    for step in (0, 7):
        spoilt = values.copy()
        spoilt[step, 1] = 0.0
        make = FORGETFUL.get(cls, PLAIN[cls])
        clean, found = run(make(), values)[-1], run(make(), spoilt)[-1]
        assert np.all(found <= 2 * clean + 0.05) and np.all(found >= clean / 2 - 0.05), step


SIZES = {
    "tiny": [1e-30, 1e-30, 1e-30],
    "huge": [4e29, 4e29, 4e29],
    "all": [1e-30, 1.0, 4e29],
    "far": [1e-8, 1.0, 1e8],
}


@pytest.mark.parametrize("sizes", SIZES)
@every_rule
def test_values_of_every_size_give_finite_weights(cls, sizes):
    values = losses() * np.array(SIZES[sizes], "float32")
    rule = PLAIN[cls]()
    weights, terms = run_with_terms(rule, values)
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0) and np.all(np.isfinite(terms))
    assert all(np.all(np.isfinite(value)) for value in state_of(rule))
    assert_sum(cls, weights, True)


@every_rule
def test_values_may_jump_by_any_factor(cls):
    values = losses()
    values[3::4, 0] *= np.float32(1e30)
    values[2::4, 1] *= np.float32(1e-30)
    rule = PLAIN[cls]()
    weights = run(rule, values)
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert all(np.all(np.isfinite(value)) for value in state_of(rule))
    assert_sum(cls, weights, True)


@rules_but(GeometricMean, FAMO)
def test_negative_values_give_finite_weights(cls):
    rule = PLAIN[cls]()
    weights = run(rule, losses() - 1)
    assert np.all(np.isfinite(weights))
    assert all(np.all(np.isfinite(value)) for value in state_of(rule))


# Weights that are learned.

KINDS = ("regression", "classification", "revised")
MIXED = list(KINDS)


def uncertainty_weights(s, kinds):
    return np.exp(-s) * np.where(np.array(kinds) == "classification", 1.0, 0.5)


def uncertainty_total(s, values, kinds, c=1.0):
    terms = np.where(np.array(kinds) == "revised", np.log1p(np.exp(s)), s / 2)
    return np.sum(c * uncertainty_weights(s, kinds) * values + terms)


def slopes_of(s, *rest):
    found = []
    for index in range(len(s)):
        step = np.eye(len(s))[index] * 1e-6
        ahead, behind = uncertainty_total(s + step, *rest), uncertainty_total(s - step, *rest)
        found.append((ahead - behind) / 2e-6)
    return np.array(found)


def log_variances(rule):
    (found,) = rule.trainable_variables
    return ops.convert_to_numpy(found.value)


@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
def test_the_optimizer_follows_the_slope_of_the_total(kind):
    """A step of SGD of rate 1 shows the gradient."""
    kinds = kind if isinstance(kind, list) else [kind] * 3
    values, c = losses(steps=3).astype("float64"), np.array([2.0, 0.5, 1.0])
    rule = UncertaintyWeighting(kind, initial=0.25)
    _, model = model_of_parts(3, c.tolist(), rule, keras.optimizers.SGD(1.0))
    s = np.full(3, 0.25)
    for row in values:
        logs = log_of_steps(model, row[None])
        assert logs["loss"][0] == pytest.approx(uncertainty_total(s, row, kinds, c), rel=1e-5)
        expected = c * uncertainty_weights(s, kinds)
        close([logs[f"part{i}_weight"][0] for i in range(3)], expected)
        s = s - slopes_of(s, row, kinds, c)
        close(log_variances(rule), s, rtol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
def test_its_own_steps_follow_the_same_slope(kind):
    kinds = kind if isinstance(kind, list) else [kind] * 3
    values, s = losses(steps=8).astype("float64"), np.full(3, -0.5)
    weights, terms = run_with_terms(UncertaintyWeighting(kind, -0.5, 0.1), values)
    for row, found, term in zip(values, weights, terms, strict=True):
        close(found, uncertainty_weights(s, kinds))
        assert term + found @ row == pytest.approx(uncertainty_total(s, row, kinds), rel=1e-5)
        s = s - 0.1 * slopes_of(s, row, kinds)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_in_the_end_a_component_weighs_one_over_two_values(kind):
    values = np.tile([0.25, 1.0, 8.0], (600, 1))
    close(run(UncertaintyWeighting(kind, learning_rate=0.1), values)[-1], 1 / (2 * values[0]), 1e-3)


def test_the_revised_total_is_never_negative():
    values = losses(steps=300, low=1e-4, high=1e-2)
    for kind, sign in (("revised", 1), ("regression", -1)):
        weights, terms = run_with_terms(UncertaintyWeighting(kind, learning_rate=0.2), values)
        assert np.sign((weights * values).sum(axis=1) + terms)[-1] == sign


@pytest.mark.parametrize("size, limit", [(1e30, 10.0), (0.0, -10.0)])
def test_its_own_steps_stay_within_limits_and_come_back(size, limit):
    rule = UncertaintyWeighting(learning_rate=5.0)
    weights = run(rule, np.full((40, 2), size, "float32"))
    close(weights[-1], np.full(2, np.exp(-limit) / 2), rtol=1e-4)
    back = run(rule, np.ones((40, 2), "float32"))
    assert np.all(np.abs(np.log(2 * back[-1])) < 9.9)


@pytest.mark.parametrize("size, limit", [(1e6, 10.0), (0.0, -10.0)])
def test_the_optimizer_stays_within_limits_and_comes_back(size, limit):
    rule = UncertaintyWeighting()
    _, model = model_of_parts(2, None, rule, keras.optimizers.SGD(30.0))
    log_of_steps(model, np.full((3, 2), size, "float32"))
    close(log_variances(rule), np.full(2, limit))
    # A gradient leads back from there: down by 1/2, or up by w * l.
    log_of_steps(model, np.full((1, 2), 0.0 if limit > 0 else 6e-5, "float32"))
    assert np.all(np.abs(log_variances(rule)) < 9.9)


def test_without_values_the_log_variances_stay():
    rule = UncertaintyWeighting()
    _, model = model_of_parts(2, [1.0, 0.0], rule, keras.optimizers.SGD(1.0))
    before = log_variances(rule)[0]
    log_of_steps(model, np.array([[1.0, np.nan]], "float32"))
    after = log_variances(rule)
    assert after[0] == before + 0.5 - 0.5 and after[1] == 0


@pytest.mark.parametrize("option", [{"warmup": 5}, {"update_every": 5}], ids=str)
def test_at_its_optimum_the_log_variance_stays_also_while_weights_are_held(option):
    """Where e^s = l; by its own steps and by the optimizer."""
    values = np.full((5, 2), 2.0, "float32")
    own = UncertaintyWeighting(initial=float(np.log(2)), learning_rate=0.1, **option)
    run(own, values)
    close(ops.convert_to_numpy(own._state["log_variances"].value), np.log([2.0, 2.0]), rtol=1e-5)
    learned = UncertaintyWeighting(initial=float(np.log(2)), **option)
    _, model = model_of_parts(2, None, learned, keras.optimizers.SGD(0.1))
    log_of_steps(model, values)
    close(log_variances(learned), np.log([2.0, 2.0]), rtol=1e-5)


def test_a_capped_weight_comes_back_when_its_component_grows():
    rule = UncertaintyWeighting(max_weight=1.0)
    _, model = model_of_parts(1, None, rule, keras.optimizers.SGD(1.0))
    log_of_steps(model, np.full((12, 1), 0.1, "float32"))
    logs = log_of_steps(model, np.full((12, 1), 10.0, "float32"))
    assert logs["part0_weight"][-1] < 0.5


# Smoothing.


def test_a_smoothed_rule_moves_slowly():
    values = losses()
    raw = run(SoftAdapt(beta=3.0), values)
    expected = [raw[0]]
    for row in raw[1:]:
        expected.append(0.75 * expected[-1] + 0.25 * row)
    close(run(Smoothed(SoftAdapt(beta=3.0), momentum=0.75), values), np.array(expected))


def test_smoothed_by_nothing_it_is_the_rule():
    values = losses()
    for make in (SoftAdapt, MagnitudeBalance, Worst, PLAIN[RandomWeighting]):
        close(run(Smoothed(make(), momentum=0.0), values), run(make(), values))


def test_twice_smoothed_is_smoothed_twice():
    values = losses()
    once = run(Smoothed(SoftAdapt(beta=3.0), 0.5), values)
    expected = [once[0]]
    for row in once[1:]:
        expected.append(0.5 * expected[-1] + 0.5 * row)
    twice = Smoothed(Smoothed(SoftAdapt(beta=3.0), 0.5), 0.5)
    close(run(twice, values), np.array(expected))


def test_a_smoothed_rule_keeps_the_term_of_the_rule():
    """The total of `Worst` is the worst one, whatever weights give the gradient."""
    values = losses()
    weights, terms = run_with_terms(Smoothed(Worst()), values)
    close((weights * values).sum(axis=1) + terms, values.max(axis=1), rtol=1e-5, atol=1e-6)
    assert cl.CompositeLoss(["mse"], weighting=Smoothed(Worst())).weighting.has_term


def test_epochs_and_the_fixed_weights_reach_the_smoothed_rule():
    values, rule = losses(steps=12), Smoothed(DynamicWeightAverage(), momentum=0.0)
    found = []
    for epoch in range(4):
        found.append(run(rule, values[3 * epoch : 3 * epoch + 3]))
        rule.end_epoch()
    close(np.concatenate(found), run(DynamicWeightAverage(period=3), values))
    close(run(Smoothed(Average()), values, [7.0, 2.0, 1.0]), np.full((12, 3), 0.1))


# Bad arguments.

NUMBERS = ["a", None, True, np.nan, np.inf]


def bad_arguments():
    """`(class, argument, what the message says is allowed, bad values)`."""
    yield Worst, "temperature", "a finite number above 0", [0, -1.0, "a", True, np.nan, np.inf]
    not_numbers = [np.nan, [1.0, np.inf], "a", ["a"], 1e31]
    yield Worst, "weights", "finite numbers from 0 to 1e+30", [-1, [1.0, -1e-9], *not_numbers]
    yield Worst, "reference", "finite numbers", not_numbers
    yield MagnitudeBalance, "momentum", "of at least 0 and below 1", [-0.1, 1, *NUMBERS]
    yield MagnitudeBalance, "eps", "above 0", [0, -1e-3, *NUMBERS]
    yield GeometricMean, "lower_bound", "a finite number", NUMBERS
    yield DynamicWeightAverage, "temperature", "above 0", [0, -2, *NUMBERS]
    yield DynamicWeightAverage, "period", "'epoch' or a number of steps", [0, 1.5, True, "step"]
    yield DynamicWeightAverage, "lower_bound", "a finite number", NUMBERS
    yield ReLoBRaLo, "lower_bound", "a finite number", NUMBERS
    yield SoftAdapt, "beta", "a finite number", NUMBERS
    yield SoftAdapt, "normalized", "True or False", ["no", 2, None]
    yield SoftAdapt, "loss_weighted", "True or False", ["no", 2, None]
    yield ReLoBRaLo, "alpha", "of at least 0 and at most 1", [-0.1, 1.1, *NUMBERS]
    yield ReLoBRaLo, "rho", "of at least 0 and at most 1", [-0.1, 1.1, *NUMBERS]
    yield ReLoBRaLo, "temperature", "above 0", [0, -1, *NUMBERS]
    yield ReLoBRaLo, "seed", "None or an integer", ["a", 1.5, True]
    yield RandomWeighting, "seed", "None or an integer", ["a", 1.5, True]
    yield CoVWeighting, "decay", "above 0 and below 1", [0, 1, "a", True, np.nan]
    yield FAMO, "learning_rate", "above 0", [0, -1, *NUMBERS]
    yield FAMO, "weight_decay", "of at least 0", [-1e-3, *NUMBERS]
    yield FAMO, "lower_bound", "a finite number", NUMBERS
    kinds = "'regression', 'classification' or 'revised'"
    yield UncertaintyWeighting, "kind", kinds, ["l2", None, [], ["regression", "l2"], 3]
    yield UncertaintyWeighting, "initial", "at most 10", [-11, 10.5, *NUMBERS]
    yield UncertaintyWeighting, "learning_rate", "above 0", [0, -1, "a", True, np.nan]


@pytest.mark.backend_free
@each_bad(bad_arguments())
def test_a_bad_argument_is_an_error_that_says_so(cls, name, allowed, value):
    with raises(ValueError, f"`{name}`", cls.__name__, allowed, f"Received: {value!r}"):
        cls(**{name: value})


@pytest.mark.backend_free
def test_every_argument_of_its_own_has_bad_values():
    from tests.weightings.rules import OWN

    given = set(itertools.chain.from_iterable(((cls, name) for name in OWN[cls]) for cls in OWN))
    assert given == {(cls, name) for cls, name, *_ in bad_arguments()} | {(Smoothed, "momentum")}


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [-0.1, 1, *NUMBERS])
def test_a_bad_momentum_of_smoothing_is_an_error(bad):
    with raises(ValueError, "`momentum` of Smoothed", "below 1", f"Received: {bad!r}"):
        Smoothed(SoftAdapt(), bad)


@pytest.mark.backend_free
@pytest.mark.parametrize("bad", [SoftAdapt, "soft", None, UncertaintyWeighting()])
def test_only_a_rule_that_is_not_learned_can_be_smoothed(bad):
    with raises(ValueError, "Smoothed", "rule of cl.weightings", f"Received: {bad!r}"):
        Smoothed(bad)


def test_one_kind_for_each_component():
    rule = UncertaintyWeighting(["regression", "revised"])
    with raises(ValueError, "`kind` of UncertaintyWeighting", "3 components", "Received: ['regr"):
        cl.CompositeLoss(["mse", "mae", "mape"], weighting=rule)


@pytest.mark.parametrize("name", ["weights", "reference"])
def test_one_number_for_each_component(name):
    with raises(ValueError, f"`{name}` of Worst", "3 components", "Received: [1.0, 2.0]"):
        cl.CompositeLoss(["mse", "mae", "mape"], weighting=Worst(**{name: [1.0, 2.0]}))


def test_a_frozen_model_keeps_its_layers():
    """The models of these tests are what they are said to be."""
    _, model = model_of_parts(2, None, MagnitudeBalance())
    before = frozen(model)
    log_of_steps(model, losses(k=2)[:3])
    np.testing.assert_array_equal(before, frozen(model))
