"""The class behind `keras.Model(inputs, outputs)`, and what a model knows of its outputs."""

from typing import Any

import keras


def _functional_class():
    """The class of `keras.Model(inputs, outputs)`, which Keras does not export.

    Keras 3.15.1: `Model.__new__` gives an empty object of it where its arguments have both names.
    To make a whole model instead would add to the numbers in the names of the user's layers.
    """
    return type(keras.Model.__new__(keras.Model, inputs=None, outputs=None))


FUNCTIONAL: Any = _functional_class()


def are_functional_arguments(args, kwargs):
    """Whether these are the arguments of `Model(inputs, outputs)`.

    Keras 3.15.1: `Model.__new__` and `Model.__init__` decide so by the number and the names of the
    arguments, and a subclass of `Model` has to decide alike.
    """
    return len(args) == 2 or "outputs" in kwargs


def put_functional_below(cls, model_class, functional):
    """Puts `functional` in the place of `model_class` among the bases of a user's class.

    Keras 3.15.1: `Model.__init__` does so with its own classes, where the class of the model is not
    functional already. It rewrites the bases of every class above, those of `model_class` included,
    and with it every other class of the user's.
    """
    for base in cls.__bases__:
        if base is not model_class and issubclass(base, model_class):
            put_functional_below(base, model_class, functional)
    bases = (functional if base is model_class else base for base in cls.__bases__)
    cls.__bases__ = tuple(bases)


def copy_dtype_policy(model, other):
    """Gives a model the dtype policy of another one.

    Keras 3.15.1: a functional model takes no `dtype`; it has the policy that is set when it is
    made, until the attribute is set.
    """
    model.dtype_policy = other.dtype_policy


def output_names(model):
    """The names of the layers whose outputs a functional model gives; None for any other model.

    Keras 3.15.1: `output_names`, in the order of `keras.tree.flatten`; no documentation has it.
    """
    return getattr(model, "output_names", None)
