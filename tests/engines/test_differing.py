"""Other losses in the processes of an engine, or some outside of its scope: an error, no wait."""

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


@pytest.mark.parametrize(
    ("engine", "what", "error"),
    [
        ("TensorFlow, MirroredStrategy, 2 replicas", "model", "scope()"),
        ("TensorFlow, MirroredStrategy, 2 replicas", "loss", "make it inside `strategy.scope()`"),
        ("JAX, DataParallel, 2 devices", "model", "incompatible devices"),
    ],
)
def test_what_was_made_outside_the_scope_is_an_error(engine, what, error):
    if ENGINES[engine].backend != keras.backend.backend():
        pytest.skip("an engine of another backend")
    ((code, _, err),) = run(engine, what, module="tests.engines.outside", timeout=240)
    assert code == 1, err
    assert error in err
