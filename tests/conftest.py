"""Which tests run: the fast tier by default, everything with `--slow` (see CONTRIBUTING.md)."""

import os
from pathlib import Path

import pytest

# Set before any framework is imported. Two workers share two cores, so threads of a framework's
# own would only take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("KERAS_BACKEND") == "jax":
    # The tests compile thousands of small programs, and run each once: that XLA optimises none of
    # them halves the time. Set XLA_FLAGS (to nothing, say) to compile as for users. The workers,
    # and the next run, share what was compiled.
    _FLAGS = {
        "cpu_use_fusion_emitters": "false",
        "backend_optimization_level": "0",
        "llvm_disable_expensive_passes": "true",
        "cpu_parallel_codegen_split_count": "1",
    }
    _CACHE = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{k}={v}" for k, v in _FLAGS.items()))
    for _key, _value in _CACHE.items():
        os.environ.setdefault(_key, _value)

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
        "--record-durations", action="store_true", help="write tests/durations.txt anew"
    )


def pytest_configure(config):
    in_worker = hasattr(config, "workerinput")
    config.pluginmanager.register(Stopwatch())
    if config.option.record_durations and not in_worker:
        config.pluginmanager.register(Recorder())


@pytest.hookimpl(tryfirst=True)  # before pytest reads `-m`, which may say `slow`
def pytest_collection_modifyitems(config, items):
    config.stash[ALL_TESTS] = list(items)
    durations = read_durations()
    for item in items:
        if item.nodeid in durations or _is_long(item):
            item.add_marker("slow")
    if not _wants_slow(config):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def _is_long(item):
    """What does not belong to the fast tier, however long it took where it was measured."""
    return item.get_closest_marker("browser") or isinstance(item, pytest.DoctestItem)


def _wants_slow(config):
    """Slow tests run where they are asked for: by an option, by `-m`, or by the name of a test."""
    option, named = config.option, any("::" in argument for argument in config.args)
    return option.slow or option.long or named or "slow" in option.markexpr


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if not item.get_closest_marker("backend_free"):
        return (yield)
    with without_backend():
        return (yield)
