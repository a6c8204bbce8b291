"""What a user's function or loss reads beside its arguments: networks, variables, seeds."""

import contextlib
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.names import quoted


def owned_by(read: object) -> list[Any]:
    """The layers, models, variables and seed generators that a function or a loss holds.

    A function holds its closure, its default values, the globals that it names and the object that
    it is bound to. A loss holds its attributes. The search goes on in the functions and objects
    that are found in this way.
    """
    found: dict[int, object] = {}
    visited: dict[int, object] = {}  # keeps the objects alive, so that no `id` is used twice
    level = [read]
    for _ in range(_DEPTH):
        level = [value for value in level if visited.setdefault(id(value), value) is value]
        for value in level:
            if isinstance(value, _KINDS):
                found.setdefault(id(value), value)
        rest = [value for value in level if not isinstance(value, _KINDS)]
        level = [held for value in rest for held in _held(value) if id(held) not in visited]
    return list(found.values())


_DEPTH = 6
_KINDS = (keras.layers.Layer, keras.Variable, keras.random.SeedGenerator)
_MOST_ENTRIES = 10_000  # of a dict or list; longer ones are data


def _held(value: Any) -> list[Any]:
    """The values that a value holds; an object of a framework counts as empty."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        return _held_by_function(value)
    if isinstance(value, (dict, list, tuple, set)):
        entries = value.values() if isinstance(value, dict) else value
        return list(entries) if len(entries) <= _MOST_ENTRIES else []
    if isinstance(value, (type, types.ModuleType)) or type(value).__module__ == "builtins":
        return []
    methods = (getattr(type(value), name, None) for name in ("call", "__call__"))
    own = [method for method in methods if isinstance(method, types.FunctionType)]
    held = [] if _is_of(type(value), _FRAMEWORKS) else getattr(value, "__dict__", {}).values()
    return [*held, *own]


def _is_of(thing: type | Callable[..., Any], packages: Container[str]) -> bool:
    """Whether a class or function belongs to one of these packages."""
    return (thing.__module__ or "").split(".")[0] in packages


_FRAMEWORKS = {"keras", "tensorflow", "jax", "jaxlib", "torch", "numpy"}


def _held_by_function(function: types.FunctionType) -> list[Any]:
    inner = inspect.unwrap(function)
    if not isinstance(inner, types.FunctionType):
        return [inner]
    if _is_of(inner, {*_FRAMEWORKS, "combined_losses"}):
        return []
    try:
        closure = inspect.getclosurevars(inner)
    except ValueError:  # a cell of its closure is still empty
        return []
    defaults = [*(inner.__defaults__ or ()), *(inner.__kwdefaults__ or {}).values()]
    return [*defaults, *closure.nonlocals.values(), *closure.globals.values()]


def variables_of(things: Iterable[Any]) -> list[Any]:
    """The variables of layers, models, seed generators and variables, each once."""
    found: dict[int, Any] = {}
    for thing in things:
        if isinstance(thing, keras.random.SeedGenerator):
            variables = [keras_private.seed_state(thing)]
        elif isinstance(thing, keras.Variable):
            variables = [thing]
        else:
            # Not `variables`: that of a tracked model holds the state of its loss, which may own
            # the model that asks here.
            variables = keras_private.variables_of_layer(thing)
        found.update((id(v), v) for v in variables)
    return list(found.values())


class OwnedModels(Sequence[Any]):
    """Models that are saved with a loss. Not a list, which Keras's saver would save by itself.

    Args:
        models: the models.
        owner: the name of the class of the loss, for messages.
    """

    def __init__(self, models: Iterable[Any], owner: str) -> None:
        self._models = tuple(models)
        self._owner = owner

    def __getitem__(self, index: Any) -> Any:
        return self._models[index]

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return repr(list(self._models))

    def serialized(self) -> list[dict[str, Any]]:
        """The models as Keras stores them; a network in several places is loaded as one network."""
        store = keras.saving.serialize_keras_object
        return [keras_private.share(store(model), model) for model in self]

    def save(self, store: Any) -> None:
        for index, variable in enumerate(variables_of(self)):
            store[f"{index}"] = variable

    def load(self, store: Any) -> None:
        variables = variables_of(self)
        found = len(keras_private.names_in(store))
        if found != len(variables):
            raise ValueError(
                f"The models {[model.name for model in self]} of {self._owner} have "
                f"{len(variables)} variables: load the weights into a model whose loss has the "
                "same models, built. "
                f"Received: {found} variables"
            )
        for index, variable in enumerate(variables):
            variable.assign(store[f"{index}"])


@contextlib.contextmanager
def warning_of_reads(model: Any, label: str) -> Iterator[None]:
    """A block of a traced step; it warns if variables are read that are not the model's.

    The compiled step keeps the values that these variables have in the trace.
    """
    optimizer = getattr(model, "optimizer", None)
    own = (*model.variables, *model.metrics_variables, *getattr(optimizer, "variables", ()))
    known = {id(v) for v in own}
    read: dict[int, Any] = {}

    def record(variable: Any) -> None:
        if id(variable) not in known:
            read[id(variable)] = variable

    with keras_private.noting_reads(record):
        yield
    if read:
        paths = quoted(v.path for v in list(read.values())[:3])
        warnings.warn(
            f"Component '{label}' reads {paths}, which belongs to neither the model nor its loss: "
            "a compiled step on JAX keeps the value of its first trace. Let the function hold it "
            "itself, in its closure or as an attribute, or give a model by OnInputs(models=[...]).",
            stacklevel=2,
        )
