"""Who imports whom in the package, read from the source; an import inside a function counts too."""

import ast
from pathlib import Path

NAME = "combined_losses"


def modules_of(package: Path) -> dict[str, Path]:
    """Every module by its name below the package; "" is the package itself."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports_of(source: str, modules, for_types: bool = False) -> set[str]:
    """The modules of the package that a source imports, wherever in it.

    Or those that type checkers alone import, under `if TYPE_CHECKING:` or, mypy, `if MYPY:`.
    """
    tree = ast.parse(source)
    checks = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
    checks = [n for n in checks if ast.unparse(n.test) in ("TYPE_CHECKING", "MYPY")]
    for_checkers = {node for check in checks for part in check.body for node in ast.walk(part)}
    found = set()
    for node in ast.walk(tree):
        if (node in for_checkers) != for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _below(name) in modules else node.module for name in names}
    return {_below(name) for name in found} & set(modules)


def _below(name):
    """The name of a module below the package; None for those of others."""
    root, _, below = name.partition(".")
    return below if root == NAME else None


def arrows_in(package: Path, for_types: bool = False) -> dict[str, set[str]]:
    """For each module those of the package that it imports; see `imports_of`."""
    modules = modules_of(package)
    return {
        name: imports_of(path.read_text(encoding="utf-8"), modules, for_types) - {name}
        for name, path in modules.items()
    }


def circle_in(arrows) -> list[str]:
    """Modules that import each other in a circle, in order; empty where there is none."""
    done: set[str] = set()

    def walk(name, way):
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for target in sorted(arrows[name]):
            found = walk(target, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in sorted(arrows))), [])
