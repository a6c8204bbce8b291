"""`cl.compare` and `cl.pareto` on small problems; what their numbers mean, on given runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.tuning import Comparison, Front, Run
from combined_losses.tuning.grid import joined_runs
from combined_losses.tuning.objectives import as_objectives
from combined_losses.tuning.results import as_record
from combined_losses.tuning.settings import every_rule
from combined_losses.tuning.study import LOGICAL, RECORD
from tests.tuning.small import NotFinite, X, Y, build, fit, model_of

GOALS = as_objectives("val_mae:min")


def compare(make=build, **kwargs):
    given = {"objectives": "val_mae:min", "rules": ["FAMO"], "seeds": 2}
    return cl.compare(make, (X, Y), **fit(**{**given, **kwargs}))


def pareto(make=build, **kwargs):
    return cl.pareto(make, (X, Y), **fit(**{"parts": ("fit", "under"), "seeds": 1, **kwargs}))


def run(name, *values, key="val_mae"):
    return Run(name, {}, {key: list(values)}, seconds_per_step=1.0)


def test_what_a_comparison_has():
    rules = [None, "MagnitudeBalance", cl.weightings.Worst(temperature=0.5), {"under": 0.1}]
    found = compare(rules=rules)
    names = ["MagnitudeBalance", "Worst(temperature=0.5)", "weights {'under': 0.1}"]
    assert [each.name for each in found.runs] == ["equal weights", "as compiled", *names]
    assert all(len(each.per_seed["val_mae"]) == 2 for each in found.runs)
    gain = found.differences["as compiled"]["val_mae"]
    assert (gain.mean, gain.low, gain.high) == (0, 0, 0)  # they are equal weights here
    assert not gain.exceeds_noise
    assert all(each.name in str(found) for each in found.runs)
    assert found.lines[0].startswith("val_mae: ")


def test_a_rule_has_fixed_weights_of_1():
    """So that only the rule differs from equal weights, whatever the model is compiled with."""

    def heavy():
        losses = {"fit": "mse", "under": cl.losses.UnderestimationPenalty()}
        return model_of(cl.CompositeLoss(losses, weights={"under": 5.0}))

    first, second = (compare(make, rules=["Average"]) for make in (build, heavy))
    assert first.runs[2].per_seed == second.runs[2].per_seed
    assert first.runs[1].per_seed != second.runs[1].per_seed  # as compiled


def test_by_default_every_rule_sees_all_gradients():
    """Also of a component that differentiates the model, past its output."""

    def slope(model, x, y, y_pred):
        return ops.square(cl.input_gradients(model, x)[:, :1, 0])

    with_slope = cl.CompositeLoss({"fit": "mse", "slope": cl.wrappers.OnInputs(slope)})
    plain, beyond = every_rule(build().loss), every_rule(with_slope)
    assert [type(rule) for rule in plain] == [type(rule) for rule in beyond]
    places = {rule.place for rule in beyond if rule.reads_gradients}
    assert places == {"parameters"}
    assert "output" in {rule.place for rule in plain if rule.reads_gradients}


def test_a_comparison_goes_on(tmp_path):
    whole = compare()
    calls = []

    def broken():
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return build()

    part = compare(broken, storage=tmp_path / "a.db")
    assert 0 < sum(len(each.per_seed["val_mae"]) for each in part.runs) < 6
    assert [each.per_seed for each in compare(storage=tmp_path / "a.db").runs] == [
        each.per_seed for each in whole.runs
    ]


def test_the_interval_is_that_of_paired_differences():
    """Against scipy's test of paired samples."""
    from scipy import stats

    rng = np.random.default_rng(0)
    base, other = rng.normal(size=(2, 6)) + np.arange(6)  # the seeds differ more than the rules
    found = Comparison(GOALS, [run("equal weights", *base), run("other", *other)])
    gain = found.differences["other"]["val_mae"]
    expected = stats.ttest_rel(base, other).confidence_interval(0.95)
    np.testing.assert_allclose((gain.low, gain.high), expected)
    assert gain.mean == pytest.approx(np.mean(base - other))


