"""What the shell commands share: errors on one line, and imports that print nothing."""

import contextlib
import importlib
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
    """A mistake in the input: says what was given, what is allowed and how to fix it."""

    exit_code = EXIT_USAGE


def require(modules: dict[str, str], extra: str) -> None:
    """Raises unless all modules of an extra can be imported; `modules`: their package names."""
    missing = [name for module, name in modules.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(
            f"this command needs {', '.join(missing)}, which is not installed; "
            f'run: pip install "combined_losses[{extra}]"'
        )


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hides what C++ libraries print on file descriptor 2; after an exception it is printed.

    TensorFlow writes three lines while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


def checks_first() -> bool:
    """Whether this process is the command and has not yet called `load_package`."""
    return _State.checks_first


def load_package() -> None:
    """Imports what `import combined_losses` alone left out in the command: Keras and all names.

    That takes seconds, so the command first reports what is wrong with its arguments.
    """
    if _State.checks_first:
        _State.checks_first = False
        importlib.reload(sys.modules["combined_losses"])


def is_command() -> bool:
    """Whether this process is `combined-losses` or `python -m combined_losses`."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    if program == "-m":  # Python's placeholder while it looks for the module
        return "combined_losses" in sys.orig_argv
    return program.removesuffix(".exe") == "combined-losses"


def quiet_if_command() -> contextlib.AbstractContextManager[None]:
    """`quiet_stderr()` if this process is the command; else a block that does nothing."""
    return quiet_stderr() if _State.is_command else contextlib.nullcontext()


class _State:
    is_command = is_command()  # asked once: Python replaces its placeholder `-m` later
    checks_first = is_command
