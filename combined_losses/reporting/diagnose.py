"""`diagnose`: what every component of a compiled model does, and what is wrong with it."""

import keras
import numpy as np
from keras import ops

from combined_losses._internal.masks import read_mask, with_mask
from combined_losses.reporting.batches import batches
from combined_losses.reporting.diagnosis import Diagnosis
from combined_losses.reporting.evidence import Evidence
from combined_losses.reporting.faults import find_faults
from combined_losses.reporting.summary import Summary
from combined_losses.training.measuring import Measurer

__all__ = ["diagnose"]


def diagnose(model, x, y=None, sample_weight=None, *, batch_size=32, at="output"):
    """Looks at every component of a compiled model on data, and says what is wrong.

    It finds what a falling total hides: a component that is 0 or constant, that has no gradient,
    that dominates, that pulls against another one, that is NaN for some samples, that ignores
    sample weights or mask, that returns values of an unusual shape. Nothing of the model changes.
    All data are looked at, each batch at the price of one to three steps of training: pass
    `x[:1000], y[:1000]` of a large set.

    Args:
        model: a compiled `keras.Model` whose loss is a `CompositeLoss`, or has one; it need not be
            a tracked one. It is called as in `evaluate` (`training=False`).
        x: an array, a list or dict of arrays; or a data set of batches `(x, y[, sample_weight])`.
        y: targets, in the structure of the outputs.
        sample_weight: None, or weights as in `fit`.
        batch_size: samples in a batch, default 32. Gradients are those of a batch, and averaged.
        at: where gradients are taken. `"output"` (default): at the predictions, one pass through
            the network. `"parameters"`: at the trainable parameters, one pass for each component;
            conflicts that are felt there may not show at the output, and the other way around.

    Returns:
        A `Diagnosis`: `print` shows a table, `.to_frame()` gives a pandas DataFrame, `.plot()` a
        figure, `.to_html()` a page, `.flags` what is wrong by component and `.proposed_weights`
        weights with which all gradients were equally long.

    Raises:
        ValueError: for a model that is not compiled or has no composite, for arrays of different
            lengths or shapes that do not fit the model.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> x, y = np.random.rand(64, 4), np.random.rand(64, 1)
    >>> model = cl.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> loss = cl.CompositeLoss({"mse": "mse", "class": "categorical_crossentropy"})
    >>> model.compile("adam", loss=loss)
    >>> cl.diagnose(model, x, y).flags["class"]  # a softmax over one class is always right
    ('always zero',)
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"`batch_size` must be an integer of at least 1. Received: {batch_size!r}")
    measurer = Measurer(model, at)
    evidence = Evidence()
    for batch in batches(x, y, sample_weight, batch_size):
        _examine(measurer, evidence, *batch)
    if not evidence.measured:
        raise ValueError("The data set must have at least one batch. Received: none")
    summary = Summary(measurer, evidence)
    return Diagnosis(model.name, summary, find_faults(summary, evidence))


def _examine(measurer, evidence, x, y, sample_weight):
    """Adds one batch to the evidence."""
    y_pred = measurer.predict(x)
    measured = measurer.measure(x, y, y_pred, sample_weight)
    evidence.add(measured, y)
    y_pred = _map(ops.stop_gradient, y_pred)
    if not np.isfinite(measured.values).all():
        values = measurer.per_sample(x, y, y_pred, sample_weight)
        evidence.add_faulty_values([values.get(part.key) for part in measurer.parts])
    lengths = measured.gramian.diagonal()
    if (lengths == 0).any():
        for other in _other_predictions(y_pred, y):
            evidence.add_reactions(measurer.values(x, y, other, sample_weight)[0])
    if sample_weight is not None and measured.size > 1:
        other = keras.tree.map_structure(_other_weights, sample_weight)
        evidence.add_reweighted(measurer.values(x, y, y_pred, other)[0])
    if any(read_mask(leaf) is not None for leaf in keras.tree.flatten(y_pred)):
        # A tensor of its own: on JAX the same one would keep its mask.
        other = _map(lambda leaf: 1 * leaf, y_pred, _other_mask)
        evidence.add_remasked(measurer.values(x, y, other, sample_weight)[0])
    if len(evidence.measured) == 1:
        evidence.seen = measurer.shapes(x, y, y_pred, sample_weight)


def _map(function, y_pred, mask=lambda mask: mask):
    """`function` of every prediction, with a function of its mask."""

    def mapped(leaf):
        found = read_mask(leaf)
        return with_mask(function(leaf), None if found is None else mask(found))

    return keras.tree.map_structure(mapped, y_pred)


def _other_predictions(y_pred, y):
    """Predictions of all kinds, to see whether a component without gradient reacts to any."""
    sizes = [np.abs(leaf).mean() for leaf in keras.tree.flatten(y) if _is_number(leaf)]
    step = 1.0 + float(np.nanmax(sizes)) if sizes else 1.0
    rng = np.random.default_rng(0)

    def far(scale):
        def moved(leaf):
            return leaf + ops.cast(scale * step * rng.normal(size=leaf.shape), leaf.dtype)

        return moved

    # The first three leave probabilities what they are.
    changes = (lambda p: ops.roll(p, 1, axis=0), lambda p: 0.5 * p, lambda p: 1.0 - p)
    return [_map(change, y_pred) for change in (*changes, far(1.0), far(1e4))]


def _is_number(leaf):
    return leaf is not None and leaf.dtype.kind in "fiub" and leaf.size


def _other_weights(weight):
    """Weights between 0.5 and 1.5 times as large; 0 stays 0."""
    if weight is None:
        return None
    rng = np.random.default_rng(0)
    return (weight * rng.uniform(0.5, 1.5, weight.shape)).astype(keras.config.floatx())


def _other_mask(mask):
    """A mask that leaves out about half of what there was, or, of nothing, half of all."""
    drawn = np.random.default_rng(0).random(mask.shape) < 0.5
    was = ops.convert_to_numpy(mask).astype(bool)
    return ops.convert_to_tensor(was & drawn if was.any() else drawn)
