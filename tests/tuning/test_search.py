"""`cl.search` on small problems."""

import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.processes import PACKAGE
from tests.tuning.small import NotFinite, X, Y, build, model_of, search

ROOT = Path(__file__).parents[2]

REFERENCES = ["equal weights", "proposed by diagnose", "as compiled"]


def test_what_a_search_has():
    found = search(trials=3, confirm=2, seeds=2)
    assert [run.name for run in found.references] == REFERENCES
    assert [run.name for run in found.trials] == ["trial 0", "trial 1", "trial 2"]
    assert found.references[0].parameters == {"fit": 1.0, "under": 1.0, "weighting": "none"}
    for run in found.finished:
        assert len(run.per_seed["val_mae"]) == 2
        assert run.values["val_mae"] == np.mean(run.per_seed["val_mae"])
        assert run.seconds_per_step > 0
    best = min(found.finished, key=lambda run: run.values["val_mae"])
    assert found.winner == best == found.best.run
    assert found.pareto == [best]
    gain = found.best.gains["val_mae"]
    assert gain.mean == pytest.approx(found.equal.values["val_mae"] - best.values["val_mae"])
    assert gain.low <= gain.mean <= gain.high
    table = str(found)
    assert all(run.name in table for run in found.runs)
    assert str(found.best) in table
    json.dumps([dict(run.parameters) for run in found.runs])


def test_references_that_are_alike_reach_the_same():
    """Equal weights and those as compiled are the same here, and so are their seeds."""
    found = search(trials=1)
    equal, _, compiled = found.references
    assert equal.per_seed == compiled.per_seed


def test_the_same_search_again_gives_the_same(tmp_path):
    first, second = (search(trials=2) for _ in range(2))
    assert [run.per_seed for run in first.runs] == [run.per_seed for run in second.runs]
    stored = search(trials=1, storage=tmp_path / "a.db")
    more = search(trials=2, storage=tmp_path / "a.db")
    assert stored.trials == more.trials[:1]
    assert [run.per_seed for run in more.runs] == [run.per_seed for run in first.runs]


def test_build_best_has_the_weights_of_the_best():
    found = search(trials=2)
    searched = {n: value for n, value in found.best.parameters.items() if n != "weighting"}
    weights = {"fit": 1.0, "under": 1.0, **searched}
    model = found.build_best()
    assert model.loss.weights == pytest.approx(weights)
    assert int(ops.convert_to_numpy(model.optimizer.iterations.value)) == 0
    model.fit(X, Y, verbose=0)


def test_rules_ends_of_schedules_and_inner_weights_are_searched():
    def make():
        inner = cl.CompositeLoss({"mae": "mae", "huber": "huber"})
        losses = {"fit": "mse", "robust": inner, "under": cl.losses.UnderestimationPenalty()}
        ramp = cl.weightings.LinearRamp(steps=4, end=1.0)
        return model_of(cl.CompositeLoss(losses, weights={"under": ramp}))

    parameters = {
        "robust/huber": [0.0, 0.5],
        "under.end": (0.1, 1.0),
        "weighting": [None, cl.weightings.MagnitudeBalance(momentum=0.5)],
    }
    found = search(make, parameters=parameters, trials=3)
    labels = {run.parameters["weighting"] for run in found.trials}
    assert labels <= {"none", "MagnitudeBalance(momentum=0.5)"}
    for run in found.trials:
        loss = found._builder(run).loss
        assert loss.losses["robust"].weights["huber"] == run.parameters["robust/huber"]
        assert loss._node.own_weights.schedules["under"].end == run.parameters["under.end"]
        assert (loss.weighting is None) == (run.parameters["weighting"] == "none")


def test_the_trained_weights_are_those_of_the_trial():
    """A trial is an ordinary `fit`: the same by hand gives the same number."""
    found = search(trials=1)
    run = found.trials[0]
    keras.utils.set_random_seed(0)
    model = build()
    model.loss.set_weight("under", run.parameters["under"])
    history = model.fit(X, Y, validation_split=0.25, epochs=2, batch_size=24, verbose=0).history
    assert history["val_mae"][-1] == pytest.approx(run.values["val_mae"], rel=1e-6)


def test_several_objectives_have_a_front_and_a_preference():
    goals = {"val_fit_loss": "min", "val_under_loss": "min"}
    found = search(objectives=goals, trials=4, epochs=3)
    points = {r.name: [r.values[k] for k in goals] for r in found.finished}
    for run in found.finished:
        others = np.array([p for name, p in points.items() if name != run.name])
        mine = np.array(points[run.name])
        dominated = np.any(np.all(others <= mine, axis=1) & np.any(others < mine, axis=1))
        assert (run in found.pareto) == (not dominated)
    assert found.winner in found.pareto
    assert all(run.state == "finished" for run in found.trials)  # none is stopped early


