"""Types for Keras, which has none: bases for our classes, and names for types of arguments.

mypy takes every class of Keras for `Any`, and every subclass too, so a typo such as
`loss.set_weigth` would pass. So mypy, and only mypy, is given the typed bases of
`keras_for_mypy.py`: it takes any name `MYPY` for true, whatever its value. At run time the bases
are Keras's own, and for pyright too, because pyright reads Keras's sources.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor

Reduction: TypeAlias = (
    Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] | None
)
"""How the values of a loss become one number."""

CompositeReduction: TypeAlias = Reduction | Literal["per_component"]
"""One of Keras's reductions, or each component's own."""

DataFormat: TypeAlias = Literal["channels_last", "channels_first"] | None
"""Which axis holds the channels; None: as Keras's setting says."""

Logs: TypeAlias = dict[str, Any] | None
"""What Keras gives to callbacks: numbers by log key."""

Function = TypeVar("Function", bound=Callable[..., Any])


class LossArguments(TypedDict, total=False):
    """What every loss takes: `__init__(self, ..., **kwargs: Unpack[LossArguments])`."""

    reduction: Reduction
    name: str | None
    dtype: Dtype


class ChannelArguments(LossArguments, total=False):
    """What every loss of arrays with channels takes."""

    data_format: DataFormat


class CompositeArguments(TypedDict, total=False):
    """What every wrapper takes."""

    reduction: CompositeReduction
    name: str | None
    dtype: Dtype


def documented_by(original: Callable[..., Any]) -> Callable[[Function], Function]:
    """`functools.wraps` for a method that stands in for one of Keras's.

    For type checkers the method stays a method; `functools.wraps` would make it an object that is
    not bound to `self`.
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

    # Protocols for annotations: pyright counts the types of a package without reading Keras, so
    # Keras's own classes would count as unknown.

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
