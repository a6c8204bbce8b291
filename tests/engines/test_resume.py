"""One of two processes is killed in the middle of an epoch; both go on from the last file."""

import signal

import keras
import numpy as np
import pytest

from tests.engines.cases import MAKE_RULE
from tests.engines.starting import ENGINES, run

pytestmark = pytest.mark.slow  # see test_engines.py

# A draw, the end of an epoch, learned weights, steps of its own, and gradients.
FEW = ("ReLoBRaLo", "DynamicWeightAverage", "UncertaintyWeighting", "FAMO", "GradNorm")
TWO_PROCESSES = [
    name
    for name, start in ENGINES.items()
    if "2 ranks" in name or "2 processes" in name
    if start.backend == keras.backend.backend()
]


def check(engine, names, folder):
    for how, dies in (("whole", False), ("killed", True), ("killed", False)):
        arguments = [str(folder), how, ",".join(names)]
        found = run(engine, *arguments, module="tests.engines.resuming", ends_with_one=dies)
        if dies:
            assert found[-1][0] == -signal.SIGKILL, found
        else:
            assert {code for code, _, _ in found} == {0}, found
    count = len(found)
    states = [
        [*np.load(folder / f"{how}_{process}.npz").values()]
        for how in ("whole", "killed")
        for process in range(count)
    ]
    for state in states[1:]:
        for array, expected in zip(state, states[0], strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("engine", TWO_PROCESSES)
def test_a_training_that_was_killed_ends_as_one_that_was_not(engine, tmp_path):
    check(engine, FEW, tmp_path)


@pytest.mark.thorough  # every rule is a program to compile
@pytest.mark.parametrize("engine", TWO_PROCESSES)
def test_so_does_one_with_any_rule(engine, tmp_path):
    check(engine, tuple(MAKE_RULE), tmp_path)
