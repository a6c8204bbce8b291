"""The rules of the house that can be checked by reading the package."""

import ast
import configparser
import doctest
import importlib
import inspect
import json
import re
from pathlib import Path

import keras
import pytest

import combined_losses
from tests.imports import arrows_in, circle_in, imports_of
from tests.processes import PACKAGE, run_python
from tests.strip_notebooks import strip_file, stripped

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("tensorflow", "jax", "torch")


def imported_roots(source: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it and in whichever way."""
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            if called in ("import_module", "__import__"):
                roots.add(str(node.args[0].value))
    return {root.partition(".")[0] for root in roots}


@pytest.mark.backend_free
def test_imported_roots_sees_every_way():
    source = """
import torch.nn as nn
def f():
    from tensorflow.python import x
    importlib.import_module("jax.numpy"); __import__("flax"); import_module("optax")
from . import chex
"""
    assert imported_roots(source) == {"torch", "tensorflow", "jax", "flax", "optax"}


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_frameworks_are_imported_by_their_own_file_only(path):
    own = {path.stem.partition("_")[0]} if path.parent == PACKAGE / "_backend" else set()
    foreign = imported_roots(path.read_text(encoding="utf-8")) & set(FRAMEWORKS) - own
    assert not foreign, f"move this code to _backend/{foreign.pop()}.py"


def test_import_loads_no_other_framework(tmp_path):
    """What `import keras` loads is Keras's affair; the package adds no framework to it."""
    source = f"""
import sys
import keras
before = set(sys.modules)
import combined_losses
print(*sorted((set(sys.modules) - before) & set({FRAMEWORKS})), "tensorflow" in sys.modules)
"""
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert run_python(source, tmp_path).split() == [str(on_tensorflow)]


def stated_names(path: Path) -> list[str] | None:
    """The names in `__all__` of a file, read as a type checker does: one list of plain strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__all__"]
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    named = [node for node in named if node not in returned]  # as a module's `__dir__` does
    if not named:
        return None
    (only,) = named  # not added to
    (stated,) = (
        node for node in tree.body if isinstance(node, ast.Assign) and node.targets == [only]
    )
    assert isinstance(stated.value, ast.List)
    names = [ast.literal_eval(each) for each in stated.value.elts]
    assert all(isinstance(name, str) for name in names)
    return names


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "source", ["__all__ = [*a.__all__]", "__all__ = a", "__all__ = ['b']\n__all__ += ['c']"]
)
def test_stated_names_refuses_what_a_type_checker_does_not_read(source, tmp_path):
    path = tmp_path / "a.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises((AssertionError, ValueError)):
        stated_names(path)


STATED = {path: names for path in PACKAGE.rglob("*.py") if (names := stated_names(path))}


def imported(path: Path):
    """The module of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


@pytest.mark.backend_free
@pytest.mark.parametrize("path", sorted(STATED), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_all_is_a_list_of_plain_names_that_are_there(path):
    names, module = STATED[path], imported(path)
    assert module.__all__ == names
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "path",
    sorted(p for p in STATED if p.name == "__init__.py" and not p.parent.name.startswith("_")),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_all_names_what_a_public_package_exports(path):
    """What its namespace holds without an underscore, and what its files state as theirs."""
    module, names = imported(path), set(STATED[path]) - {"__version__"}
    held = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert held == {name for name in names if not inspect.ismodule(getattr(module, name))}
    stated = [set(STATED.get(each, ())) for each in path.parent.glob("*.py") if each != path]
    assert set().union(*stated) <= names


# Used in keras_private alone, though their names do not begin with an underscore.
UNPROMISED = {
    *("inner_optimizer", "scale_loss", "fn", "shared_object_id", "output_names", "dtype_policy"),
    *("jax_state_sync", "train_function", "test_function", "distribute_strategy"),
    *("make_train_function", "make_test_function", "zero_grad", "__bases__"),
}


def used_names(tree: ast.AST) -> set[str]:
    """The attributes that are used, by a dot or as a string.

    Not those of `super()`, which are overridden in the open, nor the functions of `keras_private`.
    """
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            allowed = ast.unparse(node.value) in ("super()", "keras_private")
            used |= set() if allowed else {node.attr}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr"):
            used |= {a.value for a in node.args if isinstance(a, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            used |= {node.slice.value}
    return {name for name in used if isinstance(name, str)}


def own_names(tree: ast.AST) -> set[str]:
    """The attributes that a file gives objects of its own: methods, and what is set on `self`."""
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    stored = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    stored = [n for n in stored if isinstance(n.ctx, ast.Store)]
    return functions | {n.attr for n in stored if ast.unparse(n.value) == "self"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_of_keras() -> set[str]:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", "mse", metrics=["mae"])
    callbacks = keras.callbacks.CallbackList([keras.callbacks.Callback()])
    things = [model, model.optimizer, *model.layers, *model.metrics, *model.weights, callbacks]
    things += [model.input, keras.losses.Huber(), keras.random.SeedGenerator(1), keras.Sequential()]
    things.append(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    return {name for thing in things for name in dir(thing) if is_private(name)}


TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in sorted(PACKAGE.rglob("*.py"))}
SEAMS = [tree for path, tree in TREES.items() if path.parent.name == "keras_private"]


def test_what_is_private_in_keras_is_used_in_keras_private_alone():
    in_seams = {name for tree in SEAMS for name in used_names(tree) if is_private(name)}
    in_seams -= {name for tree in SEAMS for name in own_names(tree)}
    assert in_seams >= {"_var_key", "_compile_config", "_keras_mask"}
    own = {name for tree in TREES.values() for name in own_names(tree)}
    # Some names of Keras's, such as `_layout`, are names of ours, too.
    forbidden = in_seams | UNPROMISED | (private_names_of_keras() - own)
    found = {
        str(path.relative_to(PACKAGE)): names
        for path, tree in TREES.items()
        if tree not in SEAMS and (names := used_names(tree) & forbidden)
    }
    assert not found, f"private in Keras: give them functions in _backend/keras_private/, {found}"


@pytest.mark.backend_free
def test_used_names_sees_every_way():
    source = """
a._one.two; getattr(a, "_three", None); vars(a)["_four"]; a._five = 1; hasattr(a, "_six")
super()._seven(); keras_private._eight; "_nine"
"""
    assert used_names(ast.parse(source)) == {"_one", "two", "_three", "_four", "_five", "_six"}


def public_objects(module) -> dict[str, object]:
    """Every class and function that `__all__` of a module, and of the modules in it, names."""
    found = {}
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.ismodule(thing):
            found |= public_objects(thing)
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            found[f"{module.__name__}.{name}"] = thing
    return found


PUBLIC = public_objects(combined_losses)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_has_an_example_that_runs(name):
    docstring = PUBLIC[name].__doc__ or ""
    examples = doctest.DocTestParser().get_examples(docstring)
    run = [example for example in examples if not example.options.get(doctest.SKIP)]
    short = name.rpartition(".")[2]
    assert any(short in example.source for example in run), f"no example of {short}"


# A folder, or a file of the package itself, imports only from floors below its own.
FLOORS = {
    "_backend": 0,
    "_numerics": 0,
    "_version": 0,
    "_core": 1,
    "points": 2,
    "weightings": 2,
    "wrappers": 2,
    "composite": 3,
    "losses": 4,
    "training": 4,
    "plots": 5,
    "diagnosis": 6,
    "callbacks": 7,
    "tuning": 8,
    "": 9,  # the face: `import combined_losses`
    "demo": 10,
    "__main__": 11,
}


def folder_of(module):
    return module.partition(".")[0]


@pytest.mark.backend_free
def test_imports_go_down_the_stairs():
    arrows = [(m, target) for m, targets in arrows_in(PACKAGE).items() for target in targets]
    between = [(m, t) for m, t in arrows if folder_of(m) != folder_of(t)]
    up = [(m, t) for m, t in between if FLOORS[folder_of(m)] <= FLOORS[folder_of(t)]]
    assert not up, f"{up[0][0]} imports {up[0][1]}, which is not below it"


@pytest.mark.backend_free
def test_imports_for_types_go_up_where_operators_say_what_they_build_alone():
    arrows = arrows_in(PACKAGE, for_types=True).items()
    up = {(m, t) for m, ts in arrows for t in ts if FLOORS[folder_of(m)] < FLOORS[folder_of(t)]}
    assert up == {("_core.operators", "composite.loss")}


@pytest.mark.backend_free
def test_no_files_import_each_other_in_a_circle():
    assert circle_in(arrows_in(PACKAGE)) == []


@pytest.mark.backend_free
def test_imports_and_circles_are_found():
    source = """
import combined_losses.a
def f():
    from combined_losses import b, name
    from combined_losses.b import c
    from keras import a
if TYPE_CHECKING:
    from combined_losses.d import c
"""
    modules = ["", "a", "b", "b.c", "d"]
    assert imports_of(source, modules) == {"a", "", "b", "b.c"}
    assert imports_of(source, modules, for_types=True) == {"d"}
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"d"}, "d": {"b"}}
    assert circle_in(arrows) == ["b", "c", "d"]
    assert circle_in({**arrows, "d": set()}) == []


@pytest.mark.backend_free
def test_version_is_in_one_place():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: combined_losses._version.__version__"
    files = [ROOT / "setup.py", ROOT / "pyproject.toml", *PACKAGE.rglob("*.py")]
    stated = re.compile(r"""^\s*(__version__|version)\s*=\s*["']?\d""", re.MULTILINE)
    stating = [f for f in files if stated.search(f.read_text(encoding="utf-8"))]
    assert stating == [PACKAGE / "_version.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", combined_losses.__version__)


@pytest.mark.backend_free
def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.backend_free
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*")), ids=lambda path: path.name)
def test_notebooks_are_stripped(path):
    """What a notebook shows comes from running it; CI does."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert stripped(notebook) == notebook


@pytest.mark.backend_free
def test_stripping_removes_what_comes_from_running(tmp_path):
    cells = [
        {"cell_type": "code", "outputs": ["3"], "execution_count": 7, "source": ["1 + 2"]},
        {"cell_type": "markdown", "source": ["–"]},
    ]
    ran = {"cells": cells, "metadata": {"kernelspec": {}, "vscode": 1}, "nbformat": 4}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(ran), encoding="utf-8")
    assert strip_file(path) and not strip_file(path)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "cells": [{**cells[0], "outputs": [], "execution_count": None}, cells[1]],
        "metadata": {"kernelspec": {}},
        "nbformat": 4,
    }
