"""`examples/several_machines`: two processes, started as people start them, print the same."""

import re
import sys
from pathlib import Path

import keras

from tests.engines.starting import together, workers
from tests.processes import free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "several_machines"


def run_together(commands, environments):
    """What several processes print, of which each waits for the others."""
    found = together(commands, environments, timeout=240)
    for code, _, err in found:
        assert code == 0, err
    return "".join(out for _, out, _ in found)


def started_by_torch(script):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    return run_together([[sys.executable, *launcher, script, "--quick"]], [{}])


def started_by_jax(script):
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    own = ["--quick", "--addresses", addresses, "--process"]
    return run_together([[sys.executable, script, *own, str(i)] for i in range(2)], [{}] * 2)


def started_by_tensorflow(script):
    return run_together([[sys.executable, script, "--quick"]] * 2, workers(2))


def test_both_processes_print_the_same():
    backend = keras.backend.backend()
    out = globals()[f"started_by_{backend}"](str(EXAMPLES / f"{backend}.py"))
    # Not by lines: torchrun gives both one pipe, where a line may begin before another one ends.
    found = dict(re.findall(r"process (\d) of 2: (\{.*?\}|loss [\d.]+)", out))
    assert sorted(found) == ["0", "1"]
    assert found["0"] == found["1"]
