"""`examples/several_machines`: two processes, started as people start them, print the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras

from tests.processes import PACKAGE, free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "several_machines"


def run_together(commands, environments):
    """What several processes print, of which each waits for the others."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    found = [process.communicate(timeout=240) for process in processes]
    for process, (_, err) in zip(processes, found, strict=True):
        assert process.returncode == 0, err
    return "".join(out for out, _ in found)


def started_by_torch(script):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    return run_together([[sys.executable, *launcher, script, "--quick"]], [{}])


def started_by_jax(script):
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    own = ["--quick", "--addresses", addresses, "--process"]
    return run_together([[sys.executable, script, *own, str(i)] for i in range(2)], [{}] * 2)


def started_by_tensorflow(script):
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    configs = [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        for index in range(2)
    ]
    environments = [{"TF_CONFIG": json.dumps(config)} for config in configs]
    return run_together([[sys.executable, script, "--quick"]] * 2, environments)


def test_both_processes_print_the_same():
    backend = keras.backend.backend()
    out = globals()[f"started_by_{backend}"](str(EXAMPLES / f"{backend}.py"))
    # Not by lines: torchrun gives both one pipe, where a line may begin before another one ends.
    found = dict(re.findall(r"process (\d) of 2: (\{.*?\}|loss [\d.]+)", out))
    assert sorted(found) == ["0", "1"]
    assert found["0"] == found["1"]
