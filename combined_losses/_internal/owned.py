"""What a function or a loss of the user's reads besides: networks, variables, seeds."""

import contextlib
import functools
import inspect
import warnings

import keras


def owned_by(read):
    """The layers, models, variables and seed generators that a function or a loss holds.

    Of a function those in its closure, among the globals that it names, and bound to it; of a loss
    its attributes.
    """
    found: dict[int, object] = {}
    for value in _held(read):
        for leaf in keras.tree.flatten(value) if isinstance(value, _STRUCTURES) else [value]:
            if isinstance(leaf, _KINDS):
                found.setdefault(id(leaf), leaf)
    return list(found.values())


_STRUCTURES = (dict, list, tuple)
_KINDS = (keras.layers.Layer, keras.Variable, keras.random.SeedGenerator)


def _held(read):
    """The values of which some may be owned."""
    if isinstance(read, keras.layers.Layer):
        return [read]
    if isinstance(read, functools.partial):
        return [*_held(read.func), *read.args, *read.keywords.values()]
    if isinstance(read, keras.losses.Loss):
        return [*vars(read).values(), *_held(type(read).call)]
    owner = getattr(read, "__self__", None)
    bound = [owner, *getattr(owner, "__dict__", {}).values()]
    try:
        closure = inspect.getclosurevars(inspect.unwrap(read))
    except (TypeError, ValueError):  # no function of Python
        return [*bound, *getattr(read, "__dict__", {}).values()]
    return [*bound, *closure.nonlocals.values(), *closure.globals.values()]


def variables_of(things):
    """The variables of layers, models, seed generators and variables, each once."""
    found = {}
    for thing in things:
        if isinstance(thing, keras.random.SeedGenerator):
            variables = [thing.state]
        else:
            # Without what a tracked model adds: it may hold the model that this one is owned by.
            of_layer = keras.layers.Layer.variables.fget
            variables = [thing] if isinstance(thing, keras.Variable) else of_layer(thing)
        found.update((id(v), v) for v in variables)
    return list(found.values())


@contextlib.contextmanager
def warning_of_reads(model, label):
    """In the block, which is traced, reads of variables that are not the model's give a warning.

    They are read once, in the trace: what they become later is not seen.
    """
    optimizer = getattr(model, "optimizer", None)
    own = (*model.variables, *model.metrics_variables, *getattr(optimizer, "variables", ()))
    known, read = {id(v) for v in own}, {}
    value, had = keras.Variable.value, "value" in vars(keras.Variable)

    def noting(variable):
        if id(variable) not in known:
            read[id(variable)] = variable
        return value.__get__(variable)

    # Keras has no other way to see who reads a variable; in the trace alone, which is one thread's.
    keras.Variable.value = property(noting)
    try:
        yield
    finally:
        if had:
            keras.Variable.value = value
        else:
            del keras.Variable.value
    if read:
        paths = ", ".join(repr(v.path) for v in list(read.values())[:3])
        warnings.warn(
            f"Component '{label}' reads {paths}, which belongs to neither the model nor its loss: "
            "a compiled step on JAX keeps the value of its first trace. Let the function hold it "
            "itself, in its closure or as an attribute, or give a model by OnInputs(models=[...]).",
            stacklevel=2,
        )