def test_a_preference_moves_the_choice():
    goals = {"val_fit_loss": "min", "val_under_loss": "min"}
    for key in goals:
        other = next(k for k in goals if k != key)
        found = search(objectives=goals, trials=3, epochs=3, prefer={other: 1e-6})
        best = min(run.values[key] for run in found.finished)
        assert found.winner.values[key] == best


def test_a_trial_that_is_nan_names_the_component_and_the_search_goes_on():
    def make():
        losses = {"fit": "mse", "bad": NotFinite()}
        return model_of(cl.CompositeLoss(losses, weights={"bad": 0.0}))

    found = search(make, parameters={"bad": [0.0, 1.0]}, trials=4)
    failed = [run for run in found.trials if run.parameters["bad"] == 1.0]
    assert failed and all(
        run.note == "Component 'bad' is nan in step 1 (epoch 1, batch 0)" for run in failed
    )
    assert found.best.parameters.get("bad", 0.0) == 0.0


def test_an_error_in_a_training_is_recorded_and_not_fatal():
    calls = []

    def make():
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("out of memory")
        return build()

    found = search(make, trials=3)
    notes = [run.note for run in found.runs if run.state == "failed"]
    assert notes == ["RuntimeError: out of memory"]
    assert "failed: RuntimeError: out of memory" in str(found)


def test_ctrl_c_keeps_what_there_is():
    calls = []

    def make():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return build()

    found = search(make, trials=5)
    assert 0 < len(found.finished) < 8


def test_a_trial_that_is_worse_than_the_median_is_stopped():
    found = search(parameters={"under": (1e-3, 1e3)}, trials=14, epochs=4)
    stopped = [run for run in found.trials if run.state == "stopped"]
    assert stopped and all(run.note == "after epoch 2" for run in stopped)
    assert len(stopped) <= 9  # not the first five
    assert all(run not in found.finished for run in stopped)


def test_models_are_freed_between_trainings():
    models, alive = [], []

    def make():
        alive.append(sum(model() is not None for model in models))
        model = build()
        models.append(weakref.ref(model))
        return model

    found = search(make, trials=3, confirm=1)
    assert alive == [0, 1, *[0] * (len(models) - 2)]  # the second is compared with the first
    gc.collect()
    assert found.trials and not any(model() is not None for model in models)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others keep no graphs")
def test_the_graphs_of_compiled_steps_are_freed_too():
    from tensorflow.python.framework.func_graph import FuncGraph

    def graphs():
        gc.collect()
        return sum(isinstance(each, FuncGraph) for each in gc.get_objects())

    before = graphs()
    search(build, trials=1, confirm=0)
    assert graphs() == before


KILLED = """
import os, signal, sys
from tests.tuning import small

built = []


def make():
    built.append(1)
    if len(built) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return small.build()


found = small.search(make, trials=4, storage="search.db", epochs=3)
print([(dict(run.parameters), run.values, run.state, run.note) for run in found.runs])
"""


