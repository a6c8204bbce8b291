"""What the losses of classes share: the dtype of a prediction, and labels that may be unknown."""

import keras
from keras import ops

from combined_losses._numerics.floats import accumulating

# A probability near 0 may have a slope of 1e7. What reaches a prediction in float16, whose largest
# number is 65504, would be infinite.
_STEEPEST = 2.0**14


def cast_prediction(loss, y_pred, weight=None):
    """Predictions in the dtype of the computation, and the steepest slope by them, or None."""
    half = keras.backend.standardize_dtype(y_pred.dtype) == "float16"
    steepest = _STEEPEST / max(1.0, *(weight or [1.0])) if half else None
    return ops.cast(y_pred, accumulating(loss.dtype)), steepest


def known_labels(y_true, classes):
    """Integer labels, and whether they are ones: -1 would be taken for the last class."""
    known = ops.logical_and(y_true >= 0, y_true < classes)
    return ops.cast(ops.where(known, y_true, 0), "int32"), known
