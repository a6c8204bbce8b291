"""What the shell commands share: errors of one line, and quiet imports."""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator

EXIT_FAILED = 1
EXIT_USAGE = 2


class CommandError(Exception):
    """Ends a command with one line on stderr and `exit_code`."""

    exit_code = EXIT_FAILED


class InputError(CommandError):
    """The user can mend it: says what was given, what is allowed and how to fix it."""

    exit_code = EXIT_USAGE


def require(modules: dict[str, str], extra: str) -> None:
    """Raises unless all modules (import name -> package name) of an extra can be imported."""
    missing = [name for module, name in modules.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(
            f"this command needs {', '.join(missing)}, which is not installed; "
            f'run: pip install "combined_losses[{extra}]"'
        )


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what C++ libraries print on file descriptor 2; shows it after an exception.

    TensorFlow writes three lines while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def is_command() -> bool:
    """Whether this process is `combined-losses` or `python -m combined_losses`."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program == "-m":  # what Python puts there until it has found the module
        return "combined_losses" in sys.orig_argv
    return program.removesuffix(".exe") == "combined-losses"


def quiet_if_command() -> contextlib.AbstractContextManager[None]:
    """`quiet_stderr()` in a process of the command's, nothing in anybody else's."""
    return quiet_stderr() if is_command() else contextlib.nullcontext()
