"""A named loss and the one way from it to a number."""

import functools
from collections.abc import Hashable
from typing import Any

import keras
from keras import ops

from combined_losses._core import checks
from combined_losses._core.batch import Batch
from combined_losses._core.calling import is_matched
from combined_losses._core.data_format import Formatted, as_given, telling, with_channels_last
from combined_losses._core.domains import examined
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.labels import OfLabels
from combined_losses._core.masks import read_mask
from combined_losses._core.observing import observed
from combined_losses._core.presence import presence
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS, per_sample, reduce_values
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating

_MOST_KNOWN = 100


class Leaf(OfLabels):
    """A child loss of a composite, or a loss of this library on its own: see `CallsLoss`."""

    def loss_itself(self) -> KerasLoss:
        loss: KerasLoss = self.loss
        return loss

    def leaves(self) -> list["Leaf"]:
        return [self]

    def find_readers(self) -> list[Any]:
        return [self.reader]

    def check_lambdas(self, label: str) -> None:
        if hasattr(self.loss, "check_no_lambda"):  # a `FunctionLoss`
            self.loss.check_no_lambda(label)

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        """The `Evaluation` of a `Batch`; see `reduced`."""
        label, imposed = label or self.name, reduction != PER_COMPONENT
        found = None if batch.weighted else self._unreduced_of_known(batch, imposed, label)
        if found is None:
            found = values, counted = self.unreduced(batch, imposed, label)
            few = len(self._known) < _MOST_KNOWN  # sequences may bring a new length every time
            if few and not batch.weighted and self._is_plain(batch, counted, values):
                self._known[_signature(batch)] = (values.shape, values.dtype)
        values, counted = found
        total = self.reduce(values, counted, reduction, label)
        present = presence(batch, values, counted) if batch.asks_presence else None
        if counted.values_of_own_rows is None:
            return Evaluation(total, present=present)
        return Evaluation(total, present=present, rows=(counted.count,))

    # Most checks depend only on the shapes and dtypes of the data. Data that have passed them once,
    # and that need no preparation, go straight to the loss from then on.

    def _unreduced_of_known(
        self, batch: Batch, imposed: bool, label: str
    ) -> tuple[Tensor, Batch] | None:
        """What `unreduced` gives, if data of these shapes have passed all checks before; else None.

        The loss is called once, as in `unreduced`: a user's function may count its calls, draw
        random numbers, or return values of another shape or dtype than before.
        """
        known = self._known.get(_signature(batch))
        is_watched = observed() is not None or examined() is not None or batch.notes_reads
        if known is None or is_watched:
            return None
        y_true, y_pred = batch.inputs(self.dtype, self.traits, self._neutral)
        formula = self.formula(batch)
        try:
            values = ops.convert_to_tensor(formula(y_true, y_pred))
        except Exception:
            with self.named_errors(label, y_true, y_pred):
                raise
        shape, dtype = known
        if values.shape != shape or (self.traits.masks_values and read_mask(values) is not None):
            if self.needs_target:
                checks.check_values(label, values, batch.size)
            return self.accounted(values, self.over_own_rows(batch, values), imposed, label)
        if values.dtype != dtype:
            values = ops.cast(values, accumulating(values.dtype))
        return values, batch

    def _is_plain(self, batch: Batch, counted: Batch, values: Tensor) -> bool:
        """Whether data of these shapes need only a call of the loss, and all sizes are known."""
        if self.opaque or counted is not batch or counted.weighted or not len(values.shape):
            return False
        if self.traits.layout is not None or batch.channels != "as given":
            return False
        y_true, y_pred = batch.inputs(self.dtype, self.traits, self._neutral)
        if keras.tree.is_nested(y_pred) or y_true is None or keras.tree.is_nested(y_true):
            return False
        shapes = [batch.y_true.shape, batch.y_pred.shape]
        is_aligned = [y_true.shape, y_pred.shape] == shapes and len(y_pred.shape) > 1
        return is_aligned and None not in (*shapes[0], *shapes[1], *values.shape)

    def reduced(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Tensor:
        """The value of this component, `()`.

        `reduction` is imposed on the loss; `PER_COMPONENT` leaves the loss its own. An imposed
        "none" gives one value for each sample, `(batch,)`; the loss's own "none" gives its values
        as they are. `label` is the name in messages if this component is a part of another one.
        """
        return self.evaluate(batch, reduction, label).total

    def reduce(self, values: Tensor, batch: Batch, reduction: str | None, label: str) -> Tensor:
        """The reduced values; `batch` has their weights and mask."""
        imposed = reduction != PER_COMPONENT
        reduction = reduction if imposed else self.loss.reduction
        if reduction not in REDUCTIONS:
            checks.check_reduction(label, reduction, REDUCTIONS)
        if len(values.shape):
            reduced = reduce_values(values, batch, reduction)
            return per_sample(reduced) if imposed and len(reduced.shape) else reduced
        if imposed and reduction in ("none", None):
            raise ValueError(
                f"Component '{label}' returns one number for the whole batch, but "
                'reduction="none" needs one per sample: return values that begin with the '
                "batch axis. Received: values of shape ()"
            )
        return self._scale_scalar(values, batch)

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch]:
        """The values in float32 or more, and the batch with what is still to apply to them."""
        checks.check_single_weight(label, batch.sample_weight)
        batch = self._arranged(batch)
        with telling(batch):
            of_labels = self._sees_elements(batch)
            values, batch = (self._of_labels if of_labels else self.values)(batch, label)
            return self.accounted(values, batch, imposed, label)

    def _arranged(self, batch: Batch) -> Batch:
        """The batch with the channels where the loss expects them."""
        if isinstance(self.loss, Formatted) and self.loss.formats:
            batch = with_channels_last(batch, self.loss.formats)
            # If a user's subclass overrides `call`, it is given the data as they are.
            return batch if self._of_last is not None else as_given(batch, for_view=True)
        return batch if self.traits.reads_last and not self.opaque else as_given(batch)

    def accounted(
        self, values: Tensor, batch: Batch, imposed: bool, label: str
    ) -> tuple[Tensor, Batch]:
        """The values to reduce, and the batch with the mask that the loss has put on them."""
        mask = self._own_mask(values)  # before the cast, which drops it
        values = ops.cast(values, accumulating(values.dtype))
        self.check_weights(values, batch, imposed, label)
        if mask is not None:
            checks.check_own_mask(label, mask, values)
        return values, batch.masked_too(mask, values)

    def check_weights(self, values: Tensor, batch: Batch, imposed: bool, label: str) -> None:
        """Raises or warns if the values no longer have the axes that weights or mask vary over."""
        for what, weight in batch.weights():
            kind = batch.mask_kind if what == "mask" else None
            if is_matched(label, what, weight, values, batch) or kind == "void":
                continue
            message = (
                f"Component '{label}' cannot honour the {what} of shape "
                f"{tuple(weight.shape)}: it has already reduced what they distinguish and "
                f"returns values of shape {tuple(values.shape)}. Return one value for each weight"
            )
            if kind == "labels":
                raise ValueError(f"{message}, or wrap another loss. Received: {self.loss!r}")
            if what == "sample_weight" and len(values.shape):
                raise ValueError(checks.too_fine(label, weight, values))
            if imposed:
                raise ValueError(f"{message}. Received: a reduction imposed on all components")
            self._warn(label, what, f"{message}; until then it counts unweighted.")

    def _scale_scalar(self, value: Tensor, batch: Batch) -> Tensor:
        """The contribution of this replica's scalar loss to the loss of the whole batch.

        The scalar counts as a mean over the samples of the replica. The exception is an opaque loss
        whose reduction is "sum".
        """
        if batch.sample_weight is not None and not len(batch.sample_weight.shape):
            value = value * ops.cast(batch.sample_weight, value.dtype)
        if batch.replicas > 1 and not (self.opaque and self.loss.reduction == "sum"):
            value = value * ops.cast(batch.share, value.dtype)
        if batch.size:
            return value
        # The mean over no samples is NaN, but a replica without samples contributes 0.
        empty = ops.equal(batch.count, 0)
        return ops.where(empty, ops.zeros_like(value), value)


def _signature(batch: Batch) -> Hashable:
    """All that the checks of data without weights depend on; None for structures of arrays."""
    return batch.once("signature", functools.partial(_signature_of, batch))


def _signature_of(batch: Batch) -> Hashable:
    y_true, y_pred = batch.y_true, batch.y_pred
    if not hasattr(y_true, "dtype") or not hasattr(y_pred, "dtype"):
        return None
    return y_true.shape, y_true.dtype, y_pred.shape, y_pred.dtype, batch.channels
