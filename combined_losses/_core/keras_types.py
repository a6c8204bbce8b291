"""How type checkers see Keras, which is not typed: bases for our classes, and names for arguments.

mypy takes every class of Keras for `Any`, and with it every class below: a typo such as
`loss.set_weigth` would pass. So mypy, and mypy alone, is shown bases with types. It takes a name
`MYPY` for true whatever its value is. At run time, and for pyright, which reads Keras's own
sources, the bases are Keras's.
"""

# mypy: disable-error-code="empty-body"
# (The methods that only mypy sees have no bodies.)

import functools
from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, TypedDict, TypeVar

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

    class KerasLoss:
        name: str
        reduction: str | None

        def __init__(
            self,
            name: str | None = None,
            reduction: Reduction = "sum_over_batch_size",
            dtype: Dtype = None,
        ) -> None: ...
        @property
        def dtype(self) -> str: ...
        def __call__(
            self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
        ) -> Tensor: ...
        def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Tensor: ...
        def get_config(self) -> dict[str, Any]: ...
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Self: ...
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]: ...

    class KerasSchedule:
        def __call__(self, step: ArrayLike) -> Tensor: ...
        def get_config(self) -> dict[str, Any]: ...
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Self: ...

    class KerasMetric:
        name: str

        def __init__(self, dtype: Dtype = None, name: str | None = None) -> None: ...
        @property
        def dtype(self) -> str: ...
        @property
        def variables(self) -> list[Any]: ...
        def add_variable(
            self,
            shape: tuple[int, ...],
            initializer: Any,
            dtype: Dtype = None,
            aggregation: str = "sum",
            name: str | None = None,
        ) -> Any: ...
        def update_state(self, *args: Any, **kwargs: Any) -> None: ...
        def result(self) -> Any: ...
        def reset_state(self) -> None: ...
        def get_config(self) -> dict[str, Any]: ...
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Self: ...

    class KerasCallback:
        params: dict[str, Any]

        def __init__(self) -> None: ...
        @property
        def model(self) -> Any: ...
        def set_params(self, params: dict[str, Any]) -> None: ...
        def set_model(self, model: Any) -> None: ...
        def on_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
        def on_batch_end(self, batch: int, logs: Logs = None) -> None: ...
        def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None: ...
        def on_epoch_end(self, epoch: int, logs: Logs = None) -> None: ...
        def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None: ...
        def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
        def on_test_batch_end(self, batch: int, logs: Logs = None) -> None: ...
        def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None: ...
        def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None: ...
        def on_train_begin(self, logs: Logs = None) -> None: ...
        def on_train_end(self, logs: Logs = None) -> None: ...
        def on_test_begin(self, logs: Logs = None) -> None: ...
        def on_test_end(self, logs: Logs = None) -> None: ...
        def on_predict_begin(self, logs: Logs = None) -> None: ...
        def on_predict_end(self, logs: Logs = None) -> None: ...

    class KerasTensorBoard(KerasCallback):
        log_dir: str

        def __init__(
            self,
            log_dir: str = "logs",
            histogram_freq: int = 0,
            write_graph: bool = True,
            write_images: bool = False,
            write_steps_per_second: bool = False,
            update_freq: Literal["batch", "epoch"] | int = "epoch",
            profile_batch: int | tuple[int, int] = 0,
            embeddings_freq: int = 0,
            embeddings_metadata: Any = None,
        ) -> None: ...

else:
    from keras.callbacks import Callback as KerasCallback
    from keras.callbacks import TensorBoard as KerasTensorBoard
    from keras.losses import Loss as KerasLoss
    from keras.metrics import Metric as KerasMetric
    from keras.optimizers.schedules import LearningRateSchedule as KerasSchedule

LossLike: TypeAlias = KerasLoss | str | Callable[..., Any]
"""What a component may be: a loss, the name of one in `keras.losses`, or `f(y_true, y_pred)`."""

__all__ = [
    "ChannelArguments",
    "CompositeArguments",
    "CompositeReduction",
    "DataFormat",
    "KerasCallback",
    "KerasLoss",
    "KerasMetric",
    "KerasSchedule",
    "KerasTensorBoard",
    "Logs",
    "LossArguments",
    "LossLike",
    "Reduction",
    "documented_by",
]
