"""Checks of arguments that the functions of this folder share."""

import importlib.util

from combined_losses._core.checks import is_integer
from combined_losses._core.names import listed

NEEDED = ("optuna", "scipy", "tqdm")


def check_count(name: str, value: object, least: int) -> None:
    if not is_integer(value) or value < least:  # type: ignore[operator]  # it is a number then
        raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {value!r}")


def check_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"A search needs {listed(missing)}, which is not installed; "
            'run: pip install "combined_losses[search]"'
        )
