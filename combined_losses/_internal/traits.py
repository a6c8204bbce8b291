"""What a loss compares: known of our own losses and of Keras's, unknown of any other."""

from typing import NamedTuple

import keras

from combined_losses._internal.names import snake_case


class Traits(NamedTuple):
    """What may be relied on; the defaults are those of a loss of which nothing is known."""

    same_shape: bool = False  # y_true has the shape of y_pred: anything else would be broadcast
    elementwise: bool = False  # means over the last axis of elements that do not see each other
    couples_batch: bool = False  # the samples of a batch see each other
    neutral_target: float = 1.0  # stands in for a target in a row of weight 0
    has_channels: bool = False  # the last axis holds channels, also where there is but one
    casts_target: bool = True  # or y_true keeps its dtype: ids that a float would make one


# Keras's losses that are not elementwise; a test goes over all of `keras.losses`. 1.0 as a target
# lies in the domain of logarithms, ratios and probabilities; 0 is a label that always exists, and
# the blank of CTC.
_ELEMENTWISE = Traits(same_shape=True, elementwise=True)
_CLASSWISE = Traits(same_shape=True)
_LABELS = Traits(neutral_target=0.0)
_SPECIAL = {
    "CategoricalCrossentropy": _CLASSWISE,
    "CategoricalFocalCrossentropy": _CLASSWISE,
    "CategoricalHinge": _CLASSWISE,
    "CosineSimilarity": _CLASSWISE,
    "Dice": _CLASSWISE,
    "KLDivergence": _CLASSWISE,
    "Tversky": _CLASSWISE,
    "CTC": _LABELS,
    "CategoricalGeneralizedCrossEntropy": _LABELS,
    "Circle": Traits(couples_batch=True),
    "SparseCategoricalCrossentropy": _LABELS,
    "Loss": Traits(),
    "LossFunctionWrapper": Traits(),
}
_SPECIAL_FUNCTIONS = {snake_case(name): traits for name, traits in _SPECIAL.items()}


def keras_traits(loss):
    """The traits of a loss object or function: what Keras made, or `elementwise` says."""
    if getattr(loss, "elementwise", False) is True:
        return _ELEMENTWISE
    if isinstance(loss, keras.losses.Loss):
        for cls in type(loss).__mro__:
            if cls.__module__.split(".")[0] == "keras":
                return _SPECIAL.get(cls.__name__, _ELEMENTWISE)
    module = getattr(loss, "__module__", None) or ""
    if module.split(".")[0] == "keras" and hasattr(loss, "__name__"):
        return _SPECIAL_FUNCTIONS.get(loss.__name__, _ELEMENTWISE)
    return Traits()
