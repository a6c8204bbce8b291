"""One loss on several outputs of a model, each at a resolution of its own."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.batch import Batch
from combined_losses._core.checks import are_numbers, is_float
from combined_losses._core.data_format import Formatted, with_channels_last
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import (
    CompositeArguments,
    DataFormat,
    LossLike,
)
from combined_losses._core.masks import read_mask
from combined_losses._core.names import check_log_keys, quoted
from combined_losses._core.outputs import NOTHING, entry_of
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating
from combined_losses.wrappers import levels
from combined_losses.wrappers.output_weights import places_in
from combined_losses.wrappers.resizing import (
    averaged_of_what_counts,
    is_same,
    is_static,
    picked,
    takes_ids,
    void_numbers,
)
from combined_losses.wrappers.scales import Levels

__all__ = ["DeepSupervision"]


@keras.saving.register_keras_serializable("combined_losses")
class DeepSupervision(Formatted, Levels):
    """A loss on several outputs at decreasing resolution, against one target.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        weights: `"exp"` (default): 1, 1/2, 1/4, … divided by their sum; or one number for each
            output.
        outputs: the names of the outputs, finest first; the parts are reported under them, and the
            parts of a composite as `full_dice`. Default all outputs in their order, not reported.
        target: the key of the target in `y`, if `y` is a dict because the model has other heads
            too; sample weights in a dict are found under the same key. Default None.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`; `data_format` is that of
            the outputs, and of targets of as many axes.

    The target is one array of the finest resolution, or a list or dict with one array for each
    output. One array is resized to each output, whose sizes TensorFlow may learn only when it runs:

    - Picked: class ids (a target of whole numbers, or a loss inside that takes ids), void entries,
      sample weights and masks. Place i of an output gets the entry at `floor(i * in / out)`, which
      is every n-th entry if the sizes divide.
    - Averaged: all other targets. A place of an output gets the mean over its cell, in which a
      pixel on a border counts by the share that lies inside. So segmentation masks of floats become
      fractions, and those of whole numbers stay whole.
    - The mean leaves out missing labels (`Masked`), void ones (`ignore_value`) and those with a
      sample weight of 0. A cell whose picked pixel is void or has the weight 0 is so itself.

    It trains in `cl.Model`, `cl.Sequential` and `cl.track`, and sees all outputs. To evaluate by
    sliding windows, give `components(y, one_array)` of a `CompositeLoss` around it the finest
    output alone: it reports that output, and no component that reads others.

    Raises:
        ValueError: if an output or the target is unknown, the number of weights differs, or an
            output is finer than the target.

    Example: a mean over two of three pixels counts the middle one as half.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.DeepSupervision("mse", [1.0, 1.0], outputs=["full", "half"])
    >>> loss.component_names
    ('full', 'half')
    >>> y = np.array([1.0, 2.0, 6.0]).reshape(1, 3, 1)
    >>> half = np.array([4 / 3, 14 / 3]).reshape(1, 2, 1)  # (1 + 2 / 2) / 1.5, (2 / 2 + 6) / 1.5
    >>> round(float(loss(y, {"full": y, "half": half})), 6)
    0.0
    """

    chooses_outputs = takes_one_output = True

    def __init__(
        self,
        loss: LossLike,
        weights: Literal["exp"] | Sequence[float] = "exp",
        outputs: Sequence[str] | None = None,
        target: str | None = None,
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        self._set_format(data_format)
        exponential = isinstance(weights, str) and weights == "exp"
        if not exponential and not are_numbers(weights):
            raise ValueError(
                f"The argument `weights` of DeepSupervision ('{self.name}') must be 'exp' or one "
                f"finite number for each output. Received: {weights!r}"
            )
        if target is not None and not isinstance(target, str):
            raise ValueError(
                f"The argument `target` of DeepSupervision ('{self.name}') must be a key of `y`, "
                f"or None. Received: {target!r}"
            )
        self.weights = weights
        self.outputs = self._as_outputs(outputs)
        self.target = target
        check_log_keys(self.component_names, self.name)
        self._takes_ids, self._voids = takes_ids(self.loss), void_numbers(self.loss)

    def _as_outputs(self, outputs: Sequence[str] | None) -> Sequence[str] | None:
        listed = list(outputs) if isinstance(outputs, (list, tuple)) else []
        named = bool(listed) and all(isinstance(name, str) for name in listed)
        if outputs is not None and not (named and len(set(listed)) == len(listed)):
            raise ValueError(
                f"The argument `outputs` of DeepSupervision ('{self.name}') must be a list of "
                f"different names of outputs, finest first, or None. Received: {outputs!r}"
            )
        return outputs

    @property
    def _inner_names(self) -> tuple[str, ...]:
        return self._node.component_names

    @property
    def component_names(self) -> tuple[str, ...]:
        return levels.part_names(self.outputs or (), self._node)

    @property
    def part_parents(self) -> dict[str, str | None]:
        return levels.part_parents(self.outputs or (), self._node)

    @property
    def part_weights(self) -> dict[str, float | None]:
        names = self.outputs or ()
        weights = self._resolve_weights(len(names), self.name)
        return levels.part_weights(dict(zip(names, weights, strict=True)), self._node)

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label, reduction = label or self.name, self._of_levels(reduction)
        batch, names = self._read(batch, label)
        weights = [1.0] if batch.is_one_output else self._resolve_weights(len(names), label)
        found = [
            self._node.evaluate(self._level(batch, names, name, label), reduction, label)
            for name in names
        ]
        total = sum(w * each.total for w, each in zip(weights, found, strict=True))
        zeros = [None if weight else 0.0 for weight in weights]
        present = any_present(batch, [each.present for each in found], zeros)
        values: list[Tensor | None] = []
        if self.outputs:
            values = [value for each in found for value in (each.total, *each.values)]
            values += [None] * ((len(self.outputs) - len(names)) * (1 + len(self._inner_names)))
        result = Evaluation(total, tuple(values), present=present)
        return result if batch.is_one_output else result.over_rows(batch.count)

    def _read(self, batch: Batch, label: str) -> tuple[Batch, list[str]]:
        """The batch with a dict of outputs and the target; the names of the outputs it reads."""
        if batch.is_one_output:  # the finest
            name = (self.outputs or ["output"])[0]
            batch = batch.replaced(y_pred={name: batch.y_pred})
            return self._of_target(batch, label), [name]
        if not isinstance(batch.y_pred, dict):
            raise ValueError(
                f"Component '{label}' sees all outputs of a model. Compile it in cl.Model or "
                "cl.track(model), or call it with a dict of outputs. Received: one output"
            )
        names = list(self.outputs or batch.y_pred)
        unknown = [name for name in names if name not in batch.y_pred]
        if unknown:
            raise ValueError(
                f"Component '{label}' reads an output that the model has not; it has "
                f"{quoted(batch.y_pred)}. Received: {unknown[0]!r}"
            )
        return self._of_target(batch, label), names

    def _of_target(self, batch: Batch, label: str) -> Batch:
        """The batch with the target under the key `target`, and the sample weights under it."""
        y, weight = batch.y_true, batch.sample_weight
        if self.target is None or not keras.tree.is_nested(y):
            return batch
        places = places_in(batch)
        found = entry_of(y, self.target, places)
        if found is NOTHING:
            held = list(y) if isinstance(y, dict) else list(places)
            raise ValueError(
                f"Component '{label}' has the target {self.target!r}, and `y` the keys "
                f"{quoted(held)}. Received: target={self.target!r}"
            )
        own = entry_of(weight, self.target, places, below=True)
        return batch.replaced(y_true=found, sample_weight=weight if own is NOTHING else own)

    def _resolve_weights(self, count: int, label: str) -> list[float]:
        if isinstance(self.weights, str):
            weights = [0.5**level for level in range(count)]
            return [weight / sum(weights) for weight in weights]
        if len(self.weights) != count:
            raise ValueError(
                f"Component '{label}' has {len(self.weights)} weights for {count} outputs. "
                f"Received: {self.weights!r}"
            )
        return [float(weight) for weight in self.weights]

    def _level(self, batch: Batch, names: list[str], name: str, label: str) -> Batch:
        """The batch at the resolution of output `name`."""
        y_pred = batch.y_pred[name]
        y, weight = (
            _of_level(given, batch, names, name) for given in (batch.y_true, batch.sample_weight)
        )
        if y is None and batch.y_true is not None and self.needs_target:
            raise ValueError(_no_target(label, name, batch.y_true))
        channels = self.formats[0].rank(y, y_pred)
        coarse = None if weight is None else _resized(weight, y_pred, channels, picked)
        if y is not None and not keras.tree.is_nested(batch.y_true):
            y = _finer(y, y_pred, channels, name, label)
            y = self._target_at(y, y_pred, channels, weight)
        mask = read_mask(y_pred)
        level = batch.replaced(y_true=y, y_pred=y_pred, sample_weight=coarse, mask=mask)
        return with_channels_last(level, self.formats)

    def _target_at(self, y: Tensor, y_pred: Tensor, channels: int | None, weight: Tensor) -> Tensor:
        """The target at the resolution of output `y_pred`."""
        if self._takes_ids or not is_float(y):
            return _resized(y, y_pred, channels, picked)

        def average(y: Tensor, axes: Sequence[int], sizes: Sequence[Any]) -> Tensor:
            return averaged_of_what_counts(y, axes, sizes, self._voids, counts)

        counts = None if weight is None else ops.not_equal(weight, 0)
        if counts is not None and channels == len(y.shape) > len(counts.shape) > 1:
            counts = ops.expand_dims(counts, 1)  # as weights have no channels
        return _resized(ops.cast(y, accumulating(y.dtype)), y_pred, channels, average)


def _of_level(given: Any, batch: Batch, names: list[str], name: str) -> Any:
    """The entry for `name` in a dict, or in a list for all outputs of the model or for `names`."""
    if isinstance(given, dict):
        return given.get(name)
    if isinstance(given, (list, tuple)):
        for order in (list(batch.y_pred), names):
            if len(given) == len(order):
                return given[order.index(name)]
        return None
    return given


def _no_target(label: str, name: str, y: Any) -> str:
    if isinstance(y, dict):
        return (
            f"Component '{label}' needs one target, or one for each output, and `y` has none for "
            f"output '{name}'. Say which key holds it: DeepSupervision(..., target=key). "
            f"Received: y with the keys {quoted(y)}"
        )
    return (
        f"Component '{label}' needs one target, or one for each output. "
        f"Received: y of {len(y)} entries"
    )


def _resized(
    array: Tensor,
    y_pred: Tensor,
    channels: int | None,
    resize: Callable[[Tensor, Sequence[int], Sequence[Any]], Tensor],
) -> Tensor:
    """`array` at the size of an output; `channels` is the rank of arrays that have them first."""
    axes = _spatial(array, y_pred, channels)
    pairs = [*zip(axes, _spatial(y_pred, y_pred, channels), strict=False)]
    sizes = ops.shape(y_pred)
    sizes = [sizes[theirs] for _, theirs in pairs]
    same = [is_same(array.shape[axis], size) for axis, size in zip(axes, sizes, strict=True)]
    return array if all(same) else resize(array, axes, sizes)


def _spatial(array: Tensor, y_pred: Tensor, channels: int | None) -> range:
    """The spatial axes of a target, weight or output."""
    first = 2 if len(array.shape) == channels else 1
    return range(first, min(len(array.shape), first + len(y_pred.shape) - 2))


def _finer(y: Tensor, y_pred: Tensor, channels: int | None, name: str, label: str) -> Tensor:
    """The target; raises if one of its spatial axes is shorter than that of an output."""
    message = (
        f"Component '{label}' needs a target at least as fine as its outputs. Received: "
        f"y of shape {tuple(y.shape)} and '{name}' of shape {tuple(y_pred.shape)}"
    )
    pairs = zip(_spatial(y, y_pred, channels), _spatial(y_pred, y_pred, channels), strict=False)
    for own, theirs in pairs:
        fine, coarse = ops.shape(y)[own], ops.shape(y_pred)[theirs]
        if not is_static(fine, coarse):
            y = backend.requiring(y, fine >= coarse, message)
        elif fine < coarse:
            raise ValueError(message)
    return y
