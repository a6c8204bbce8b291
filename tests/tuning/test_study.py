"""Trials in a storage: killed, shared, locked. The trials here are formulas, not trainings."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from combined_losses.tuning import study as study_module
from combined_losses.tuning.objectives import as_objectives
from combined_losses.tuning.owners import this_process
from combined_losses.tuning.study import LOGICAL, OWNER, RECORD, Study
from tests.processes import PACKAGE

GOALS = as_objectives("loss:min")
SEARCH = {"parameters": {"a": [0.01, 10.0]}, "seeds": 1}

PROGRAM = """
import os, signal, sys, time
from combined_losses.tuning.objectives import as_objectives
from combined_losses.tuning.study import LOGICAL, RECORD, Study

print("imported", flush=True)
sys.stdin.readline()
count, killed_at, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
study = Study("trials.db", "search", {"parameters": {"a": [0.01, 10.0]}, "seeds": 1},
              as_objectives("loss:min"), seed=3)
print("ready", flush=True)
sys.stdin.readline()
while True:
    with study.trial(count) as trial:
        if trial is None:
            break
        a = trial.suggest_float("a", 0.01, 10.0, log=True)
        b = trial.suggest_categorical("b", ["x", "y"])
        study.is_suggested(trial)
        if trial.user_attrs[LOGICAL] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
        trial.set_user_attr(RECORD, os.getpid())
        study.tell(trial, [(a - 0.5) ** 2 + (b == "x")])
