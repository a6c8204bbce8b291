"""`Traits`: what may be relied on of a loss. Known for our losses and Keras's, not for others."""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from combined_losses._backend import keras_private
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import Tensor


class Traits(NamedTuple):
    """What may be relied on of a loss; the defaults suit a loss of which nothing is known."""

    same_shape: bool = False  # y_true must have the shape of y_pred: others would be broadcast
    # The values are means over the last axis, whose elements do not influence each other.
    elementwise: bool = False
    couples_batch: bool = False  # the samples of a batch influence each other
    # Its values are one number of the whole batch, in which it applies all weights by itself.
    weighs_batch: bool = False
    # Replaces the target in rows of weight 0. None: rows may influence each other, so finite
    # targets and predictions of such rows stay as they are.
    neutral_target: float | None = None
    has_channels: bool = False  # the last axis holds channels, even if there is only one
    casts_prediction: bool = True  # False: y_pred keeps its dtype, and the loss casts it
    # The values are sums, not means, over the last axis, whose elements do not influence each
    # other. The method `elements` of the loss returns the values of the elements.
    summed: bool = False
    # As `summed`, but the values are means, in which each element has arguments of its own.
    averaged: bool = False
    # It divides by a sum over the classes (softmax), so that a single channel is always 1.
    softmax: bool = False
    apart: bool = False  # channels do not influence each other: each may have its own weights
    casts_target: bool = True  # False: y_true keeps its dtype, as a float may merge large ids
    axis: int = -1  # the axis of the classes; the values have all other axes of y_pred
    ignored: int | None = None  # the loss itself masks the values of rows with this target
    masks_values: bool = True  # whether it may put a mask on its values
    # The last axis holds channels or classes, or nothing special: channels may be moved there.
    reads_last: bool = False
    whole_rows: bool = False  # a row of y_true is one object; some of its numbers may mean "none"
    takes_ids: bool = False  # y_true holds class ids, whose mean would make no sense
    layout: str | None = None  # which predictions belong to which target, see `layouts`
    # If not 0: the targets on the last axis of y_true are scored together, by all that y_pred holds
    # on so many last axes. The loss takes the weights of single targets.
    row_rank: int = 0
    # False: weights act on its values, even if its `call` takes some, as that of a sibling does.
    takes_weights: bool = True
    weighs_rows: bool = False  # the weights that its `call` takes have no last axis


LAYOUTS = (None, "blocks", "columns")


def check_layout(owner: str, layout: object) -> None:
    """Raises if the `prediction_layout` of a loss is not one of `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise ValueError(
            f"The attribute `prediction_layout` of {owner} must be one of "
            f"{quoted(LAYOUTS, 'or')}. Received: {layout!r}"
        )


# The traits of Keras's functions, by name. Functions that a later Keras adds count as unknown.
# As the neutral target 1.0 is valid for logarithms, ratios and probabilities alike; for labels it
# is 0, a label that always exists, and the blank of CTC.
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

    Known are Keras's functions themselves, and losses whose `call` is Keras's own. A subclass with
    another `call`, or a function of the same name, is unknown. The user can describe any loss or
    function by setting the attribute `elementwise` or `prediction_layout` on it.
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
    if not isinstance(function, types.FunctionType):  # other objects may not be hashable
        return Traits()
    return _FUNCTIONS.get(function, Traits())


def says(loss: Any, name: str) -> Any:
    """The attribute `name` of a loss or function, if it describes the `call` in use; else None.

    An attribute of a class describes the `call` of that class, or the first one that a subclass
    defines if the class has none. A subclass that overrides that `call` does not inherit the
    attribute. Nor does a function under `functools.wraps`, which copies the attributes of another.
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
    """Whether the attribute that `says` found is only the default of a class of this library."""
    bases = type(loss).__mro__
    place = _first(bases, name)
    own = name in getattr(loss, "__dict__", {})
    return not own and place is not None and is_ours(bases[place])


def is_ours(thing: type | Callable[..., Any]) -> bool:
    """Whether a class or function is from this package."""
    return thing.__module__.partition(".")[0] == __name__.partition(".")[0]


def _first(bases: tuple[type, ...], name: str) -> int | None:
    return next((i for i, base in enumerate(bases) if name in vars(base)), None)
