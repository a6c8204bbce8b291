"""How type checkers see Keras, which is not typed: bases for our classes, and names for arguments.

mypy takes every class of Keras for `Any`, and with it every class below: a typo such as
`loss.set_weigth` would pass. So mypy, and mypy alone, is shown bases with types. It takes a name
`MYPY` for true whatever its value is. At run time, and for pyright, which reads Keras's own
sources, the bases are Keras's.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor

Reduction: TypeAlias = (
    Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] | None
)
"""How Keras makes one number of the values of a loss."""

CompositeReduction: TypeAlias = Reduction | Literal["per_component"]
"""One of Keras's, or each component's own."""

DataFormat: TypeAlias = Literal["channels_last", "channels_first"] | None
"""Where the channels are; None: as Keras's setting says."""

Logs: TypeAlias = dict[str, Any] | None
"""What Keras gives to callbacks: numbers by log key."""

Function = TypeVar("Function", bound=Callable[..., Any])


class LossArguments(TypedDict, total=False):
    """What a loss takes beside its own: `__init__(self, ..., **kwargs: Unpack[LossArguments])`."""

    reduction: Reduction
    name: str | None
    dtype: Dtype


class ChannelArguments(LossArguments, total=False):
    """What a loss of arrays that have channels takes beside its own arguments."""

    data_format: DataFormat


class CompositeArguments(TypedDict, total=False):
    """What a wrapper takes beside its own arguments."""

    reduction: CompositeReduction
    name: str | None
    dtype: Dtype


def documented_by(original: Callable[..., Any]) -> Callable[[Function], Function]:
    """`functools.wraps` for a method that stands in for one of Keras's.

    For a type checker the method stays what it is; `functools.wraps` would make it an object that
    is not bound to `self`.
    """

    def decorate(function: Function) -> Function:
        functools.update_wrapper(function, original)
        return function

    return decorate


MYPY: Literal[False] = False
if MYPY:
    from combined_losses._core.keras_for_mypy import (
        KerasCallback,
        KerasLoss,
        KerasMetric,
        KerasPyDataset,
        KerasSchedule,
        KerasTensorBoard,
    )
    from combined_losses._core.keras_for_mypy import KerasLoss as KerasLossClass
    from combined_losses._core.keras_for_mypy import KerasSchedule as KerasScheduleClass
else:
    from keras.callbacks import Callback as KerasCallback
    from keras.callbacks import TensorBoard as KerasTensorBoard
    from keras.losses import Loss as KerasLossClass
    from keras.metrics import Metric as KerasMetric
    from keras.optimizers.schedules import LearningRateSchedule as KerasScheduleClass
    from keras.utils import PyDataset as KerasPyDataset

    # Annotations say it by what a loss has, because pyright counts what it knows of a package
    # without reading Keras.

    class KerasLoss(Protocol):
        """A loss of Keras, of this library or of a user."""

        name: str
        reduction: Any

        @property
        def dtype(self) -> Any: ...
        def __call__(
            self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
        ) -> Tensor: ...
        def get_config(self) -> dict[str, Any]: ...

    class KerasSchedule(Protocol):
        """A `keras.optimizers.schedules.LearningRateSchedule`."""

        def __call__(self, step: ArrayLike) -> Tensor: ...
        def get_config(self) -> dict[str, Any]: ...


LossLike: TypeAlias = KerasLoss | str | Callable[..., Any]
"""What a component may be: a loss, the name of one in `keras.losses`, or `f(y_true, y_pred)`."""

__all__ = [
    "ChannelArguments",
    "CompositeArguments",
    "CompositeReduction",
    "DataFormat",
    "KerasCallback",
    "KerasLoss",
    "KerasLossClass",
    "KerasMetric",
    "KerasPyDataset",
    "KerasSchedule",
    "KerasScheduleClass",
    "KerasTensorBoard",
    "Logs",
    "LossArguments",
    "LossLike",
    "Reduction",
    "documented_by",
]
