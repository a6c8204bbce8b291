"""Terms of the model itself: its inputs, targets and outputs in one function."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.compound import LossAsNode
from combined_losses._core.config import (
    check_no_lambda,
    construct,
    serialize_function,
    signature_config,
)
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import Reduction
from combined_losses._core.leaf import Leaf
from combined_losses._core.named_errors import NamedErrors
from combined_losses._core.names import derive_name, quoted
from combined_losses._core.node import Node
from combined_losses._core.outputs import NOTHING, entry_of
from combined_losses._core.owned import OwnedModels
from combined_losses._core.presence import presence
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._core.short_call import short_loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses.wrappers.output_weights import mean_weight, places_in, weight_of_rows

__all__ = ["OnInputs"]


_SIGNATURE = "model, x, y, y_pred"


@keras.saving.register_keras_serializable("combined_losses")
class OnInputs(LossAsNode):
    """A term of the model itself, its inputs, targets and outputs: an equation, a symmetry.

    Args:
        function: `f(model, x, y, y_pred)`, which returns values of shape `(rows,)` or
            `(rows, ...)`, with as many rows as it likes: samples, points, pairs. The term is their
            mean, in the step and over the epoch. Or it returns one number that has nothing to do
            with rows. `y` and `y_pred` are given in the structure that the model has. Register the
            function to save the model. If it takes derivatives, torch cannot compile the step
            (`jit_compile=True`), because its compiler differentiates only once.
        reduction: one of Keras's, default `"sum_over_batch_size"`.
        name: default the name of the function.
        dtype: default `keras.config.floatx()`.
        output: if each output has sample weights of its own, the name of the output whose weights
            the term takes. Default None: their mean. If they have several shapes, or other rows
            than the term, it counts unweighted, and warns unless it is one number.
        models: None, or a list of further models, such as a teacher or a critic, that the function
            is given as well: `f(model, x, y, y_pred, *models)`. They are saved with the model and
            not trained by it.

    The function may read another network, variable or seed by itself: from its closure, its globals
    or the object that it is bound to. It is found and threaded through compiled steps too, but you
    have to save it yourself.

    `cl.input_gradients(model, x)` gives derivatives by the inputs, also those of a list such as
    `derivatives=["t", "x", "xx"]`. `OnInputs` trains in `cl.Model`, `cl.Sequential` and `cl.track`,
    and sees all outputs.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> def flat(model, x, y, y_pred):
    ...     return keras.ops.square(cl.input_gradients(model, x))
    >>> loss = cl.CompositeLoss({"flat": cl.wrappers.OnInputs(flat)})
    """

    chooses_outputs = reads_target = is_beyond_output = True
    needs_target = False

    def __init__(
        self,
        function: Callable[..., Tensor],
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
        *,
        output: str | None = None,
        models: Sequence[keras.Model] | None = None,
    ) -> None:
        owned = isinstance(models, (list, tuple)) and len(models)
        if models is not None and not (owned and all(isinstance(m, keras.Model) for m in models)):
            raise ValueError(
                "The argument `models` of OnInputs must be a list of keras.Model, or None. "
                f"Received: {models!r}"
            )
        if not _takes(function, 4 + len(models or ())):
            raise ValueError(
                f"OnInputs needs a function f(model, x, y, y_pred{', *models' if models else ''}). "
                f"Received: {function!r} of type {type(function).__name__}"
            )
        super().__init__(name or derive_name(function)[0], reduction, dtype)
        if output is not None and not isinstance(output, str):
            raise ValueError(
                f"The argument `output` of OnInputs ('{self.name}') must be the name of an output, "
                f"or None. Received: {output!r}"
            )
        self.function = function
        self.output = output
        self.models = None if models is None else OwnedModels(models, "OnInputs")

    def __repr__(self) -> str:
        return short_loss(self, self.name != derive_name(self.function)[0])

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return []

    @property
    def component_names(self) -> tuple[str, ...]:
        return ()

    def check_lambdas(self, label: str) -> None:
        check_no_lambda(self.function, label, _SIGNATURE)

    def find_readers(self) -> list[Any]:
        return [self.function, *(self.models or ())]

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        if batch.model is None:
            raise ValueError(
                f"Component '{label or self.name}' needs the model and its inputs, which Keras "
                "does not give to a loss. Compile it in cl.Model, cl.Sequential or "
                "cl.track(model). Received: a call without a model"
            )
        label = label or self.name
        values = self._values(batch, label)
        if keras.tree.is_nested(batch.sample_weight):
            batch = batch.replaced(sample_weight=self._weight(batch, values, label))
        if len(values.shape):
            batch = self._over_own_rows(batch, values, label)
        imposed = reduction != PER_COMPONENT
        values, counted = self._leaf.accounted(values, batch, imposed, label)
        values = ops.cast(values, self._leaf.dtype)
        total = self._leaf.reduce(values, counted, reduction, label)
        rows = () if batch.values_of_own_rows is None else (batch.count,)
        return Evaluation(total, present=presence(batch, values, counted), rows=rows)

    def _over_own_rows(self, batch: Batch, values: Tensor, label: str) -> Batch:
        """The batch for values that begin with rows of any number: points, pairs, samples."""
        if batch.values_of_own_rows is None and values.shape[0] == batch.size is not None:
            return batch
        batch = batch.over_rows_of(values)
        weight = batch.sample_weight
        if weight is not None and self.output is None and len(weight.shape):
            sizes = (weight.shape[0], values.shape[0])
            if None not in sizes and sizes[0] != sizes[1]:
                self._warn_unweighted(label, [tuple(weight.shape)], values)
                batch = batch.replaced(sample_weight=None)
        return batch

    def _values(self, batch: Batch, label: str) -> Tensor:
        """What the function returns, checked."""
        with NamedErrors(label):
            given = (batch.model, batch.x, batch.y_true, batch.outputs, *(self.models or ()))
            with batch.noting_reads(label):
                values = self.function(*given)
            if values is None or keras.tree.is_nested(values):
                raise ValueError(
                    f"The function of component '{label}' must return one tensor. "
                    f"Received: {values!r}"
                )
            return ops.convert_to_tensor(values)

    def _weight(self, batch: Batch, values: Tensor, label: str) -> Tensor:
        """The sample weights of the stated output, or the mean of all; None if there is no mean."""
        weights = batch.sample_weight
        if self.output is not None:
            return self._stated_weight(self.output, batch, label)
        leaves = [leaf for leaf in keras.tree.flatten(weights) if leaf is not None]
        shapes = {tuple(leaf.shape) for leaf in leaves}
        if len(shapes) < 2:
            rows = values if len(values.shape) else keras.tree.flatten(batch.y_pred)[0]
            found = weight_of_rows(weights, rows)
            if found is not None or not leaves:
                return found
        if len(values.shape):
            self._warn_unweighted(label, [tuple(leaf.shape) for leaf in leaves], values)
        return None

    def _warn_unweighted(self, label: str, shapes: list[Any], values: Tensor) -> None:
        self._leaf._warn(
            label,
            "several weights",
            f"Component '{label}' counts unweighted: it has values of shape {tuple(values.shape)}, "
            f"and the sample weights of the outputs have the shapes {', '.join(map(str, shapes))}. "
            "State whose it takes: OnInputs(..., output=name).",
        )

    def _stated_weight(self, output: str, batch: Batch, label: str) -> Tensor:
        outputs = list(batch.y_pred)
        if output not in outputs:
            raise ValueError(
                f"Component '{label}' takes the sample weights of an output that the model has "
                f"not; it has {quoted(outputs)}. Received: output={output!r}"
            )
        found = entry_of(batch.sample_weight, output, places_in(batch), below=True)
        return None if found is NOTHING else mean_weight(found, label)

    @functools.cached_property
    def _leaf(self) -> Leaf:
        return Leaf(self.name, self, Traits(), opaque=False)

    def get_config(self) -> dict[str, Any]:
        return {
            **signature_config(self, without=["function", "models"]),
            "function": serialize_function(self.function, self.name, _SIGNATURE),
            "models": None if self.models is None else self.models.serialized(),
        }

    # Keras's saver writes a network once, at the first place where it meets it. If the trained
    # model shares it or a layer of it, that place differs when the file is loaded. So it is saved
    # here.

    def save_own_variables(self, store: Any) -> None:
        if self.models is not None:
            self.models.save(store)

    def load_own_variables(self, store: Any) -> None:
        if self.models is not None:
            self.models.load(store)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return construct(cls, config)


def _takes(function: Any, count: int) -> bool:
    """Whether it is a function (not a loss) that takes `count` positional arguments."""
    if not callable(function) or isinstance(function, keras.losses.Loss):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True
