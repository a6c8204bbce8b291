"""Run a piece of Python in a process of its own, with the package under test on its path."""

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# Found without importing it; it is the checkout or, in CI's last section, the installed wheel.
PACKAGE = Path(find_spec("combined_losses").origin).parent


def run_python(source: str, cwd: Path, timeout: float = 600, **environ: str) -> str:
    """Runs `source` as a script in `cwd`, returns what it printed; a failure is an AssertionError.

    Line n of a traceback is line n of `source`. Keywords are environment variables to add.
    """
    script = cwd / "script.py"
    script.write_text(source, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=cwd,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": path, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_port() -> int:
    """The number of a port of this machine that nothing uses at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
