"""Other losses in the processes of an engine: an error in all of them, and no wait."""

import keras
import pytest

from tests.engines.starting import ENGINES, run

pytestmark = pytest.mark.slow  # see test_engines.py

TWO_PROCESSES = [
    name
    for name, start in ENGINES.items()
    if start.backend == keras.backend.backend() and ("processes" in name or "ranks" in name)
]


@pytest.mark.parametrize("engine", TWO_PROCESSES)
def test_other_losses_in_the_processes_are_an_error_in_all(engine):
    for code, _, err in run(engine, module="tests.engines.differing", timeout=240):
        assert code == 1, err
        assert "must be the same" in err
