"""`diagnose`: what every component of a compiled model does, and what is wrong with it."""

import warnings

import keras
import numpy as np
from keras import ops

from combined_losses.diagnosis.batches import batches
from combined_losses.diagnosis.evidence import Evidence
from combined_losses.diagnosis.faults import find_faults
from combined_losses.diagnosis.measurer import measurer_of
from combined_losses.diagnosis.result import Diagnosis
from combined_losses.diagnosis.summary import Summary
from combined_losses.diagnosis.unseen import unseen

__all__ = ["diagnose"]


def diagnose(model, x, y=None, sample_weight=None, *, batch_size=32, at="output"):
    """Looks at every component of a compiled model on data, and says what is wrong.

    It finds what a falling total hides: a component that is 0 or constant, that has no gradient,
    that dominates, that pulls against another one, that is NaN for some samples, that ignores
    sample weights or mask, that returns values of an unusual shape, that is given targets or
    predictions outside of what it means (of Keras's losses that refuse such targets it shows the
    numbers for the nearest ones). Nothing of the model changes.
    All data are looked at, each batch at the price of about two steps of training, more at the
    parameters: pass `x[:1000], y[:1000]` of a large set.

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
    measurer = measurer_of(model, at)
    evidence = Evidence()
    with warnings.catch_warnings():
        # Keras's, of a categorical loss of one channel, is what is found here.
        warnings.simplefilter("ignore", SyntaxWarning)
        for batch in batches(x, y, sample_weight, batch_size):
            _examine(measurer, evidence, *batch)
    if not evidence.measured:
        raise ValueError("The data set must have at least one batch. Received: none")
    summary = Summary(measurer, evidence)
    return Diagnosis(model.name, summary, find_faults(summary, evidence), unseen(summary, evidence))


def _examine(measurer, evidence, x, y, sample_weight):
    """Adds one batch to the evidence, and where something looks wrong looks again."""
    measured = measurer.measure(x, y, sample_weight, _other_weights(sample_weight))
    data = (x, y, sample_weight)
    first = not evidence.measured
    if first:
        evidence.seen = measurer.seen(*data)
        evidence.domains, evidence.notes = measurer.domains, measurer.notes
    evidence.add(measured, y)
    if measurer.at == "output":
        _look_beside(measurer, evidence, first, *data)
    if not np.isfinite(measured.values).all():
        evidence.add_faulty_values(measurer.per_sample(x, y))
    if (measured.gramian.diagonal() == 0).any():
        for change in _other_predictions(y):
            evidence.add_reactions(measurer.values_at(change, *data))
        evidence.add_slopes(measurer.has_gradient_beside(*data))
    if evidence.may_broadcast(measurer.parts):
        for repeated, other in _other_targets(y, measurer.output_shape(x)):
            turned = measurer.values_at(_turned, x, repeated, sample_weight)
            moved = measurer.values_at(lambda p: p, x, other, sample_weight)
            evidence.add_broadcasts(turned, moved)


def _look_beside(measurer, evidence, first, *data):
    """Adds what tells which parts cannot be seen at the output, or cannot be seen together."""
    if first:
        evidence.add_acts(np.array([part.is_beyond_output for part in measurer.parts]))
        if measurer.may_act_beside:
            evidence.add_acts(measurer.acts_beside(*data))
    if evidence.may_be_apart():
        evidence.add_meeting(measurer.meeting(*data))


def _other_targets(y, shape):
    """Targets repeated to the shape of the predictions, and others; where that can be done."""
    if shape is None or not hasattr(y, "shape") or len(y.shape) != len(shape):
        return
    if all(n in (1, m) for n, m in zip(y.shape, shape, strict=True)):
        yield np.broadcast_to(y, shape), np.broadcast_to(y + 1 + np.abs(y), shape)


def _turned(prediction):
    return ops.roll(prediction, 1, axis=-1)


def _other_predictions(y):
    """Functions that change predictions in all ways, to see whether a component reacts to any."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    known = [leaf[np.isfinite(leaf)] for leaf in leaves if leaf.dtype.kind in "fiu"]
    sizes = [np.abs(leaf.astype("float64")).mean() for leaf in known if leaf.size]
    step = 1.0 + max(map(float, sizes), default=0.0)
    rng = np.random.default_rng(0)

    def far(scale):
        return lambda p: p + ops.cast(scale * step * rng.normal(size=p.shape), p.dtype)

    # The first three leave probabilities what they are.
    kept = (lambda p: ops.roll(p, 1, axis=0), lambda p: 0.5 * p, lambda p: 1.0 - p)
    return [*kept, far(1.0), far(1e4)]


def _other_weights(weights):
    """Weights between 0.5 and 1.5 times as large, 0 stays 0; None where one sample alone counts."""
    leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
    if not leaves or any(np.count_nonzero(leaf) < 2 for leaf in leaves):
        return None
    rng = np.random.default_rng(0)

    def other(weight):
        drawn = rng.uniform(0.5, 1.5, weight.shape)
        return (weight * drawn).astype(keras.config.floatx())

    return keras.tree.map_structure(lambda w: None if w is None else other(w), weights)