@pytest.mark.thorough
def test_a_search_that_was_killed_has_the_runs_of_one_that_was_not(tmp_path):
    path = os.pathsep.join([str(PACKAGE.parent), str(ROOT)])
    printed = {}
    for folder, killed_at in (("whole", 0), ("part", 7), ("part", 0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(killed_at)],
            cwd=tmp_path / folder,
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == (-signal.SIGKILL if killed_at else 0), done.stderr
        printed[folder] = done.stdout.strip().splitlines()[-1:]
    assert printed["part"] == printed["whole"]
    assert printed["whole"]


# Bad input.

WRONG = {
    "unknown component": ({"parameters": {"undr": (0.1, 1.0)}}, "'fit' and 'under'.*'undr'"),
    "range with 0": ({"parameters": {"under": (0.0, 1.0)}}, "0 < low < high.*Received: .0.0"),
    "range reversed": ({"parameters": {"under": (1.0, 0.1)}}, "0 < low < high.*Received: .1.0"),
    "no range": ({"parameters": {"under": "0.1"}}, "0 < low < high.*Received: '0.1'"),
    "no parameters": ({"parameters": {}}, "`parameters` must be a dict.*Received: {}"),
    "unknown rule": ({"parameters": {"weighting": ["UPGrd"]}}, "'UPGrad'.*Received: 'UPGrd'"),
    "no log key": ({"objectives": "val_mea:min"}, "first step logs .*'val_mae'.*'val_mea'"),
    "no direction": ({"objectives": "val_mae"}, "with its direction.*Received: 'val_mae'"),
    "no validation": ({"validation": None}, "pass `validation=`.*Received: 'val_mae'"),
    "no trials": ({"trials": 0}, "`trials` must be an integer of at least 1.*Received: 0"),
    "no seeds": ({"seeds": 0}, "`seeds`.*Received: 0"),
    "part of a trial": ({"trials": 2.5}, "`trials` must be an integer.*Received: 2.5"),
    "no epochs": ({"epochs": 0}, "`epochs` must be an integer of at least 1.*Received: 0"),
    "no seed": ({"seed": "a"}, "`seed` must be an integer of at least 0.*Received: 'a'"),
    "no function": ({"make": 3}, "`build` must be a function.*Received: 3 of type int"),
    "no objective": ({"objectives": None}, "`objectives` must be.*Received: None"),
    "twice": ({"objectives": ["mae:min", "mae:max"]}, "must be different log keys"),
    "a share of 1": ({"validation": 1.0}, "`validation` must be a share.*Received: 1.0"),
    "a share of 0": ({"validation": 0}, "`validation` must be a share.*Received: 0"),
    "an array alone": ({"validation": X}, "`validation` must be .x, y.*Received: ndarray"),
    "four parts": ({"validation": (X, Y, Y, Y)}, "`validation` must be .x, y.*4 entries"),
    "no rules": ({"parameters": {"weighting": "UPGrad"}}, "must be a list of rules"),
    "rules that are alike": ({"parameters": {"weighting": [None, "none"]}}, "different rules"),
    "a schedule as a rule": ({"parameters": {"weighting": ["LinearRamp"]}}, "'LinearRamp'"),
    "a base as a rule": ({"parameters": {"weighting": ["Weighting"]}}, "'Weighting'$"),
    "choices that are alike": ({"parameters": {"under": [1, 1.0]}}, "different finite numbers"),
    "an argument of no schedule": ({"parameters": {"under.end": (0.1, 1.0)}}, "'under.end'"),
    "an unknown preference": ({"prefer": {"val_mea": 1}}, "`prefer` must be.*'val_mea'"),
    "a preference of 0": ({"prefer": {"val_mae": 0}}, "`prefer` must be.*'val_mae': 0"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_searched(given, message):
    with pytest.raises(ValueError, match=message):
        search(**given)


def test_a_weight_and_another_argument_of_its_schedule():
    def make():
        ramp = cl.weightings.LinearRamp(steps=4, end=1.0)
        return model_of(cl.CompositeLoss({"fit": "mse", "far": "mae"}, weights={"far": ramp}))

    with pytest.raises(ValueError, match=r"a weight ends the schedule.*both for 'far.end'"):
        search(make, parameters={"far": (0.1, 1.0), "far.end": (0.1, 1.0)})


@pytest.mark.parametrize(
    "data", [None, X, {"x": X, "y": Y}, "data.npz"], ids=["none", "array", "dict", "path"]
)
def test_data_in_another_form(data):
    with pytest.raises(ValueError, match=r"`data` must be .x, y.*Received: "):
        search(data=data)


OTHERS = {
    "data": {"data": (X, Y + 1)},
    "labels of validation": {"validation": (X, Y)},
    "share of validation": {"validation": 0.5},
    "model": {
        "make": lambda: model_of(
            cl.CompositeLoss({"fit": "mse", "under": "mae"}, weights={"fit": 2.0})
        )
    },
    "batches": {"batch_size": 12},
    "epochs": {"epochs": 3},
    "seed": {"seed": 1},
    "range": {"parameters": {"under": (0.01, 20.0)}},
    "objective": {"objectives": "val_fit_loss"},
}


@pytest.fixture(scope="module")
def storage_of_a_search(tmp_path_factory):
    storage = tmp_path_factory.mktemp("searches") / "search.db"
    search(storage=storage, trials=1)
    return storage


@pytest.mark.parametrize("given", OTHERS.values(), ids=OTHERS)
def test_a_storage_of_another_search(given, storage_of_a_search):
    with pytest.raises(ValueError, match="`storage` holds another search"):
        search(storage=storage_of_a_search, **given)


def uncompiled():
    return cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def untracked():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    return model


def trained():
    model = build()
    model.fit(X, Y, verbose=0)
    return model


MODELS = {
    "not compiled": (uncompiled, "Received: a model that is not compiled"),
    "not tracked": (untracked, "does not report components"),
    "no model": (lambda: None, "Received: None of type NoneType"),
    "trained": (trained, "has not been trained"),
}


@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_models_that_cannot_be_searched(make, message):
    with pytest.raises(ValueError, match=message):
        search(make)


def test_a_build_that_returns_the_same_again():
    model = build()
    with pytest.raises(ValueError, match="new model and a new loss in every call"):
        search(lambda: model)
    loss = cl.CompositeLoss({"fit": "mse", "under": "mae"})
    with pytest.raises(ValueError, match="Received: two models that share them"):
        search(lambda: model_of(loss))


def test_a_weighted_sum_as_the_objective_gives_a_warning():
    with pytest.warns(UserWarning, match="smallest weights"):
        search(objectives="val_loss", trials=1)


def test_data_that_can_be_read_once():
    with pytest.raises(ValueError, match=r"read once for every training.*generator"):
        cl.search(
            build,
            ((X, Y) for _ in range(2)),
            parameters={"under": (0.1, 1.0)},
            objectives="mae:min",
            storage=None,
        )
