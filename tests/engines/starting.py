"""Starts the processes of an engine, and reads what they print."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.processes import PACKAGE, free_port

ROOT = Path(__file__).parents[2]
# One case, or training, is one small program: XLA shall not optimise it.
QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
)


@dataclasses.dataclass(frozen=True)
class Start:
    """
    Args:
        backend: of Keras.
        module: what each process runs.
        environments: makes what each process finds in its environment.
    """

    backend: str
    module: str
    environments: Callable[[], list[dict[str, str]]]


def ranks(count):
    port = str(free_port())
    return [{"RANK": str(rank), "RANKS": str(count), "PORT": port} for rank in range(count)]


def workers(count):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
    configs = [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        for index in range(count)
    ]
    return [{"TF_CONFIG": json.dumps(config)} for config in configs]


def simulated(kind, count, flags=QUICK):
    flags = f"--xla_force_host_platform_device_count={count} {flags}"
    return [{"KIND": kind, "XLA_FLAGS": flags}]


def processes(count):
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(count))
    shared = {**simulated("data", 1)[0], "ADDRESSES": addresses}
    return [{**shared, "PROCESS": str(index)} for index in range(count)]


TOLERANCE = 1e-5

RANKS, REPLICAS, DEVICES = (f"tests.engines.{name}" for name in ("ranks", "replicas", "devices"))
ENGINES = {
    "torch, 2 ranks": Start("torch", RANKS, lambda: ranks(2)),
    "TensorFlow, MirroredStrategy, 2 replicas": Start(
        "tensorflow", REPLICAS, lambda: [{"REPLICAS": "2"}]
    ),
    "TensorFlow, MirroredStrategy, 4 replicas": Start(
        "tensorflow", REPLICAS, lambda: [{"REPLICAS": "4"}]
    ),
    "TensorFlow, MultiWorkerMirroredStrategy, 2 processes": Start(
        "tensorflow", REPLICAS, lambda: workers(2)
    ),
    "JAX, DataParallel, 2 devices": Start("jax", DEVICES, lambda: simulated("data", 2)),
    "JAX, DataParallel, 4 devices": Start("jax", DEVICES, lambda: simulated("data", 4)),
    "JAX, ModelParallel, 2 x 2 devices": Start("jax", DEVICES, lambda: simulated("model", 4)),
    "JAX, DataParallel, 2 processes": Start("jax", DEVICES, lambda: processes(2)),
}


def together(commands, environments, timeout=900, ends_with_one=False):
    """Runs processes that wait for each other: `[(exit code, stdout, stderr)]`.

    They write into files: with pipes one could wait for a reader, and the others for that one.
    `ends_with_one`: when one has ended, the others are killed, as launchers do.
    """
    path = os.pathsep.join(
        filter(None, [str(ROOT), str(PACKAGE.parent), os.environ.get("PYTHONPATH")])
    )
    shared = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, (command, own) in enumerate(zip(commands, environments, strict=True)):
            files = [Path(folder, f"{number}.{stream}") for stream in ("out", "err")]
            with files[0].open("w") as out, files[1].open("w") as err:
                given = {**shared, "PYTHONPATH": path, **own}
                running.append(
                    (subprocess.Popen(command, env=given, stdout=out, stderr=err), files)
                )
        try:
            _wait([process for process, _ in running], timeout, ends_with_one)
        finally:
            for process, _ in running:
                process.kill()
        return [
            (process.wait(), *(file.read_text(encoding="utf-8") for file in files))
            for process, files in running
        ]


def _wait(processes, timeout, for_one):
    """Waits for all processes, or for one; kills what has not ended after the timeout."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ended = [process.poll() is not None for process in processes]
        if all(ended) or (for_one and any(ended)):
            return
        time.sleep(0.1)


def run(engine, *arguments, module=None, **options):
    """What the processes of an engine print, of `ENGINES`; `module` in place of its own one."""
    start = ENGINES[engine]
    environments = [{**own, "KERAS_BACKEND": start.backend} for own in start.environments()]
    command = [sys.executable, "-m", module or start.module, *arguments]
    return together([command] * len(environments), environments, **options)


def differences(engine, groups, at_most=0, timeout=900):
    """For each process the lines that `cases.report` prints: (group, name, difference, error)."""
    found = []
    for code, out, err in run(engine, str(at_most), *groups, timeout=timeout):
        if code:
            raise RuntimeError(f"{engine}: exit code {code}\n{out[-2000:]}\n{err[-4000:]}")
        lines = [line for line in out.splitlines() if line.startswith('["')]
        found.append([tuple(json.loads(line)) for line in lines])
    return found
