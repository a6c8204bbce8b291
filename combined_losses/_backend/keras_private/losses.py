"""Keras's own losses: the function inside, their arguments, and their names."""

import re

import keras

# Keras 3.15.1: all of its losses are made from this class, which it does not export. `call` calls
# the function `fn`, and `get_config` has the arguments that the function is given besides.
_FROM_FUNCTION = keras.losses.MeanSquaredError.__bases__[0]


def function_called_by(loss):
    """The function that `call` of a loss object calls; None where that `call` is not Keras's.

    Keras 3.15.1: a loss that is made from a function keeps it as `fn`.
    """
    own = "call" in vars(loss) or type(loss).call is not _FROM_FUNCTION.call
    return None if own else loss.fn


def arguments_of_function(loss):
    """What `function_called_by(loss)` is given besides targets and predictions.

    Keras 3.15.1: the `get_config` of the class between has them all. Those of the classes below
    leave some out: `SparseCategoricalCrossentropy` its `axis`.
    """
    return _FROM_FUNCTION.get_config(loss)


def whole_config(loss):
    """All that the classes of Keras that a loss is made of say in their configs.

    Keras 3.15.1: `Huber(delta)`, `CosineSimilarity(axis)` and `SparseCategoricalCrossentropy(axis)`
    save the config of the plain `Loss`; their arguments are in that of the class between. So each
    `get_config` is called as a function, from the base to the class itself.
    """
    found = {}
    for cls in reversed(type(loss).__mro__):
        get_config = vars(cls).get("get_config")
        if get_config is not None and cls.__module__.split(".")[0] == "keras":
            found.update(get_config(loss))
    return found


def calls_for_itself(loss):
    """Whether a loss has a `__call__` of its own.

    Keras 3.15.1: `Loss.__call__` casts, calls `call`, puts the masks of predictions and values
    together, multiplies by the weights, reduces, and divides a mean by the number of replicas.
    Whoever calls `call` and does the rest itself must know that nothing else happens there.
    """
    return type(loss).__call__ is not keras.losses.Loss.__call__


def is_numbered_name(name, default):
    """Whether a loss got its name from Keras, and not from the user.

    Keras 3.15.1: objects that are not named are numbered: my_loss, my_loss_1, ...
    """
    return re.fullmatch(rf"{re.escape(default)}_\d+", name) is not None
