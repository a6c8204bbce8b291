"""Keras's own losses: the function inside, their arguments, and their names."""

import re
from collections.abc import Callable
from typing import Any

import keras

from combined_losses._backend.arrays import Tensor

# Keras 3.15.1: each of its losses derives from this class, which it does not export. Its `call`
# calls the function `fn`; its `get_config` has the further arguments of that function.
_FROM_FUNCTION = keras.losses.MeanSquaredError.__bases__[0]


def is_in_compiled_loss() -> bool:
    """Whether a plain Keras model is calling the loss that it is compiled with.

    Keras 3.15.1: it does so inside `name_scope("compile_loss")`. The scopes of a thread are a list
    in a module that the functions of `keras.name_scope` see.
    """
    scope = keras.name_scope.__enter__.__globals__["global_state"]
    found = scope.get_global_attribute("name_scope_stack") or ()
    return any(each.name == "compile_loss" for each in found)


def function_called_by(loss: keras.losses.Loss) -> Callable[..., Tensor] | None:
    """The function that `call` of a loss object calls; None where that `call` is not Keras's.

    Keras 3.15.1: a loss that is made from a function keeps it as `fn`.
    """
    has_own_call = "call" in vars(loss) or type(loss).call is not _FROM_FUNCTION.call
    return None if has_own_call else loss.fn


def arguments_of_function(loss: keras.losses.Loss) -> dict[str, Any]:
    """The arguments of `function_called_by(loss)` besides targets and predictions.

    Keras 3.15.1: the `get_config` of the class above Keras's losses has all of them. Those of the
    losses leave some out: `SparseCategoricalCrossentropy` leaves out its `axis`.
    """
    arguments: dict[str, Any] = _FROM_FUNCTION.get_config(loss)
    return arguments


def whole_config(loss: keras.losses.Loss) -> dict[str, Any]:
    """The configs of all classes of Keras that a loss derives from, in one dict.

    Keras 3.15.1: `Huber(delta)`, `CosineSimilarity(axis)` and `SparseCategoricalCrossentropy(axis)`
    save the config of the plain `Loss` only; their arguments are in the config of a class between
    the two. So the `get_config` of each class is called as a function, from the base downwards.
    """
    config: dict[str, Any] = {}
    for cls in reversed(type(loss).__mro__):
        get_config = vars(cls).get("get_config")
        if get_config is not None and cls.__module__.split(".")[0] == "keras":
            config.update(get_config(loss))
    return config


def calls_for_itself(loss: keras.losses.Loss) -> bool:
    """Whether a loss has a `__call__` of its own.

    Keras 3.15.1: `Loss.__call__` casts, calls `call`, combines the masks of predictions and values,
    multiplies by the weights, reduces, and divides a mean by the number of replicas. Code that
    calls `call` and does the rest itself relies on nothing else happening there.
    """
    has_own_call: bool = type(loss).__call__ is not keras.losses.Loss.__call__
    return has_own_call


def is_numbered_name(name: str, default: str) -> bool:
    """Whether a loss got its name from Keras, and not from the user.

    Keras 3.15.1: objects without a name of the user's are numbered: my_loss, my_loss_1, ...
    """
    return re.fullmatch(rf"{re.escape(default)}_\d+", name) is not None
