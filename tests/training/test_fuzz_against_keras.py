"""Twenty random models and composites of `benchmarks/fuzz_against_keras.py`: none differs."""

import importlib.util
import pathlib
import sys

import pytest

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "fuzz_against_keras.py"


def load():
    name = "fuzz_against_keras"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, PATH)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(20))
def test_no_case_differs(seed):
    fuzz = load()
    assert fuzz.check(seed) == [], repr(fuzz.Case(seed))
