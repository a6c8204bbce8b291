"""How long each test takes: `tests/durations.txt`, which decides what belongs to the fast tier.

`pytest --slow --record-durations` measures every test that it runs and writes the file anew. A
number is the CPU time, in seconds, of setting up, running and tearing down a test, with the
processes that it starts: CPU time hardly changes when something else runs on the machine.
"""

import importlib.metadata
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("durations.txt")
# A test that took longer is slow: `pytest` leaves it out, `pytest --slow` runs it. Only those are
# kept: the others would be most of the file, and change with every measurement.
LIMIT = 0.15
HEADER = "# CPU seconds of each test above {}, on TensorFlow and Keras {}; by --record-durations.\n"


def read_durations(file=FILE):
    """A dict from the id of a test to its seconds."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" ", 1) for line in lines if not line.startswith("#"))
    return {test: float(seconds) for seconds, test in pairs}


def write_durations(measured, skipped=(), file=FILE):
    """Writes what was measured; other numbers stay.

    They stay for a test that was skipped, and for a file none of whose tests ran, if it is there.
    """
    ran = {module_of(test) for test in (*measured, *skipped)}
    kept = {
        test: seconds
        for test, seconds in read_durations(file).items()
        if test in skipped or (module_of(test) not in ran and (ROOT / module_of(test)).is_file())
    }
    found = {**kept, **measured}
    lines = [f"{found[test]:.2f} {test}\n" for test in sorted(found) if found[test] > LIMIT]
    header = HEADER.format(LIMIT, importlib.metadata.version("keras"))
    file.write_text(header + "".join(lines), encoding="utf-8")


def module_of(test):
    return test.partition("::")[0]


class Stopwatch:
    """A plugin of pytest that measures every test and tells the seconds in its report."""

    def __init__(self):
        self.started = 0.0
        self.shared = {}  # the seconds of each fixture that several tests share

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self):
        self.started = cpu_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = cpu_seconds()
        result = yield
        if fixturedef.scope != "function":
            seconds = cpu_seconds() - before
            self.shared[fixturedef.baseid, fixturedef.argname] = seconds
            self.started += seconds
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "teardown":
            # A worker of pytest-xdist sends the properties of a report to the main process.
            seconds = cpu_seconds() - self.started + self.of_shared_fixtures(item)
            report.user_properties.append(("cpu_seconds", seconds))
        return report

    def of_shared_fixtures(self, item):
        """What the test would have to pay if it ran alone, whichever test made the fixture."""
        return sum(
            seconds
            for (base, name), seconds in self.shared.items()
            if name in item.fixturenames and item.nodeid.startswith(base)
        )


def cpu_seconds():
    """Of this process and of those that it has started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Recorder:
    """A plugin of pytest that collects the seconds in the reports, in the main process."""

    def __init__(self):
        self.measured = {}
        self.skipped = set()

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.skipped.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid not in self.skipped:
            self.measured[report.nodeid] = dict(report.user_properties)["cpu_seconds"]

    def pytest_sessionfinish(self, exitstatus):
        if exitstatus == pytest.ExitCode.OK:  # a test that failed, or never ran, has no duration
            write_durations(self.measured, self.skipped)
