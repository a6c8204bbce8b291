"""How a single loss is called: inputs are checked, values returned, errors name the component."""

import functools
import inspect
import warnings
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import keras
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core import checks, domains, layouts
from combined_losses._core.alignment import (
    align,
    at_every_place,
    fit_from_left,
    fits,
    is_per_sample,
    product,
)
from combined_losses._core.batch import Batch
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.masks import read_mask, with_mask
from combined_losses._core.named_errors import NamedErrors
from combined_losses._core.node import Node
from combined_losses._core.observing import Observation, observed
from combined_losses._core.traits import Traits, keras_function
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import accumulating

Pair: TypeAlias = tuple[Tensor, Tensor]


class CallsLoss(Node):
    """A node that calls a loss (abstract: see `Leaf`).

    Args:
        name: its name in messages.
        loss: a `keras.losses.Loss`.
        traits: the `Traits` of the loss, which say what may be relied on.
        opaque: whether to call the loss by its `__call__`, which reduces by itself. Default: if the
            class of the loss overrides `__call__`.
    """

    needs_target: bool
    reads_target: bool

    def __init__(
        self, name: str, loss: KerasLoss, traits: Traits, opaque: bool | None = None
    ) -> None:
        self.name = name
        self.loss: Any = loss
        self.traits = traits
        self.needs_target = getattr(loss, "needs_target", True)
        self.reads_target = getattr(loss, "reads_target", self.needs_target)
        # Whether its `__call__` is that of this library, see `Loss._reducing_call`.
        ours = type(loss).__call__ is getattr(type(loss), "_reducing_call", None)
        own_call = keras_private.calls_for_itself(loss) and not ours
        self.opaque = own_call if opaque is None else opaque
        # Losses of this library compute in float32 or more, whatever dtype they were made with.
        self.dtype = accumulating(loss.dtype) if ours else loss.dtype
        self.weighs = ours and traits.takes_weights and _takes_weight(type(loss).call)
        # The formula of a `Formatted` loss, which takes data that have the channels last.
        self._of_last = getattr(_call_of(loss), "of_channels_last", None)
        # Replaces targets of weight 0. None: rows may influence each other, so targets stay.
        self._neutral = None if traits.couples_batch else traits.neutral_target
        self.shares = False  # whether another component needs the same softmax: `may_share`
        self._warned: set[tuple[str, str]] = set()
        # From shapes and dtypes of checked data to those of the values: `Leaf._unreduced_of_known`.
        self._known: dict[Hashable, tuple[Any, Any]] = {}

    @property
    def reader(self) -> Any:
        """The function or loss that is called, as the user gave it."""
        return getattr(self.loss, "function", self.loss)

    def formula(self, batch: Batch) -> Callable[..., Tensor]:
        """The function that returns the values of the arrays that `batch.inputs` returns."""
        if self._of_last is None:
            formula: Callable[..., Tensor] = self.loss.call
            return formula
        formula = self._of_last.__get__(self.loss)
        return functools.partial(formula, once=batch.once_of) if self.shares else formula

    @property
    def may_share(self) -> bool:
        """Whether the formula takes `once`: it then asks for the log-softmax of its logits."""
        return self._of_last is not None and "once" in inspect.signature(self._of_last).parameters

    def values(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The values, and the batch without those weights that the loss has already applied."""
        if self.opaque:
            return self._call_whole(batch, label)
        if batch.weighted and self.weighs:
            return self._call_with_weights(batch, label)
        neutral = self._neutral
        values = self._of_neutral(batch, neutral, label)
        batch = self.over_own_rows(batch, values)
        if not batch.weighted or neutral is None:
            return values, batch
        if any(
            not is_matched(label, what, weight, values, batch) for what, weight in batch.weights()
        ):
            # The loss has already reduced over rows of weight 0, so neutral targets would bias it.
            values = self._call(batch, None, label)
        return values, batch

    def over_own_rows(self, batch: Batch, values: Tensor) -> Batch:
        """The batch, with other rows where a term of predictions alone has rows of its own."""
        if self.needs_target or not len(values.shape) or values.shape[0] == batch.size:
            return batch
        return batch.over_rows_of(values)

    def _call_with_weights(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The same for a loss whose `call` takes `sample_weight`: see `_core.loss.Loss`."""
        inside, rest = batch.weights(), batch
        if self.traits.weighs_batch:
            rest = batch.unweighted()
        elif not self.traits.couples_batch:
            inside = [(what, weight) for what, weight in inside if not is_per_sample(weight)]
            rest = batch.replaced(**{what: None for what, _ in inside})
        _, y_pred = align(batch.y_true, batch.y_pred, self.traits.has_channels)
        coupled = self.traits.couples_batch and not self.traits.weighs_batch
        of_rows = (coupled or self.traits.weighs_rows) and len(y_pred.shape) > 1
        like = y_pred[..., 0] if of_rows else y_pred  # rows, or samples
        fitted = []
        for what, weight in inside:
            fitted.append(at_every_place(ops.cast(weight, self.dtype), like))
            if fitted[-1] is None:
                shapes = f"{tuple(weight.shape)} and y_pred of shape {tuple(y_pred.shape)}"
                less = ", without the last axis" if of_rows else ""
                raise ValueError(
                    f"The {what} of component '{label}' must have the shape of the predictions "
                    f"from the left{less}. Received: {what} of shape {shapes}"
                )
        neutral = self.traits.neutral_target
        values = self._of_neutral(batch, neutral, label, sample_weight=product(fitted))
        if coupled and self.traits.weighs_rows:  # weights of rows act inside alone
            finer = [what for what, weight in inside if not is_per_sample(weight)]
            rest = batch.replaced(**dict.fromkeys(finer))
        return values, rest

    def _of_neutral(
        self, batch: Batch, neutral: float | None, label: str, **weight: Tensor
    ) -> Tensor:
        """The values; a loss that puts its own mask on them is given the original targets."""
        values = self._call(batch, neutral, label, **weight)
        replaced = batch.weighted and neutral is not None and self.traits.ignored is None
        if replaced and self._own_mask(values) is not None:
            return self._call(batch, None, label, **weight)
        return values

    def _own_mask(self, values: Tensor) -> Tensor | None:
        """The mask that the loss has put on its values."""
        return read_mask(values) if self.traits.masks_values and not self.opaque else None

    def _call(
        self, batch: Batch, neutral_target: float | None, label: str, **weight: Tensor
    ) -> Tensor:
        """Checks the data and returns the values; an error in the loss names the component."""
        traits = self.traits
        y_true, y_pred = batch.inputs(self.dtype, traits, neutral_target)
        if self.needs_target:
            checks.check_target(label, y_true)
        if self.traits != Traits():
            checks.check_single(label, y_true if self.needs_target else None, y_pred)
        if not keras.tree.is_nested(y_pred) and not keras.tree.is_nested(y_true):
            if self.traits.same_shape:
                checks.check_equal_shapes(label, y_true, y_pred)
            if self.traits.layout is not None and self.needs_target:
                y_true = layouts.beside(y_true, y_pred, self.traits.layout, label)
            if self.traits.elementwise and len(y_pred.shape) == 1:
                # (N,) is a batch of N numbers, not one sample of N elements.
                y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
        with self.named_errors(label, y_true, y_pred), batch.noting_reads(label):
            domains.examine(label, self.loss, batch, y_true, y_pred, self.traits.axis)
            values = self._values_of_mended(batch, neutral_target, (y_true, y_pred), weight)
        self._observe(label, batch, y_true, y_pred, values)
        if self.needs_target:  # a term of predictions alone may have rows of its own
            checks.check_values(label, values, batch.size)
        return values

    def named_errors(self, label: str, y_true: Tensor, y_pred: Tensor) -> NamedErrors:
        """A block whose errors name the component, for a call of the loss on these data."""
        other_shape = self.traits != Traits() and not self.traits.same_shape
        return NamedErrors(label, None if other_shape else y_true, y_pred)

    def _values_of_mended(
        self, batch: Batch, neutral_target: float | None, pair: Pair, weight: dict[str, Tensor]
    ) -> Tensor:
        """The values. While `cl.diagnose` examines, targets that Keras refuses are replaced."""
        if domains.examined() is None or keras_function(self.loss) is None:
            return self._values_of(batch, neutral_target, pair, weight)
        y_true, y_pred = pair
        nearest = domains.mended(self.loss, y_true, y_pred, self.traits.axis)
        mended = (y_true if nearest is None else nearest, y_pred)
        if self.traits.takes_ids:  # TensorFlow would raise when the trace is run
            return self._values_of(batch, neutral_target, mended, weight)
        try:
            return self._values_of(batch, neutral_target, pair, weight)
        except Exception:
            return self._values_of(batch, neutral_target, mended, weight)

    def _values_of(
        self, batch: Batch, neutral_target: float | None, aligned: Pair, weight: dict[str, Tensor]
    ) -> Tensor:
        """The values of the aligned data, or of the original data for a loss that aligns itself.

        Most losses would broadcast (N,) against (N, 1), so they are given aligned arrays. An
        unknown loss may squeeze the last axis by itself: with aligned arrays it then fails, or its
        values get an axis of length N that the data do not have. It is called again with the
        original arrays.
        """
        formula = self.formula(batch)

        def call(pair: Pair) -> Tensor:
            return ops.convert_to_tensor(formula(*pair, **weight))

        given = aligned
        if self.traits == Traits():
            given = batch.inputs(self.dtype, self.traits, neutral_target, aligned=False)
        if list(map(_shape, given)) == list(map(_shape, aligned)):
            return call(aligned)
        try:
            values = call(aligned)
        except Exception:
            return call(given)
        return values if checks.has_axes_of(values, aligned[1]) else call(given)

    def _call_whole(self, batch: Batch, label: str) -> tuple[Tensor, Batch]:
        """The values of an opaque loss, by its own `__call__`."""
        accepts = _takes_weight(type(self.loss).__call__)
        weight = {"sample_weight": batch.sample_weight} if accepts else {}
        if batch.mask_kind == "labels":
            raise ValueError(
                f"Component '{label}' has a `__call__` of its own, which no mask of missing labels "
                "reaches: give its values in `call` instead, or take it out of Masked. "
                f"Received: {self.loss!r}"
            )
        harmless = batch.harmless()
        y_true, y_pred = harmless.y_true, harmless.y_pred
        if not keras.tree.is_nested(y_pred):
            y_pred = with_mask(y_pred, batch.mask)  # a view of the predictions drops Keras's mask
        # Keras would divide some means inside by the number of replicas: let it see one replica.
        domains.examine(label, self.loss, batch, y_true, y_pred)
        with NamedErrors(label, y_true, y_pred), backend.as_one_replica():
            values = ops.convert_to_tensor(self.loss(y_true, y_pred, **weight))
        self._observe(label, batch, y_true, y_pred, values)
        checks.check_values(label, values, batch.size)
        return values, batch.unweighted() if accepts else batch

    def _observe(
        self, label: str, batch: Batch, y_true: Tensor, y_pred: Tensor, values: Tensor
    ) -> None:
        """Records the `Observation` of a component while someone is `observing`."""
        found = observed()
        if found is not None:
            masked = batch.mask is not None and batch.mask_kind == "propagated"
            weights = ["sample weights"] if batch.sample_weight is not None else []
            weights += ["mask"] if masked else []
            shapes = (_shape(y_true), _shape(y_pred), tuple(values.shape))
            found[label] = Observation(*shapes, tuple(weights), self.traits)

    def _warn(self, label: str, what: str, message: str) -> None:
        """Warns once for each component and subject `what`; never while `observing`."""
        if (label, what) not in self._warned and observed() is None:
            self._warned.add((label, what))
            warnings.warn(message, stacklevel=2)


@functools.lru_cache(maxsize=256)  # thousands of components may be of one class
def _takes_weight(function: Callable[..., Any]) -> bool:
    return "sample_weight" in inspect.signature(function).parameters


def _call_of(loss: KerasLoss) -> Callable[..., Tensor] | None:
    """The `call` of a loss: one that was set on the object, or else that of its class."""
    return vars(loss).get("call", type(loss).call) if hasattr(type(loss), "call") else None


def _shape(tensor: Tensor) -> tuple[int | None, ...] | None:
    single = tensor is not None and not keras.tree.is_nested(tensor)
    return tuple(tensor.shape) if single else None


def is_matched(label: str, what: str, weight: Tensor, values: Tensor, batch: Batch) -> bool:
    """Whether the values still have the axes that a weight or mask of the batch varies over."""
    if what == "mask" and batch.mask_kind == "void":
        return fit_from_left(weight, values) is not None  # unlike `fits`, no error on other sizes
    return not len(weight.shape) or fits(label, what, weight, values)
