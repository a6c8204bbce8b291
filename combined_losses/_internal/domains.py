"""What the numbers mean that a loss compares: shares, classes, ids, images, probabilities.

Our losses say it by their class attributes `target_kind` and `prediction_kind`; of Keras's a table
knows it. Of any other loss nothing is known, and nothing is asked.
"""

from typing import NamedTuple

from combined_losses._internal.resizing import void_numbers
from combined_losses._internal.traits import keras_function

# Targets: the range that they must lie in. Of "ids" (those of classes), "labels" (any to be told
# apart) and "images" (which span a range that the loss is told) it is found otherwise.
RANGES = {
    "shares": (0.0, 1.0),  # masks, labels that are independent, soft ones too
    "classes": (0.0, 1.0),  # rows, one-hot or soft, of classes that exclude each other
    "signs": (-1.0, 1.0),
    "amounts": (0.0, float("inf")),
}
WHOLE = ("ids", "labels")
KINDS = (None, *RANGES, *WHOLE, "images")


class Domain(NamedTuple):
    """What a loss means.

    Attributes:
        targets: one of `KINDS`; None: any number, or unknown.
        predictions: "probabilities", or None: any number, or unknown.
        classes: how many there are, where the loss says it.
        max_value: of images, the range that they span.
        voids: targets that stand for missing or void ones.
    """

    targets: str | None = None
    predictions: str | None = None
    classes: int | None = None
    max_value: float | None = None
    voids: frozenset = frozenset()


def domain_of(loss):
    """The `Domain` of a single loss: ours, Keras's, or a string or function that names one."""
    targets, predictions = _kinds(loss)
    if getattr(loss, "from_logits", False):
        predictions = None
    if targets == "classes" and getattr(loss, "multilabel", False):
        targets = "shares"
    found = Domain(targets, predictions, voids=frozenset(void_numbers(loss)))
    if targets == "ids":
        found = found._replace(classes=getattr(loss, "num_classes", None))
    return found._replace(
        max_value=getattr(loss, "max_value", None) if targets == "images" else None
    )


def _kinds(loss):
    function = keras_function(loss)
    if function is not None:
        return _OF_KERAS.get(function.__name__, (None, None))
    return getattr(loss, "target_kind", None), getattr(loss, "prediction_kind", None)


_SHARES, _CLASSES = ("shares", "probabilities"), ("classes", "probabilities")
_OF_KERAS = {
    "binary_crossentropy": _SHARES,
    "binary_focal_crossentropy": _SHARES,
    "dice": _SHARES,
    "tversky": _SHARES,
    "categorical_crossentropy": _CLASSES,
    "categorical_focal_crossentropy": _CLASSES,
    "kl_divergence": _CLASSES,
    "categorical_hinge": ("classes", None),
    "sparse_categorical_crossentropy": ("ids", "probabilities"),
    "categorical_generalized_cross_entropy": ("ids", "probabilities"),
    "circle": ("labels", None),
    "hinge": ("signs", None),
    "squared_hinge": ("signs", None),
    "mean_squared_logarithmic_error": ("amounts", None),
    "poisson": ("amounts", None),
}
