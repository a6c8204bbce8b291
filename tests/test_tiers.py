"""The fast tier is most of the tests, touches everything public, and its list is up to date."""

import re
import subprocess
import types

import keras
import pytest

from tests.conftest import ALL_TESTS
from tests.durations import FILE, LIMIT, ROOT, module_of, read_durations, write_durations
from tests.test_house import PUBLIC
from tests.without_backend import BackendIsUsedError, without_backend

DURATIONS = read_durations()


@pytest.fixture
def tests(pytestconfig):
    """Every test of the suite; where only a part of it was asked for, there is nothing to say."""
    found = pytestconfig.stash[ALL_TESTS]
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/test_*.py")}
    if there - {module_of(item.nodeid) for item in found}:
        pytest.skip("only a part of the suite was collected")
    return [item for item in found if isinstance(item, pytest.Function)]


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
    files = " ".join(sorted({f for f in map(module_of, gone) if (ROOT / f).is_file()}))
    assert not gone, f"run pytest --slow --record-durations {files}: {gone} are gone"


def names_in(code):
    """The names that a function, and the functions inside it, use."""
    inside = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(names_in, inside))


def names_used(function):
    """The names in a function, and in the functions of its module that it calls."""
    found, pending = set(), [function]
    for each in pending:
        names = names_in(each.__code__) - found
        things = [each.__globals__.get(name) for name in names]
        found |= names | {thing.__name__ for thing in things if isinstance(thing, type)}
        pending += [thing for thing in things if isinstance(thing, types.FunctionType)]
    return found


def names_of(item):
    """What a test mentions: in its code, in its id, or as a parameter."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    classes = {value.__name__ for value in parameters if isinstance(value, type)}
    return names_used(item.function) | set(re.findall(r"\w+", item.name)) | classes


def test_the_fast_tier_has_a_test_of_everything_public(tests):
    """The tests of these two files are about lists of names, and run nothing that they mention."""
    lists = ("tests/test_house.py", "tests/test_which_loss.py")
    run = [item for item in tests if is_fast(item) and module_of(item.nodeid) not in lists]
    mentioned = set().union(*map(names_of, run))
    missing = {name for name in PUBLIC if name.rpartition(".")[2] not in mentioned}
    assert not missing


def test_a_mention_is_seen_wherever_it_is():
    def test():
        return [lambda: use_a_variable() for _ in "ab"]

    assert {"use_a_variable", "keras", "Variable"} <= names_used(test)


# `tests/durations.txt`.


def test_what_was_measured_comes_back(tmp_path):
    file = tmp_path / "durations.txt"
    before = ["3.50 a.py::gone", "2.50 a.py::skipped", "4.00 setup.py::kept[x y]", "5 no.py::file"]
    file.write_text("\n".join(["# a line", *before, ""]), encoding="utf-8")
    write_durations({"a.py::new": 2 * LIMIT, "a.py::quick": 0.001}, {"a.py::skipped"}, file)
    assert read_durations(file) == {
        "a.py::new": 2 * LIMIT,
        "a.py::skipped": 2.5,
        "setup.py::kept[x y]": 4.0,
    }


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


def ask_the_configuration():
    keras.config.backend()


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
        ask_the_configuration,
        start_a_process,
    ],
)
def test_a_test_without_backend_cannot_use_one(use):
    use()
    with without_backend(), pytest.raises(BackendIsUsedError, match="backend_free"):
        use()
    use()


def test_a_test_without_backend_has_no_result_of_one(tests):
    """From a fixture that other tests may have made before, or from a constant of its module."""
    marked = [item for item in tests if item.get_closest_marker("backend_free")]
    assert len(marked) > 1000
    for item in marked:
        shared = shared_fixtures(item)
        assert not shared, f"{item.nodeid} uses {shared}, which several tests share"
        assert "BACKEND" not in names_in(item.function.__code__), item.nodeid


def shared_fixtures(item):
    """The fixtures of a test that more than one test uses, except those of pytest itself."""
    definitions = item._fixtureinfo.name2fixturedefs.values()  # pytest has no public way to them
    found = [each for several in definitions for each in several if each.baseid]
    return [each.argname for each in found if each.scope != "function"]
