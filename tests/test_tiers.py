"""The fast tier is most of the tests, touches everything public, and its list is up to date."""

import re
import subprocess
import types

import keras
import pytest

from tests.conftest import ALL_TESTS
from tests.durations import FILE, LIMIT, module_of, read_durations, write_durations
from tests.test_house import PUBLIC
from tests.without_backend import BackendIsUsedError, without_backend

DURATIONS = read_durations()


@pytest.fixture
def tests(pytestconfig):
    """Every test of the suite; where only a part of it was asked for, there is nothing to say."""
    found = pytestconfig.stash[ALL_TESTS]
    if len({module_of(item.nodeid) for item in found}) < 80:
        pytest.skip("only a part of the suite was collected")
    return found


def is_fast(item):
    return not item.get_closest_marker("slow")


def test_the_fast_tier_is_most_of_the_tests(tests):
    assert sum(map(is_fast, tests)) >= 0.8 * len(tests)


def test_every_measured_test_is_there(tests):
    """A test that was renamed needs a new measurement; other versions have other tests."""
    header = FILE.read_text(encoding="utf-8").partition("\n")[0]
    if keras.backend.backend() != "tensorflow" or f"Keras {keras.__version__};" not in header:
        pytest.skip("they were measured elsewhere")
    there = {item.nodeid for item in tests}
    gone = [test for test in DURATIONS if test not in there]
    files = " ".join(sorted({module_of(test) for test in gone}))
    assert not gone, f"run pytest --slow --record-durations {files}: {gone} are gone"


def names_in(code):
    """The names that a function, and the functions inside it, use."""
    inside = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(names_in, inside))


def names_of(item):
    """What a test mentions: in its code, in its id, or as a parameter."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    classes = {value.__name__ for value in parameters if isinstance(value, type)}
    return names_in(item.function.__code__) | set(re.findall(r"\w+", item.name)) | classes


def test_the_fast_tier_has_a_test_of_everything_public(tests):
    mentioned = set().union(*(names_of(item) for item in tests if is_fast(item)))
    assert {name.rpartition(".")[2] for name in PUBLIC} <= mentioned


def test_a_mention_is_seen_wherever_it_is():
    def test():
        return [lambda: cl.losses.Dice() for _ in "ab"]  # noqa: F821

    assert {"cl", "losses", "Dice"} <= names_in(test.__code__)


# `tests/durations.txt`.


def test_what_was_measured_comes_back(tmp_path):
    file = tmp_path / "durations.txt"
    file.write_text("# a line\n3.50 a.py::gone\n4.00 b.py::kept[x y]\n", encoding="utf-8")
    write_durations({"a.py::new": 2 * LIMIT, "a.py::quick": 0.001}, file)
    assert read_durations(file) == {"a.py::new": 2 * LIMIT, "b.py::kept[x y]": 4.0}


# The mark `backend_free`.


def use_an_operation():
    keras.ops.add(1.0, 2.0)


def use_a_constant():
    keras.ops.convert_to_tensor([1.0])


def use_a_variable():
    keras.Variable(1.0)


def use_a_graph():
    keras.layers.Dense(1)(keras.Input((2,)))


def ask_which_it_is():
    keras.backend.backend()


def start_a_process():
    subprocess.run(["true"], check=True)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="they run on TensorFlow")
@pytest.mark.parametrize(
    "use",
    [
        use_an_operation,
        use_a_constant,
        use_a_variable,
        use_a_graph,
        ask_which_it_is,
        start_a_process,
    ],
)
def test_a_test_without_backend_cannot_use_one(use):
    use()
    with without_backend(), pytest.raises(BackendIsUsedError, match="backend_free"):
        use()
    use()
