"""What a loss compares: known of our own losses and of Keras's, unknown of any other."""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from combined_losses._backend import keras_private
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import Tensor


class Traits(NamedTuple):
    """What may be relied on; the defaults are those of a loss of which nothing is known."""

    same_shape: bool = False  # y_true has the shape of y_pred: anything else would be broadcast
    elementwise: bool = False  # means over the last axis of elements that do not see each other
    couples_batch: bool = False  # the samples of a batch see each other
    # Replaces the target in a row of weight 0, where rows do not see each other. None: they may, so
    # that finite targets and predictions stay as they are.
    neutral_target: float | None = None
    has_channels: bool = False  # the last axis holds channels, also where there is but one
    casts_prediction: bool = True  # or y_pred keeps its dtype, and the loss casts it
    # The values are sums over the last axis, and not means, of elements that do not see each other.
    # The loss gives these by its method `elements`.
    summed: bool = False
    # It divides by a sum over the classes (softmax): one channel alone is always 1.
    softmax: bool = False
    apart: bool = False  # the channels do not see each other, so that weights are of single ones
    casts_target: bool = True  # or y_true keeps its dtype: ids that a float would make one
    axis: int = -1  # that of the classes: all other axes of y_pred are those of the values
    ignored: int | None = None  # the target whose value the loss masks by itself
    masks_values: bool = True  # whether it may put a mask on its values
    reads_last: bool = False  # channels or classes on the last axis, or none: it may be moved there
    whole_rows: bool = False  # a row of y_true is one object, and may hold numbers that mean "none"
    takes_ids: bool = False  # y_true holds class ids, which are told apart and have no mean
    layout: str | None = None  # how predictions belong to targets, see `layouts`


LAYOUTS = (None, "blocks", "columns")


def check_layout(owner: str, layout: object) -> None:
    """Raises where a loss says that its predictions lie in a way that is none of `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise ValueError(
            f"The attribute `prediction_layout` of {owner} must be one of "
            f"{quoted(LAYOUTS, 'or')}. Received: {layout!r}"
        )


# Each function of Keras, by its name, whose rows do not see each other; no other is known, also
# none that a later Keras brings. 1.0 as a target lies in the domain of logarithms, ratios and
# probabilities; 0 is a label that always exists, and the blank of CTC.
_ELEMENTWISE = Traits(
    same_shape=True, elementwise=True, neutral_target=1.0, masks_values=False, reads_last=True
)
_CLASSWISE = _ELEMENTWISE._replace(elementwise=False)
_LABELS = Traits(neutral_target=0.0, reads_last=True, takes_ids=True)
_REGION = Traits(same_shape=True, masks_values=False)
_BY_NAME = {
    "binary_crossentropy": _ELEMENTWISE,
    "binary_focal_crossentropy": _ELEMENTWISE,
    "hinge": _ELEMENTWISE,
    "huber": _ELEMENTWISE,
    "log_cosh": _ELEMENTWISE,
    "mean_absolute_error": _ELEMENTWISE,
    "mean_absolute_percentage_error": _ELEMENTWISE,
    "mean_squared_error": _ELEMENTWISE,
    "mean_squared_logarithmic_error": _ELEMENTWISE,
    "poisson": _ELEMENTWISE,
    "squared_hinge": _ELEMENTWISE,
    "categorical_crossentropy": _CLASSWISE._replace(softmax=True),  # of probabilities too
    "categorical_focal_crossentropy": _CLASSWISE._replace(softmax=True),
    "categorical_hinge": _CLASSWISE,
    "cosine_similarity": _CLASSWISE,
    "kl_divergence": _CLASSWISE,
    "categorical_generalized_cross_entropy": _LABELS,
    "ctc": _LABELS,
    "sparse_categorical_crossentropy": _LABELS._replace(softmax=True),
    "circle": Traits(couples_batch=True),
    "dice": _REGION,
    "tversky": _REGION,
}
_FUNCTIONS: dict[Callable[..., Tensor], Traits] = {
    getattr(keras.losses, name): traits
    for name, traits in _BY_NAME.items()
    if hasattr(keras.losses, name)  # an older Keras has fewer
}


def keras_traits(loss: Any) -> Traits:
    """The traits of a loss object or function that is not of this library.

    Known is only a loss whose own `call` is Keras's, and a function that is one of Keras's: not one
    that is derived from such, or that has its name. An attribute `elementwise` of the user's says
    so of any other, and so does `prediction_layout`.
    """
    if says(loss, "elementwise") is True:
        return _ELEMENTWISE._replace(masks_values=True)
    layout = says(loss, "prediction_layout")
    if layout is not None:
        check_layout(f"the loss {loss!r}", layout)
        return Traits(neutral_target=1.0, has_channels=True, layout=layout)
    if not isinstance(loss, keras.losses.Loss):
        return _of_function(loss)
    traits = _of_function(keras_private.function_called_by(loss))
    if traits.neutral_target is None or traits.elementwise:
        return traits
    config = keras_private.arguments_of_function(loss)
    axis, ignored = config.get("axis", -1), config.get("ignore_class")
    if not isinstance(axis, int):
        return Traits()
    return traits._replace(axis=axis, ignored=ignored, reads_last=axis == -1)


def keras_function(loss: Any) -> Callable[..., Tensor] | None:
    """The function of Keras that a loss, or a `FunctionLoss`, calls; None for any other."""
    function: Callable[..., Tensor] | None = getattr(loss, "_function", loss)
    if isinstance(function, keras.losses.Loss):
        function = keras_private.function_called_by(loss)
    known = isinstance(function, types.FunctionType) and function in _FUNCTIONS
    return function if known else None


def _of_function(function: object) -> Traits:
    if not isinstance(function, types.FunctionType):  # what else may not be hashable
        return Traits()
    return _FUNCTIONS.get(function, Traits())


def says(loss: Any, name: str) -> Any:
    """What a loss or function says of itself by an attribute; None where it says nothing.

    What a class says describes the `call` that it has, or that a class below it is the first to
    give. A class that gives another one inherits no such claim, nor does a function under
    `functools.wraps`, which copies the attributes of another function.
    """
    own = getattr(loss, "__dict__", {})
    method = "call" if isinstance(loss, keras.losses.Loss) else "__call__"
    if name in own:
        copied = name in getattr(getattr(loss, "__wrapped__", None), "__dict__", {})
        return None if copied else own[name]
    if method in own:
        return None
    bases = type(loss).__mro__
    place = _first(bases, name)
    if place is None:
        return None
    giver = _first(bases, method)
    above = 0 if giver is None else giver + 1
    others = [base for base in bases[above : place + 1] if method in vars(base)]
    return None if others else getattr(loss, name)


def is_default(loss: object, name: str) -> bool:
    """Whether what `says` found is only what a class of this library says for all below it."""
    bases = type(loss).__mro__
    place = _first(bases, name)
    own = name in getattr(loss, "__dict__", {})
    return not own and place is not None and is_ours(bases[place])


def is_ours(thing: type | Callable[..., Any]) -> bool:
    """Whether a class or function is from this package."""
    return thing.__module__.partition(".")[0] == __name__.partition(".")[0]


def _first(bases: tuple[type, ...], name: str) -> int | None:
    return next((i for i, base in enumerate(bases) if name in vars(base)), None)
