"""The public packages: `combined_losses`, and each folder of it that says what is public in it."""

import importlib
import pkgutil
from types import ModuleType

import combined_losses


def _holds_names(module: ModuleType) -> bool:
    """Whether it is the place of a public name, as `__module__` says."""
    named = (getattr(module, name) for name in getattr(module, "__all__", ()))
    return any(getattr(thing, "__module__", None) == module.__name__ for thing in named)


_FOLDERS = [
    importlib.import_module(f"combined_losses.{found.name}")
    for found in pkgutil.iter_modules(combined_losses.__path__)
    if found.ispkg and not found.name.startswith("_")
]
PACKAGES = [combined_losses, *filter(_holds_names, _FOLDERS)]