def test_seeds_are_compared_in_pairs_also_where_one_is_missing():
    """Another process may still work on a seed in the middle."""
    names = ["equal weights", "other"]
    done = [
        SimpleNamespace(user_attrs={LOGICAL: number, RECORD: as_record(run("", float(number)))})
        for number in (0, 1, 2, 4, 5)  # 3 is seed 1 of the other
    ]
    runs = joined_runs(SimpleNamespace(trials=done), lambda n: (names[n % 2], n // 2))
    assert [each.per_seed["val_mae"] for each in runs] == [[0.0, 2.0, 4.0], [1.0]]
    found = Comparison(GOALS, runs)
    assert found.differences["other"]["val_mae"].mean == -1.0
    assert "nan" not in str(found)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_better_is_above_0_in_both_directions(direction):
    goals = as_objectives(f"val_mae:{direction}")
    low, high = run("low", 1.0, 1.1, 0.9), run("high", 2.0, 2.1, 1.9)
    equal, other = (high, low) if direction == "min" else (low, high)
    runs = [run("equal weights", *equal.per_seed["val_mae"]), other]
    found = Comparison(goals, runs)
    assert found.differences[other.name]["val_mae"].exceeds_noise
    assert found.lines[0].startswith(f"val_mae: {other.name} beats equal weights")


def test_what_is_within_the_noise_is_said_to_be():
    runs = [run("equal weights", 1.0, 2.0, 3.0), run("other", 1.5, 1.5, 2.5)]
    assert Comparison(GOALS, runs).lines == [
        "val_mae: no rule beats equal weights by more than the noise of 3 seeds."
    ]


def test_a_rule_that_fails_is_in_the_table_and_not_compared():
    runs = [run("equal weights", 1.0, 2.0), Run("bad", {}, state="failed", note="it broke")]
    found = Comparison(GOALS, runs)
    assert found.differences == {}
    assert "failed: it broke" in str(found)


WRONG = {
    "one seed": ({"seeds": 1}, "`seeds` must be an integer of at least 2.*Received: 1"),
    "no list": ({"rules": "UPGrad"}, "`rules` must be a list.*Received: 'UPGrad'"),
    "unknown rule": ({"rules": ["UPGrd"]}, "'UPGrad'.*Received: 'UPGrd'"),
    "unknown component": ({"rules": [{"undr": 1.0}]}, "name components.*'undr'"),
    "a weight that is none": ({"rules": [{"under": "1"}]}, "weight of component 'under'.*'1'"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_compared(given, message):
    with pytest.raises(ValueError, match=message):
        compare(**given)


# The front.


@pytest.mark.parametrize("method", ["weights", "tchebycheff"])
def test_what_a_front_has(method):
    found = pareto(points=4, epochs=30, method=method)
    assert [each.name for each in found.runs][:2] == ["1 : 0", "0 : 1"]
    assert len(found.runs) == 4
    ends = [[each.values[goal.key] for goal in found.objectives] for each in found.runs[:2]]
    np.testing.assert_array_equal(found.utopia, np.min(ends, axis=0))
    np.testing.assert_array_equal(found.nadir, np.max(ends, axis=0))
    between = found.runs[2:]
    for each in between:  # it costs the one something to make the other better
        for i, goal in enumerate(found.objectives):
            assert each.values[goal.key] < found.nadir[i]
    assert found.hypervolume > 0


def test_a_front_that_was_stopped_has_what_there_is(tmp_path):
    calls = []

    def broken():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return build()

    storage = {"storage": tmp_path / "a.db", "points": 4, "epochs": 30}
    part = pareto(broken, **storage)
    assert [each.name for each in part.runs] == ["1 : 0", "0 : 1", "0.667 : 0.333"]
    whole = pareto(**storage)
    assert [each.per_seed for each in whole.runs[:3]] == [each.per_seed for each in part.runs]
    assert len(whole.runs) == 4


def area(points):
    """What points dominate in the unit square, counted on a grid."""
    cells = (np.arange(400) + 0.5) / 400
    x, y = np.meshgrid(cells, cells)
    return np.mean(np.any([(x >= a) & (y >= b) for a, b in points], axis=0))


@pytest.mark.parametrize("seed", range(3))
def test_the_hypervolume_is_the_area_that_is_dominated(seed):
    points = np.random.default_rng(seed).uniform(-0.2, 1.2, size=(7, 2))
    runs = [Run(str(i), {}, {"a_loss": [p[0]], "b_loss": [p[1]]}) for i, p in enumerate(points)]
    goals = as_objectives(["a_loss", "b_loss"])
    found = Front(goals, runs, np.zeros(2), np.ones(2))
    outside = np.clip(points, 0, None)  # below utopia counts as more than the box: not here
    clipped = Front(
        goals,
        [Run(str(i), {}, {"a_loss": [p[0]], "b_loss": [p[1]]}) for i, p in enumerate(outside)],
        np.zeros(2),
        np.ones(2),
    )
    assert clipped.hypervolume == pytest.approx(area(outside), abs=0.01)
    assert found.hypervolume >= clipped.hypervolume


WRONG_FRONTS = {
    "one part": ({"parts": ("fit",)}, "two components.*Received: .'fit',."),
    "unknown": ({"parts": ("fit", "undr")}, "'fit' and 'under'.*'undr'"),
    "points": ({"points": 2}, "`points` must be an integer of at least 3"),
    "method": ({"method": "sum"}, "'weights' or 'tchebycheff'.*'sum'"),
}


@pytest.mark.parametrize(("given", "message"), WRONG_FRONTS.values(), ids=WRONG_FRONTS)
def test_what_has_no_front(given, message):
    with pytest.raises(ValueError, match=message):
        pareto(**given)


def test_parts_that_are_not_in_conflict_have_no_front():
    def alike():
        return model_of(cl.CompositeLoss({"fit": "mse", "same": cl.losses.Charbonnier()}))

    with pytest.raises(ValueError, match="in conflict"):
        pareto(alike, parts=("fit", "same"), points=3)


def test_a_nan_end_names_the_component():
    def broken():
        return model_of(cl.CompositeLoss({"fit": "mse", "bad": NotFinite()}))

    with pytest.raises(ValueError, match=r"trained alone first.*'bad_loss' is nan in epoch 1"):
        pareto(broken, parts=("fit", "bad"), points=3)
