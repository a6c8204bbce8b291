"""The public names of the package, read from its `__all__`s, and where each is written."""

import ast
import functools
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import combined_losses

# What a class has of a private base, and users call.
INHERITED = {
    "CompositeLoss": ["weight_of", "settable_names", "variables", "trainable_variables"],
    "Diagnosis": ["flags", "invisible"],
    "Weighting": ["initial_state", "build", "is_due", "reset"],
}


@dataclass(frozen=True, eq=False)
class Entry:
    """A public class or function."""

    module: str  # "combined_losses.losses"
    name: str  # "Dice"
    thing: Any
    source: str  # "combined_losses.losses.regions.overlap"

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def page(self) -> str:
        return "api/" + self.path.removeprefix("combined_losses.").replace(".", "/")

    @property
    def family(self) -> str:
        """The module that says in its docstring what this and its like are."""
        depth = self.module.count(".") + 2
        inside = self.source.startswith(self.module + ".") and "._" not in self.source
        return ".".join(self.source.split(".")[:depth]) if inside else self.module

    @property
    def members(self) -> list[str]:
        """The methods and properties that its page shows: those with a docstring of their own."""
        if not inspect.isclass(self.thing):
            return []
        return [
            name
            for name, member in vars(self.thing).items()
            if not name.startswith("_") and _is_for_users(member)
        ] + INHERITED.get(self.name, [])

    @property
    def summary(self) -> str:
        return " ".join(inspect.getdoc(self.thing).split("\n\n")[0].split())


@functools.cache
def all_entries() -> tuple[Entry, ...]:
    """Every public class and function, sorted, each once: where its `__module__` says."""
    return tuple(
        Entry(module.__name__, name, thing, _source(name, thing))
        for module in public_modules()
        for name, thing in sorted(_own(module).items(), key=lambda item: item[0].lower())
    )


def public_modules() -> list[ModuleType]:
    """The package, and its folders that are named in the `__module__` of what they hold."""
    folders = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("combined_losses.") and name.count(".") == 1 and "._" not in name
    ]
    return [combined_losses, *filter(_own, folders)]


def _own(module: ModuleType) -> dict[str, Any]:
    names = getattr(module, "__all__", [])
    things = {name: getattr(module, name) for name in names}
    return {
        name: thing
        for name, thing in things.items()
        if getattr(thing, "__module__", None) == module.__name__
    }


def _source(name: str, thing: Any) -> str:
    """The module whose text defines `thing`; its `__module__` is the public one."""
    for path, module in sorted(sys.modules.items()):
        is_here = path.startswith("combined_losses") and vars(module).get(name) is thing
        if is_here and name in _defined_in(path):
            return path
    raise ValueError(f"no file of combined_losses defines {name}")


@functools.cache
def _defined_in(path: str) -> set[str]:
    tree = ast.parse(Path(str(sys.modules[path].__file__)).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def _is_for_users(member: Any) -> bool:
    function = member.fget if isinstance(member, property) else member
    text = getattr(function, "__doc__", None)
    if hasattr(function, "__wrapped__"):  # one of Keras's, with Keras's docstring
        return False
    is_method = callable(function) or isinstance(function, classmethod | staticmethod)
    return is_method and bool(text) and not text.startswith("Called by")
