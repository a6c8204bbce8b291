"""`diagnose`: what every component of a compiled model does, and what is wrong with it."""

import warnings
from typing import Any

import keras
import numpy as np

from combined_losses.diagnosis import perturbations
from combined_losses.diagnosis.batches import Data, batches, told_lengths
from combined_losses.diagnosis.blind_spots import find_blind_spots
from combined_losses.diagnosis.evidence import Evidence
from combined_losses.diagnosis.faults import find_faults
from combined_losses.diagnosis.measurer import At, Measurer, measurer_of
from combined_losses.diagnosis.result import Diagnosis
from combined_losses.diagnosis.summary import Summary

__all__ = ["diagnose"]


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    at: At = "output",
) -> Diagnosis:
    """Looks at every component of a compiled model on data, and says what is wrong.

    It finds what a falling total hides: a component that is 0 or constant, that has no gradient,
    that dominates, that pulls against another one, that is NaN for some samples, that ignores
    sample weights or mask, that returns values of an unusual shape, that is given targets or
    predictions outside of what it means. (Some of Keras's losses raise on such targets; their
    numbers are then those of the nearest targets that they take.) The model does not change.

    All data are looked at. A batch takes about as long as two steps of training, and longer with
    `at="parameters"`: pass `x[:1000], y[:1000]` of a large set.

    Inputs, outputs and targets may have different numbers of rows, as the points of a
    physics-informed fit have. The value of each component is the mean over its own rows.

    Args:
        model: a compiled `keras.Model` whose loss is a `CompositeLoss`, or has one; it need not be
            a tracked one. It is called as in `evaluate` (`training=False`).
        x: an array, a list or dict of arrays; or a data set of batches `(x, y[, sample_weight])`: a
            `keras.utils.PyDataset` such as `cl.PointSets`, a `tf.data.Dataset`, a torch
            `DataLoader`, a generator. Of an endless one take a part: `itertools.islice(data, 10)`.
        y: targets, in the structure of the outputs.
        sample_weight: None, or weights as in `fit`.
        batch_size: samples in a batch, default 32. Products of gradients are those of each batch,
            averaged over the batches. Arrays of several lengths are cut into equally many batches:
            this is the number of rows that the longest may have in one, unless a shorter array has
            too few rows for so many batches.
        at: where gradients are taken. `"output"` (default): at the predictions, one pass through
            the network. `"parameters"`: at the trainable parameters, one pass for each component.
            Two components may be in conflict at the parameters and not at the output, or the other
            way around. The gradients of `OnInputs`, and of a function that reads the model from its
            closure, are seen at the parameters only; so are conflicts between terms of outputs of
            their own.

    Returns:
        A `Diagnosis`: `print` shows a table, `.to_frame()` gives a pandas DataFrame, `.plot()` a
        figure, `.to_html()` a page, `.flags` what is wrong by component and `.proposed_weights`
        weights with which all gradients were equally long.

    Raises:
        ValueError: for a model that is not compiled or has no composite, for shapes that do not fit
            the model, for a target or sample weights that have not the rows of what they belong to.

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
        # Keras warns of a categorical loss with one channel, which the diagnosis reports itself.
        warnings.simplefilter("ignore", SyntaxWarning)
        for batch in batches(x, y, sample_weight, batch_size):
            try:
                _examine(measurer, evidence, batch)
            except ValueError as error:
                told = told_lengths(x, y, sample_weight)
                if told is None:
                    raise
                raise ValueError(f"{error} {told}") from error
    if not evidence.measured:
        raise ValueError("The data set must have at least one batch. Received: none")
    summary = Summary(measurer, evidence)
    faults, blind_spots = find_faults(summary, evidence), find_blind_spots(summary, evidence)
    return Diagnosis(model.name, summary, faults, blind_spots)


def _examine(measurer: Measurer, evidence: Evidence, data: Data) -> None:
    """Adds one batch to the evidence, and looks closer where something looks wrong."""
    x, y, sample_weight = data
    measured = measurer.measure(*data, perturbations.other_weights(sample_weight))
    first = not evidence.measured
    if first:
        evidence.observed = measurer.observed(*data)
        evidence.domains, evidence.notes = measurer.domains, measurer.notes
    evidence.add(measured, y)
    if measurer.at == "output":
        _look_beyond_output(measurer, evidence, first, data)
    if not np.isfinite(measured.values).all():
        of_one_size = len(set(measured.rows)) == 1
        evidence.add_faulty_values(measurer.values_per_sample(x, y, of_one_size))
    if (measured.gramian.diagonal() == 0).any():
        for change in perturbations.changes_for(y):
            evidence.add_reactions(measurer.values_at(change, *data))
        evidence.add_gradients_nearby(measurer.has_gradient_nearby(*data))
    if evidence.may_broadcast(measurer.parts):
        _look_at_broadcasts(measurer, evidence, data)


def _look_beyond_output(measurer: Measurer, evidence: Evidence, first: bool, data: Data) -> None:
    """Adds which parts cannot be seen at the output, and which cannot be seen together there."""
    if first:
        parts = measurer.parts
        evidence.add_beyond_output(np.array([part.is_beyond_output for part in parts]))
        if measurer.may_act_beyond_output:
            evidence.add_beyond_output(measurer.acts_beyond_output(*data))
    if evidence.may_be_apart():
        evidence.add_common_places(measurer.have_common_places(*data))


def _look_at_broadcasts(measurer: Measurer, evidence: Evidence, data: Data) -> None:
    """Adds which parts repeat targets for several predictions."""
    x, y, sample_weight = data
    targets = perturbations.repeated_targets(y, measurer.output_shape(x))
    if targets is None:
        return
    repeated, other = targets
    turned = measurer.values_at(perturbations.turned_channels, x, repeated, sample_weight)
    moved = measurer.values_at(lambda p: p, x, other, sample_weight)
    evidence.add_broadcasts(turned, moved)
