"""The class behind `keras.Model(inputs, outputs)`, and what a model knows of its outputs."""

from collections.abc import Collection, Sequence
from typing import Any

import keras


def _functional_class() -> type[Any]:
    """The class of `keras.Model(inputs, outputs)`, which Keras does not export.

    Keras 3.15.1: `Model.__new__`, called with both names, returns an object of it that nothing is
    initialised in. A whole model would do as well, but change the numbers in the names of layers
    that the user makes later.
    """
    return type(keras.Model.__new__(keras.Model, inputs=None, outputs=None))


FUNCTIONAL = _functional_class()


def are_functional_arguments(args: Sequence[Any], kwargs: Collection[str]) -> bool:
    """Whether these are the arguments of `Model(inputs, outputs)`.

    Keras 3.15.1: `Model.__new__` and `Model.__init__` tell by the number and the names of the
    arguments, and a subclass of `Model` has to do the same.
    """
    return len(args) == 2 or "outputs" in kwargs


def put_functional_below(cls: type[Any], model_class: type[Any], functional: type[Any]) -> None:
    """Replaces `model_class` by `functional` among the bases of a user's class.

    Keras 3.15.1: `Model.__init__` does the same with `Model` and its functional class, unless the
    class of the model is functional already. It would go on to the bases of `model_class`, and so
    change every other class that derives from `model_class`.
    """
    for base in cls.__bases__:
        if base is not model_class and issubclass(base, model_class):
            put_functional_below(base, model_class, functional)
    bases = (functional if base is model_class else base for base in cls.__bases__)
    cls.__bases__ = tuple(bases)


def copy_dtype_policy(model: keras.Model, other: keras.Model) -> None:
    """Gives a model the dtype policy of another one.

    Keras 3.15.1: a functional model takes no `dtype`. It has the global policy of the time when it
    was made, until its attribute `dtype_policy` is set.
    """
    model.dtype_policy = other.dtype_policy


def output_names(model: keras.Model) -> list[str] | None:
    """The names of the layers whose outputs a functional model returns; None for any other model.

    Keras 3.15.1: the attribute `output_names`, in the order of `keras.tree.flatten`, which is not
    documented.
    """
    names: list[str] | None = getattr(model, "output_names", None)
    return names
