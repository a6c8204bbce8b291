"""What a `Leaf` does when single labels of a row have weights or are missing."""

import copy
import types
from typing import Self

import keras
from keras import ops

from combined_losses._core import checks, layouts, neutral
from combined_losses._core.alignment import align, at_every_place, fits, is_used, product
from combined_losses._core.batch import Batch
from combined_losses._core.calling import CallsLoss
from combined_losses._core.traits import Traits, is_default, is_ours, says
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div


class OfLabels(CallsLoss):
    """The part of `Leaf` that applies weights and masks of single labels (abstract)."""

    def _sees_elements(self, batch: Batch) -> bool:
        """Whether weights or mask have one entry for each label, and the loss can use that."""
        if keras.tree.is_nested(batch.y_pred):
            return False
        if self.traits.row_rank:
            return bool(layouts.of_targets(batch, self.traits.row_rank))
        y_true, y_pred = align(batch.y_true, batch.y_pred, self.traits.has_channels)
        if self.traits.layout is not None:
            return layouts.tells_apart(batch, y_true, y_pred, self.traits.layout)
        weights = [batch.mask] if batch.mask_kind == "labels" else []
        if self.traits.elementwise and batch.tells_elements:
            weights = [weight for _, weight in batch.weights()]
        elif self.traits.elementwise and self.traits.apart:
            weights += [w for _, w in batch.weights() if w.shape[-1:] != (1,)]
        return any(len(weight.shape) == len(y_pred.shape) for weight in weights)

    def _of_labels(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The values of single labels if the loss allows it, else of rows: see `_of_rows`."""
        if self.traits.row_rank:
            return self._of_shares(batch, label)
        y_true, y_pred = align(batch.y_true, batch.y_pred, self.traits.has_channels)
        if self.traits.same_shape:
            checks.check_equal_shapes(label, y_true, y_pred)
        if self.traits.layout is not None:
            batch = batch.replaced(y_true=y_true, y_pred=y_pred)
            return self.values(layouts.of_single_targets(batch, self.traits.layout, label), label)
        size = ops.shape(y_pred)[-1] if len(y_pred.shape) > 1 else 1
        if self.traits.summed:
            values, batch = self.of_elements().values(batch, label)
            # Times `size`, so that with all labels present their mean is that of the sums.
            return values * ops.cast(size, values.dtype), batch.replaced(elements=size)
        if self.traits.averaged:
            values, batch = self.of_elements().values(batch, label)
            return values, batch.replaced(elements=size)
        if self.traits.elementwise:
            # With a new last axis of length 1 its mean is over a single element.
            y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
            batch = batch.replaced(y_true=y_true, y_pred=y_pred, elements=size)
            return self.values(batch, label)
        if self.traits.apart and self.weighs:
            return self.values(batch, label)
        return self._of_rows(batch, label)

    def _of_shares(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The values of rows whose targets are scored together; a row counts by its share of them.

        So the mean is over the targets that are there, as where each has a value of its own.
        """
        for what, weight in batch.weights():
            fits(label, what, weight, batch.y_true)  # raises
        found = {
            what: at_every_place(ops.cast(weight, self.dtype), batch.y_true)
            for what, weight in layouts.of_targets(batch, self.traits.row_rank).items()
        }
        inside = product(found.values())
        shares = {what: ops.mean(weight, axis=-1) for what, weight in found.items()}
        if len(found) == 2:  # together they weigh a row; the mask alone is what a mean divides by
            shares["sample_weight"] = div(ops.mean(inside, axis=-1), shares["mask"])
        y_true = neutral.neutralised(batch.y_true, is_used(inside), self._neutral)
        batch = batch.replaced(y_true=y_true, **shares)
        return self._of_neutral(batch, self._neutral, label, sample_weight=inside), batch

    def _of_rows(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The values of rows: a row counts only if none of its labels is missing."""
        # The minimum means "all labels", also of a mask that holds fractions after averages over
        # blocks. A term that needs no target concerns the row, which counts if any label is there.
        of_row = ops.min if self.needs_target else ops.max
        # Classes are on the last axis, unless a loss of Keras has the argument `axis`.
        mask = ops.moveaxis(ops.cast(batch.mask, "float32"), self.traits.axis, -1)
        no_rows = 0 in mask.shape[:-1]  # an empty array has no minimum
        rows = batch.replaced(mask=mask[..., 0] if no_rows else of_row(mask, axis=-1))
        values, rest = self.values(rows, label)
        if len(values.shape) == len(batch.mask.shape):  # a function with one value per label
            return self.values(batch, label)
        drops_some = self.needs_target and mask.shape[-1] != 1
        if drops_some and len(values.shape) and not self._means_rows():
            self._warn(
                label,
                "labels",
                f"Component '{label}' counts only rows whose labels are all there, because nothing "
                "is known of its loss. Set `elementwise = True` on the function or class if its "
                "values are means of single elements (`False` keeps the rows), or, where "
                "each target has several predictions, `prediction_layout`.",
            )
        return values, rest

    def _means_rows(self) -> bool:
        """Whether it is known that a row of targets is one object, such as a class or a box."""
        reader = self.reader
        if says(reader, "elementwise") is not None and not is_default(reader, "elementwise"):
            return True
        ours = is_ours(type(self.loss).call)
        return self.traits != Traits() and (ours or not hasattr(self.loss, "prediction_layout"))

    def of_elements(self) -> Self:
        """A copy of this node that returns the values of single elements."""
        node = copy.copy(self)
        node.traits = self.traits._replace(elementwise=False, summed=False, averaged=False)
        node.loss, node._of_last = types.SimpleNamespace(call=self.loss.elements), None
        node._known = {}
        return node
