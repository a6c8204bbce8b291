"""Which process works on a trial, and whether it still lives."""

import os
import socket
from pathlib import Path


def this_process() -> str:
    """A name that no other process has, now or later."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def is_dead(owner: str | None) -> bool:
    """Whether a process of this machine has ended; False where nobody here can know."""
    if owner is None:
        return False
    host, pid, started = owner.rsplit(" ", 2)
    return host == socket.gethostname() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process began; "" if there is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        # After the name, which may hold spaces, the 20th field: ticks since the machine began.
        fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        if stat.parents[1].joinpath("self").exists():
            return ""
    if os.name != "posix":  # there `os.kill` would end the process
        return "?"
    try:
        os.kill(pid, 0)  # sends nothing; raises if there is no such process
    except OSError:
        return ""
    return "?"
