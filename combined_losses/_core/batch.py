"""`Batch`: the arrays of one call of a loss, converted, with sample weights and mask apart."""

import contextlib
import copy
import functools
from collections.abc import Callable, Hashable
from typing import Any, Literal, Self, TypeVar

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._core import checks, neutral
from combined_losses._core.alignment import align, beside_classes, fit_from_left, is_per_sample
from combined_losses._core.masks import read_mask, with_mask
from combined_losses._core.outputs import Place
from combined_losses._core.owned import warning_of_reads
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor

_Made = TypeVar("_Made")


class Batch:
    """`y_true`, `y_pred`, `sample_weight` and the mask of one call.

    A batch is never changed: `replaced` and `view` return another one. Targets and predictions are
    converted to a dtype only once, for all components of that dtype.

    Args:
        y_true, y_pred, sample_weight: arrays, or structures of arrays for several outputs.
        name: the name in messages of the loss that is given the batch.
        source: the model, its inputs and its outputs, as far as they are known.
    """

    def __init__(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike = None,
        name: str = "loss",
        source: tuple[Any, Any, Any] = (None, None, None),
    ) -> None:
        self.mask: Tensor = read_mask(y_pred)  # before any cast: a cast drops it
        self.y_true: Tensor = _to_tensors(name, "y_true", y_true)
        self.y_pred: Tensor = _to_tensors(name, "y_pred", y_pred, required=True)
        if sample_weight is not None:
            sample_weight = _to_tensors(name, "sample_weight", _alone(sample_weight))
        self.sample_weight: Tensor = sample_weight
        self.weighted: bool = sample_weight is not None or self.mask is not None
        self.model: Any
        self.x: Tensor
        self.outputs: Tensor
        self.model, self.x, self.outputs = source
        # Whether a step is being traced, which keeps the state that it reads: see `noting_reads`.
        self.notes_reads: bool = self.model is not None and backend.is_compiling()
        # Where the mask comes from. "labels" are missing: a loss that cannot honour the mask is an
        # error. "void" targets were taken out of the data already: such a loss is fine.
        # "propagated" by Keras: such a loss gives a warning.
        self.mask_kind: Literal["labels", "void", "propagated"] = "propagated"
        # If the values are those of single elements: how many of them the loss averages otherwise.
        self.elements: Any = 1
        self.tells_elements = False  # whether weights of single elements act, see `labels`
        # How many last axes the predictions have beyond those of the targets, see `layouts`.
        self.own_axes = 0
        self.places: dict[str, Place] | None = None  # of the outputs, see `outputs.places_of`
        self.output_is_chosen = False  # a wrapper has chosen one output of several
        self.channels: Literal["as given", "moved", "last"] = "as given"  # see `data_format`
        self.channel_rank = 0  # the rank of the arrays whose channels were moved
        self.is_one_output = False  # one of several outputs: the finest of `DeepSupervision`
        self.replicas: int = backend.replica_count()
        self.asks_presence = False  # a rule wants to know which components are absent: `presence`
        self.captured: Any = None  # the training step that can be asked for gradients, or None
        self.training = False  # in a training step of a tracked model, where weights move
        self.weights_are_constants = False  # see `CompositeLoss.evaluate`
        self.is_unthreaded = False  # in a step on JAX that cannot read or keep variables
        self.may_be_skipped = False  # an outer composite may skip components that are not finite
        # Values that have rows of their own, where these are not those of the predictions.
        self.values_of_own_rows: Tensor = None
        self.skips_nothing = False  # the caller wants all values, finite or not
        self._share: Tensor = None
        self._made: dict[Hashable, Any] = {}

    def replaced(self, **changes: Any) -> Self:
        """The same batch with other `y_true`, `y_pred`, `sample_weight`, `mask` or attributes."""
        batch = copy.copy(self)
        vars(batch).update(changes, _made={})
        batch.weighted = batch.sample_weight is not None or batch.mask is not None
        return batch

    def once(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        """The result of `make()`, computed once for all components that ask with this `key`."""
        if key not in self._made:
            self._made[key] = make()
        made: _Made = self._made[key]
        return made

    def once_of(self, function: Callable[[Tensor], Tensor], array: Tensor) -> Tensor:
        """`function(array)`, computed once for all components that ask with the same two."""
        # The array is kept too: no other one gets its id meanwhile.
        return self.once((function, id(array)), lambda: (array, function(array)))[1]

    # A view of the data, and the weights that follow it.

    def weights(self) -> list[tuple[str, Tensor]]:
        """`("sample_weight", tensor)` and `("mask", tensor)`, each only if it is given."""
        pairs = (("sample_weight", self.sample_weight), ("mask", self.mask))
        return [(what, weight) for what, weight in pairs if weight is not None]

    def view(
        self,
        function: Callable[[Tensor], Tensor] | None = None,
        weights: Callable[[str, Tensor], Tensor] | None = None,
        **changes: Any,
    ) -> Self:
        """The same batch with its data transformed; sample weights and mask follow the data.

        Args:
            function: applied to targets and predictions. It must count axes from the left, because
                predictions may have more axes at the end than targets. None: the data stay.
            weights: `weights(what, weight)`, applied to the sample weights and to the mask if these
                are given; `what` is "sample_weight" or "mask". Default: `function` is applied to
                weights of single elements; weights of samples or rows have fewer axes and stay.
            changes: arrays that are already computed, and other attributes, as in `replaced`.
        """
        if weights is None and function is not None:
            weights = functools.partial(self._of_elements, function)
        if weights is not None:
            for what, weight in self.weights():
                if what not in changes:
                    changes[what] = weights(what, weight)
        if function is not None:
            for what, data in (("y_true", self.y_true), ("y_pred", self.y_pred)):
                if what not in changes and data is not None:
                    changes[what] = function(data)
        return self.replaced(**changes)

    def _of_elements(
        self, function: Callable[[Tensor], Tensor], what: str, weight: Tensor
    ) -> Tensor:
        """`function` of a weight with one number for each element; a coarser weight stays."""
        shape = self.shape
        if len(weight.shape) < len(shape):
            return weight
        if is_per_sample(weight):
            return ops.reshape(weight, (-1,))
        if any(n == 1 != size for n, size in zip(weight.shape, shape, strict=True)):
            weight = ops.broadcast_to(weight, self.sizes)
        return function(weight)

    def masked_too(self, mask: Tensor, values: Tensor) -> Self:
        """The same batch, its mask combined with the mask that a loss has put on its values.

        A mask of the data that does not fit the values drops out: `Leaf.check_weights` has raised
        or warned by then.
        """
        if mask is None:
            return self
        mask = ops.cast(fit_from_left(mask, values), "bool")
        given = None if self.mask is None else fit_from_left(self.mask, values)
        if given is not None:  # it may hold fractions, after averages over blocks
            mask = ops.where(mask, given, ops.zeros_like(given))
        return self.replaced(mask=mask)

    def unweighted(self) -> Self:
        """The same batch without weights and mask, which a loss has already applied."""
        return self.replaced(sample_weight=None, mask=None)

    # Other targets or predictions.

    def with_target(self) -> Self:
        """The same batch with zeros as targets if it has none, for terms that read none."""
        if self.y_true is not None:
            return self
        return self.replaced(y_true=keras.tree.map_structure(ops.zeros_like, self.y_pred))

    def of_floats(self, dtype: Dtype) -> Self:
        """The same batch with whole-number predictions cast to `dtype`, as Keras's losses do.

        For wrappers, which compute with predictions before a loss casts them.
        """
        if all(map(checks.is_float, keras.tree.flatten(self.y_pred))):
            return self
        return self.map_predictions(
            lambda leaf: leaf if checks.is_float(leaf) else ops.cast(leaf, dtype)
        )

    def map_predictions(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with `function` applied to each array of predictions.

        Masks that Keras put on the arrays are put on the results, for losses that read them there.
        """
        if keras.tree.is_nested(self.y_pred):
            mapped = keras.tree.map_structure(
                lambda leaf: with_mask(function(leaf), read_mask(leaf)), self.y_pred
            )
        else:
            mapped = with_mask(function(self.y_pred), self.mask)
        return self.replaced(y_pred=mapped)

    # Rows of weight 0, see `_core.neutral`.

    def neutralised(self, tensor: Tensor, number: float | None = None, axis: int = -1) -> Tensor:
        """`tensor` of this batch with `number` in the places whose weight is 0.

        With None only numbers there that are not finite are replaced. `axis` is as in `Traits`.
        """
        return neutral.neutralised(tensor, self.used(tensor, axis), number)

    def used(self, tensor: Tensor, axis: int = -1) -> Tensor:
        """The places of `tensor` whose weight is not 0; None if no weight or mask fits it."""
        if tensor is None:
            return None
        weights = [weight for _, weight in self.weights()]
        rank = len(tensor.shape)
        nested = keras.tree.is_nested(self.y_pred)
        if axis != -1 and not nested and rank == len(self.y_pred.shape):
            weights = [beside_classes(weight, rank, axis) for weight in weights]
        return neutral.where_used(weights, tensor)

    def harmless(self) -> Self:
        """The same batch with harmless rows of weight 0, for a loss that may read any row."""
        if not self.weighted:
            return self
        return self.replaced(
            y_true=keras.tree.map_structure(self.neutralised, self.y_true),
            y_pred=keras.tree.map_structure(self._without_gradient, self.y_pred),
        )

    def _without_gradient(self, y_pred: Tensor, axis: int = -1) -> Tensor:
        return neutral.without_gradient(y_pred, self.used(y_pred, axis))

    def inputs(
        self,
        dtype: Dtype,
        traits: Traits,
        neutral_target: float | None = None,
        aligned: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """`(y_true, y_pred)` in `dtype`, of one rank, harmless in rows of weight 0.

        In these rows targets become `neutral_target`, because they may be invalid, such as a label
        -1, and predictions become a constant. With None the loss may read these rows to compute
        other rows: only numbers that are not finite are replaced, and the predictions get no
        gradient. If not `aligned`, each array keeps its rank.
        """
        casts = (traits.casts_target, traits.casts_prediction)
        own = (traits.has_channels, *casts, traits.axis, traits.ignored)
        key = (dtype, neutral_target, *own, aligned)
        if key not in self._made:
            y_true, y_pred = self.y_true, self.y_pred
            if traits.casts_target:
                y_true = _cast(y_true, dtype)
            if traits.casts_prediction:
                y_pred = _cast(y_pred, dtype)
            if self.weighted:
                y_true, y_pred = self._harmless_pair(y_true, y_pred, traits, neutral_target)
            self._made[key] = (
                align(y_true, y_pred, traits.has_channels) if aligned else (y_true, y_pred)
            )
        y_true, y_pred = self._made[key]
        return y_true, y_pred

    def _harmless_pair(
        self, y_true: Tensor, y_pred: Tensor, traits: Traits, neutral_target: float | None
    ) -> tuple[Tensor, Tensor]:
        """Targets and predictions that are harmless in rows of weight 0, see `inputs`."""

        def target(array: Tensor) -> Tensor:
            replaced = self.neutralised(array, neutral_target, traits.axis)
            return neutral.keeping_ignored(array, replaced, traits.ignored)

        def prediction(array: Tensor) -> Tensor:
            if neutral_target is None:
                return self._without_gradient(array, traits.axis)
            return self.neutralised(array, neutral.NEUTRAL, traits.axis)

        targets = keras.tree.map_structure(target, y_true)
        return targets, keras.tree.map_structure(prediction, y_pred)

    # Sizes.

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape of the targets, read from the predictions, of which more sizes are known."""
        return tuple(self.y_pred.shape)[: len(self.y_pred.shape) - self.own_axes]

    @property
    def sizes(self) -> tuple[Any, ...]:
        """`shape` with tensors in place of unknown sizes."""
        return tuple(ops.shape(self.y_pred))[: len(self.shape)]

    @property
    def size(self) -> int | None:
        """The batch size; None if it is unknown, or if the predictions have no axes."""
        shape = self._first_array().shape
        return shape[0] if len(shape) else None

    @property
    def count(self) -> Tensor:
        """The batch size, a tensor if it is not known yet; 1 if the predictions have no axes."""
        first = self._first_array()
        return ops.shape(first)[0] if len(first.shape) else 1

    def _first_array(self) -> Tensor:
        if self.values_of_own_rows is not None:
            return self.values_of_own_rows
        return keras.tree.flatten(self.y_pred)[0]

    def over_rows_of(self, values: Tensor) -> Self:
        """The same batch, for values that may have other rows than the predictions have."""
        return self.replaced(values_of_own_rows=values, _share=None)

    @property
    def share(self) -> Tensor:
        """This replica's share of the batch that all replicas see together."""
        if self.replicas == 1:
            return 1.0
        if self._share is None:
            size = ops.cast(self.count, "float32")
            self._share = size / backend.global_sum(size)
        return self._share

    def zero(self) -> Tensor:
        """0, whose gradient by the predictions is 0 too, even if these are not finite."""
        zeros = [
            ops.sum(ops.where(ops.zeros_like(leaf, dtype="bool"), leaf, ops.zeros_like(leaf)))
            for leaf in keras.tree.flatten(self.y_pred)
            if checks.is_float(leaf)
        ]
        return sum(zeros[1:], zeros[0]) if zeros else ops.zeros(())

    def noting_reads(self, label: str) -> contextlib.AbstractContextManager[object]:
        """A block that calls component `label`; see `owned.warning_of_reads`."""
        if not self.notes_reads:
            return contextlib.nullcontext()
        block: contextlib.AbstractContextManager[object] = warning_of_reads(self.model, label)
        return block


def _alone(weight: ArrayLike) -> ArrayLike:
    """The array in a list of one: `fit` passes on `sample_weight=[w]` as the user gave it."""
    single = isinstance(weight, (list, tuple)) and len(weight) == 1
    return weight[0] if single and hasattr(weight[0], "shape") else weight


def _to_tensors(name: str, what: str, values: ArrayLike, required: bool = False) -> Tensor:
    """Tensors in the structure of `values`; a list of numbers is an array, not a structure."""
    if isinstance(values, np.ndarray) or ops.is_tensor(values):
        return checks.to_tensor(name, what, values)
    if values is None and not required:
        return None
    leaves = keras.tree.flatten(values)
    if leaves and all(isinstance(leaf, (int, float, np.number, np.bool_)) for leaf in leaves):
        return checks.to_tensor(name, what, values)
    return keras.tree.map_structure(
        lambda leaf: leaf if leaf is None and not required else checks.to_tensor(name, what, leaf),
        values,
    )


def _cast(tensors: Tensor, dtype: Dtype) -> Tensor:
    if hasattr(tensors, "dtype"):  # a structure has none, and takes longer
        return ops.cast(tensors, dtype)
    return keras.tree.map_structure(lambda t: None if t is None else ops.cast(t, dtype), tensors)
