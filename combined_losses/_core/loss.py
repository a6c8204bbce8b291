"""The base of every loss of this library: one reduction, a lossless config, operators."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, Unpack

import keras

from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_dtype
from combined_losses._core.config import (
    check_no_lambda,
    construct,
    serialize_function,
    signature_config,
)
from combined_losses._core.data_format import Formatted
from combined_losses._core.keras_types import DataFormat, KerasLossClass, LossArguments, Reduction
from combined_losses._core.leaf import Leaf
from combined_losses._core.limited import Limited
from combined_losses._core.names import derive_name, snake_case
from combined_losses._core.operators import Operators
from combined_losses._core.ranks import check_ranks, whole
from combined_losses._core.short_call import short, short_loss
from combined_losses._core.traits import Traits, check_layout, keras_traits, says
from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor


class Loss(Operators, Limited, KerasLossClass):
    """Base class of domain losses: subclass it, store the arguments, write `call`.

    The base class does the rest. `call` is given `y_true` and `y_pred` of one rank and one dtype;
    shapes that would be broadcast are an error. Sample weights and masks act on the values that
    `call` returns, and so does a mask that `call` puts on these values, as in Keras. Weights match
    the values from the left: `(batch,)` is one weight for each sample. Rows of weight 0 cannot
    spoil the gradient. The config holds every argument of `__init__`. The loss has the right scale
    under `tf.distribute`, and it has the operators `+`, `*` and `/`.

    Args:
        reduction: one of Keras's: `"sum_over_batch_size"` (default), `"sum"`, `"mean"`,
            `"mean_with_sample_weight"`, `"none"` or `None`.
        name: a string, default the class in snake case.
        dtype: the dtype of the computation, default `keras.config.floatx()`.

    A subclass implements `call(y_true, y_pred)`, which returns *unreduced* values of shape
    `(batch,)` or `(batch, ...)`: the base class applies weights and masks to them, reduces them,
    and combines replicas. Class attributes describe the loss:

    - `same_shape = False`: `y_true` has another shape than `y_pred` by design, as labels have.
    - `elementwise = True`: each value is a mean over the last axis, and the elements on that axis
      do not influence each other.
    - `prediction_layout = "blocks"` or `"columns"`: each of the D targets on the last axis of
      `y_true` has k predictions. In blocks, `y_pred` has shape `(..., k * D)`: k blocks of D
      numbers, for example all means and then all log-variances; the values are means over D. In
      columns, `y_pred` has shape `(..., D, k)`, or `(..., k)` if D is 1; `call` is given targets
      `(..., 1)` with predictions `(..., k)`, and the values have the shape of the targets. In both
      layouts targets do not influence each other, so each can have a weight of its own or be
      missing. The method `rescaled(y_pred, scale)` returns the predictions for targets in another
      unit; by default it divides all of them by the scale.
    - `neutral_target = 1.0`, or another target that the loss accepts: the rows of a batch do not
      influence each other. In rows of weight 0 targets are then replaced by this number and
      predictions by 0.5, so that invalid targets, such as a label -1, do no harm. None (default): a
      row may influence others, for example through a count of positives or a smoothness term. Then
      finite numbers stay as they are; in rows of weight 0 any other numbers are replaced, and the
      predictions get no gradient.
    - `couples_batch = True`: the samples of a batch influence each other.
    - `has_channels = True`: the last axis holds channels, so that `(batch, height, width)` becomes
      `(batch, height, width, 1)`. A wrapper with `data_format="channels_first"` gives such a loss
      the channels last; it gives other losses the data as they are.
    - `casts_target = False`: `y_true` holds labels that are compared for equality and so keep their
      dtype: float32 would round 16777217 to 16777216.
    - `whole_rows = True`: a row of `y_true` is one object, such as a box. `cl.wrappers.Masked` with
      a number takes a row for missing only if every entry of the row is that number.
    - `takes_ids = True`: `y_true` holds class ids. `cl.wrappers.DeepSupervision` picks some of them
      for its coarser outputs; it takes means of other numbers.
    - `target_kind` and `prediction_kind`: what the numbers mean, which `cl.diagnose` checks.
      Targets are `"shares"` (0 to 1), `"classes"` (one-hot rows), `"ids"`, `"labels"` (whole
      numbers), `"signs"`, `"amounts"` (at least 0) or `"images"` (a range of `max_value`);
      predictions are `"probabilities"` (unless `from_logits`). None (default): any numbers.

    `elementwise`, `prediction_layout` and `neutral_target` describe one `call`. A class that
    overrides `call` does not inherit them; it has to set them again.

    A loss that returns `(batch,)` cannot have finer weights applied to its values. It can apply
    them itself, in `call(y_true, y_pred, sample_weight=None)`: this is given the weights that are
    finer than one for each sample, in the shape of `y_pred`. With `couples_batch` it is given the
    weights of the samples, `(batch,)`, which act on the values too. The mask is multiplied into
    `sample_weight`, and None stands for weights of 1.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Understock(cl.losses.Loss):
    ...     def __init__(self, cost=2.0, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.cost = cost
    ...
    ...     def call(self, y_true, y_pred):
    ...         return keras.ops.mean(self.cost * keras.ops.relu(y_true - y_pred), axis=-1)
    >>> loss = "mse" + 0.5 * Understock(cost=3.0)
    >>> sorted(loss.weights.items())
    [('mse', 1.0), ('understock', 0.5)]
    """

    same_shape = True
    elementwise = False
    prediction_layout: str | None = None
    couples_batch = False
    has_channels = False
    casts_target = True
    takes_ids = False
    whole_rows = False
    neutral_target: float | None = None
    target_kind: str | None = None  # what the numbers mean, see `_core/domains.py`
    prediction_kind: str | None = None

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        name = name or snake_case(type(self).__name__)
        check_dtype(f"{type(self).__name__} '{name}'", dtype)
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
    ) -> Tensor:
        check_ranks(self)
        return whole(self._leaf.reduced(Batch(y_true, y_pred, sample_weight, self.name)))

    # A subclass that overrides `__call__` reduces in its own way, so `Leaf` calls it whole.
    _reducing_call = __call__

    def __repr__(self) -> str:
        return short_loss(self)

    @property
    def traits(self) -> Traits:
        elementwise, neutral = bool(says(self, "elementwise")), says(self, "neutral_target")
        layout = says(self, "prediction_layout")
        check_layout(type(self).__name__, layout)
        single = elementwise or layout is not None
        return Traits(
            same_shape=self.same_shape and self.prediction_layout is None,
            elementwise=elementwise and layout is None,
            couples_batch=self.couples_batch,
            neutral_target=1.0 if single and neutral is None else neutral,
            has_channels=self.has_channels or layout is not None,
            casts_target=self.casts_target,
            reads_last=elementwise or self.has_channels or layout is not None,
            takes_ids=self.takes_ids,
            whole_rows=self.whole_rows,
            layout=layout,
        )

    def rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        """The predictions for targets that were divided by `scale`; `cl.wrappers.Scaled` asks.

        `scale` broadcasts against `y_pred`. With a `prediction_layout` the last axis of `y_pred`
        holds the k predictions of one target.
        """
        return y_pred / scale

    @functools.cached_property
    def _leaf(self) -> Leaf:
        return Leaf(self.name, self, self.traits, opaque=False)

    def get_config(self) -> dict[str, Any]:
        return signature_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return construct(cls, config)


class ChannelLoss(Formatted, Loss):
    """A loss of arrays that have channels, first or last (abstract).

    Decorate its `call` with `channels_last`: the formula is then always given the channels last.

    Args:
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.
    """

    def __init__(self, data_format: DataFormat = None, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        self._set_format(data_format)


@keras.saving.register_keras_serializable("combined_losses")
class FunctionLoss(Loss):
    """A loss given as a function `f(y_true, y_pred)` or as a string that names one of Keras's.

    Args:
        function: a function of targets and predictions, or of the predictions alone; or a string
            that `keras.losses.get` knows.

    Example:

    >>> import numpy as np
    >>> from combined_losses._core.loss import FunctionLoss
    >>> loss = FunctionLoss("mae")
    >>> float(loss(np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])))
    1.0
    """

    def __init__(
        self,
        function: str | Callable[..., Tensor],
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name or derive_name(function)[0], dtype=dtype)
        self.function = function
        self._function: Callable[..., Tensor] = (
            keras.losses.get(function) if isinstance(function, str) else function
        )
        self.needs_target = not _takes_one(self._function)
        self._traits = keras_traits(self._function)

    @property
    def traits(self) -> Traits:
        return self._traits

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._function(y_true, y_pred) if self.needs_target else self._function(y_pred)

    def get_config(self) -> dict[str, Any]:
        return {
            "function": self.serialized_function(self.name),
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
        }

    def __repr__(self) -> str:
        return f"as_loss({short(self.function)})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # A pickle names the public `Loss`, because the module of this class is private.
        rebuild, arguments = super().__reduce__()
        return getattr(Loss, rebuild.__name__), arguments

    def serialized_function(self, name: str) -> Any:
        """The function as Keras stores it; if it cannot be stored, the error names `name`."""
        if isinstance(self.function, str):
            return self.function
        return serialize_function(self.function, name)

    def check_no_lambda(self, name: str) -> None:
        """Raises if the function is a lambda; the error names component `name`."""
        check_no_lambda(self.function, name)


@short.register
def _(loss: FunctionLoss) -> str:
    """In the `repr` of another loss: the function or string that the user gave."""
    return short(loss.function)


def _takes_one(function: Callable[..., Tensor]) -> bool:
    """Whether a function takes one argument alone: the predictions."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return len(positional) == 1 and not several
