"""Which tests run: the fast tier by default, everything with `--slow` (see CONTRIBUTING.md)."""

import os
from pathlib import Path

import pytest

# Set before any framework is imported. Two workers share two cores, so threads of a framework's
# own would only take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("KERAS_BACKEND") == "jax":
    # The tests compile thousands of small programs and run each once. They take half the time if
    # XLA does not optimise those programs. Set XLA_FLAGS (to nothing, say) to compile them as for
    # users. The workers, and the next run, share what was compiled.
    _SETTINGS = {
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    for _key, _value in _SETTINGS.items():
        os.environ.setdefault(_key, _value)

from tests.at_most import AtMost
from tests.durations import Recorder, Stopwatch, read_durations
from tests.without_backend import without_backend

ALL_TESTS = pytest.StashKey[list[pytest.Item]]()


def pytest_addoption(parser):
    tests = parser.getgroup("combined_losses")
    tests.addoption("--slow", action="store_true", help="run the slow tests too")
    tests.addoption(
        "--long",
        action="store_true",
        help="run trainings and examples in their long form, which takes minutes each",
    )
    tests.addoption(
        "--at-most",
        type=int,
        metavar="N",
        help="run at most N of the parameter sets of each test function",
    )
    tests.addoption(
        "--record-durations", action="store_true", help="write tests/durations.txt anew"
    )


def pytest_configure(config):
    if config.option.at_most:
        config.pluginmanager.register(AtMost(config.option.at_most))
    if config.option.record_durations:
        _check_that_all_runs(config)
        config.pluginmanager.register(Stopwatch())
        if not hasattr(config, "workerinput"):  # the main process of pytest-xdist
            config.pluginmanager.register(Recorder())


def _check_that_all_runs(config):
    """The numbers of a file are written anew together, so all its tests must run."""
    option, backend = config.option, os.environ.get("KERAS_BACKEND", "tensorflow")
    part = option.keyword or option.markexpr or _names_a_test(config)
    if part or not option.slow or backend != "tensorflow":
        raise pytest.UsageError(
            "--record-durations needs --slow, whole files, no -k or -m, and TensorFlow"
        )


@pytest.hookimpl(tryfirst=True)  # before pytest reads `-m`, which may say `slow`
def pytest_collection_modifyitems(config, items):
    config.stash[ALL_TESTS] = list(items)
    durations = read_durations()
    for item in items:
        is_fast = item.get_closest_marker("fast") or item.nodeid not in durations
        if _is_long(item) or not is_fast:
            item.add_marker("slow")
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("doctest")
    if not _wants_slow(config):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def _is_long(item):
    """What does not belong to the fast tier, however long it took where it was measured."""
    marked = item.get_closest_marker("browser") or item.get_closest_marker("thorough")
    return marked or isinstance(item, pytest.DoctestItem)


def _wants_slow(config):
    """Slow tests run where they are asked for: by an option, by `-m`, or by the name of a test."""
    option = config.option
    again = config.getoption("lf", False)  # those that failed last, if pytest keeps a cache
    return option.slow or option.long or option.markexpr or again or _names_a_test(config)


def _names_a_test(config):
    return any("::" in argument for argument in config.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if not item.get_closest_marker("backend_free"):
        return (yield)
    with without_backend():
        return (yield)


@pytest.fixture
def half_precision():
    """The policy "mixed_float16"."""
    import keras  # not before the settings above

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)