"""


def start(folder, count, killed_at=-1, pause=0.0):
    script = folder / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, script.name, str(count), str(killed_at), str(pause)]
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "PYTHONPATH": path}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environ, text=True, **pipes)


def release(*processes):
    """Lets processes that wait go on, all at the same time."""
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def run(process):
    release(process), release(process)
    return process.wait(120)


def finished(folder):
    study = Study(folder / "trials.db", "search", SEARCH, GOALS, seed=3)
    return [(t.user_attrs[LOGICAL], t.params, t.values) for t in study.trials if t.values]


def test_a_study_that_was_killed_has_the_trials_of_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert run(start(whole, 24)) == 0
    assert run(start(killed, 24, killed_at=17)) == -signal.SIGKILL
    assert len(finished(killed)) == 17
    assert run(start(killed, 24)) == 0
    assert finished(killed) == finished(whole)
    assert [number for number, *_ in finished(whole)] == list(range(24))


def test_two_processes_divide_the_trials(tmp_path):
    both = [start(tmp_path, 40, pause=0.02) for _ in range(2)]
    release(*both)  # they make the file, at the same time
    release(*both)
    assert [process.wait(120) for process in both] == [0, 0]
    study = Study(tmp_path / "trials.db", "search", SEARCH, GOALS, seed=3)
    done = [trial for trial in study.trials if trial.values]
    assert [trial.user_attrs[LOGICAL] for trial in done] == list(range(40))
    assert len({trial.params["a"] for trial in done}) == 40
    assert len({trial.user_attrs[RECORD] for trial in done}) == 2  # both have worked


def take(study, count, number_of_errors=0):
    """The logical number and `a` of the next trial."""
    with study.trial(count) as trial:
        if trial is None:
            return None
        found = trial.user_attrs[LOGICAL], trial.suggest_float("a", 0.01, 10.0, log=True)
        study.is_suggested(trial)
        if number_of_errors:
            raise KeyboardInterrupt
        study.tell(trial, [found[1]])
    return found


@pytest.mark.backend_free
def test_a_trial_that_the_user_interrupts_is_repeated_with_its_parameters():
    plain, broken = (Study(None, "search", SEARCH, GOALS, seed=3) for _ in range(2))
    expected = [take(plain, 4) for _ in range(4)]
    take(broken, 4)
    with pytest.raises(KeyboardInterrupt):
        take(broken, 4, number_of_errors=1)
    assert [take(broken, 4) for _ in range(3)] == expected[1:]
    assert take(broken, 4) is None


def left_behind(study, owner=None):
    """A trial that was begun, as a process that was killed leaves it."""
    trial = study._study.ask()
    if owner is not None:
        trial.set_user_attr(OWNER, owner)
    return trial


@pytest.mark.backend_free
def test_a_trial_without_an_owner_is_repeated_after_a_while(monkeypatch):
    study, plain = (Study(None, "search", SEARCH, GOALS, seed=3) for _ in range(2))
    left_behind(study)
    assert study.is_waited_for(1)
    assert take(study, 1) is None  # its process may be about to say that it is its own
    monkeypatch.setattr(study_module, "GRACE", -1)
    assert [take(study, 3) for _ in range(4)] == [take(plain, 3) for _ in range(4)]


@pytest.mark.backend_free
def test_a_trial_whose_process_was_killed_before_it_had_it_repeated(monkeypatch):
    study, plain = (Study(None, "search", SEARCH, GOALS, seed=3) for _ in range(2))
    study.tell(left_behind(study), None)
    monkeypatch.setattr(study_module, "MOMENT", -1)
    assert [take(study, 3) for _ in range(4)] == [take(plain, 3) for _ in range(4)]


@pytest.mark.backend_free
def test_a_trial_that_this_process_has_dropped_is_repeated():
    """Ctrl-C may come between two lines."""
    study, plain = (Study(None, "search", SEARCH, GOALS, seed=3) for _ in range(2))
    left_behind(study, this_process())
    assert [take(study, 3) for _ in range(4)] == [take(plain, 3) for _ in range(4)]


@pytest.mark.backend_free
def test_a_trial_of_a_machine_that_says_nothing_any_more_is_repeated(tmp_path):
    slow, quick = (Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=3) for _ in range(2))
    with slow.trial(1) as trial:
        a = trial.suggest_float("a", 0.01, 10.0, log=True)
        slow.is_suggested(trial)
        trial.set_user_attr(OWNER, "elsewhere 1 1")
        assert quick.is_waited_for(1) and take(quick, 1) is None
        with sqlite3.connect(tmp_path / "a.db") as database:
            database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
        assert take(quick, 1) == (0, a)
        trial.set_user_attr(RECORD, 7.0)  # it was only slow: what comes too late is dropped
        raise AssertionError("not reached")
    assert [trial.values for trial in slow.trials] == [[a]]
    assert not slow.is_waited_for(1)


@pytest.mark.backend_free
def test_what_matters_for_a_maximum_is_what_matters_for_the_minimum_of_its_negative():
    found = []
    for direction, sign in (("min", 1), ("max", -1)):
        goals = as_objectives(f"score:{direction}")
        study = Study(None, "search", SEARCH, goals, seed=0)
        rng = np.random.default_rng(0)
        for _ in range(30):
            with study.trial(30) as trial:
                trial.suggest_float("a", 0.01, 10.0, log=True)
                b = trial.suggest_float("b", 0.01, 10.0, log=True)
                study.tell(trial, [sign * (np.log(b / 5) ** 2 + 0.01 * rng.normal())])
        found.append(study.importances(goals)["score"])
    assert found[0] == found[1]
    assert found[0]["b"] > found[0]["a"]


@pytest.mark.backend_free
def test_more_trials_go_on():
    study = Study(None, "search", SEARCH, GOALS, seed=3)
    assert [take(study, 2) is None for _ in range(3)] == [False, False, True]
    assert take(study, 3)[0] == 2


@pytest.mark.backend_free
def test_another_search_is_refused(tmp_path):
    Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=3)
    Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=3)
    other = {**SEARCH, "seeds": 2}
    with pytest.raises(ValueError, match=r"another search.*Received: .*seeds=1; here seeds=2"):
        Study(tmp_path / "a.db", "search", other, GOALS, seed=3)


@pytest.mark.backend_free
def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "a.db").write_text("no database" * 100, encoding="utf-8")
    for path in (tmp_path / "a.db", tmp_path / "no folder" / "a.db", "nosuch://host/db"):
        with pytest.raises(ValueError, match=r"`storage` must be.*Received: "):
            Study(path, "search", SEARCH, GOALS, seed=3)


@pytest.mark.backend_free
def test_a_storage_that_is_locked_is_refused(tmp_path):
    Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=3)
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"Received: .*locked"):
        Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=3)
    assert time.monotonic() - begun < 60
    holder.close()


@pytest.mark.backend_free
def test_the_sampler_learns_from_the_trials():
    study = Study(None, "search", SEARCH, GOALS, seed=0)
    found = []
    for _ in range(40):
        with study.trial(40) as trial:
            a = trial.suggest_float("a", 0.01, 10.0, log=True)
            study.is_suggested(trial)
            study.tell(trial, [np.log(a / 0.3) ** 2])
            found.append(a)
    assert np.abs(np.log(np.array(found) / 0.3)).min() < 0.1  # of 3.5 on either side
    assert study.importances(GOALS) == {"loss": {"a": 1.0}}


@pytest.mark.backend_free
def test_no_thread_is_left(tmp_path):
    study, before = (
        Study(tmp_path / "a.db", "search", SEARCH, GOALS, seed=0),
        threading.active_count(),
    )
    with study.trial(1) as trial:
        assert threading.active_count() == before + 1
        study.tell(trial, [1.0])
    assert threading.active_count() == before
