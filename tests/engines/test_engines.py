"""What several devices or processes compute is what one device does: some cases of each engine.

`benchmarks/engines.py` has all of them, and torch has nearly all here, where they are quick.
"""

import keras
import pytest

from tests.contracts.registry import CASES
from tests.engines.cases import MAKE_RULE
from tests.engines.starting import ENGINES, TOLERANCE, differences

pytestmark = pytest.mark.slow  # other backends have other cases, so their times are in no list

BACKEND = keras.backend.backend()
OF_THIS_BACKEND = [
    pytest.param(name, marks=pytest.mark.thorough if " 4 " in name else ())
    for name, start in ENGINES.items()
    if start.backend == BACKEND
]
# So many cases of each group. Each case of JAX is a program to compile.
AT_MOST = {"torch": 0, "tensorflow": 3, "jax": 4}[BACKEND]
GROUPS = ["losses", "pairs", "trainings", "changes"]


@pytest.mark.parametrize("engine", OF_THIS_BACKEND)
def test_an_engine_is_one_device(engine):
    """One start of the processes for all cases: to start takes longer than they do."""
    groups = [*GROUPS, "components"] if BACKEND == "torch" else GROUPS
    for lines in differences(engine, groups, AT_MOST):
        wrong = [line for line in lines if line[2] is not None and not line[2] <= TOLERANCE]
        assert wrong == []
        if BACKEND == "torch":
            assert len(lines) >= 4 * len(CASES) + len(MAKE_RULE)
        else:
            assert len(lines) >= 3 * AT_MOST  # the workers of TensorFlow have no `fit` to change
