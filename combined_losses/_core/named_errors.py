"""Errors inside a component that name the component."""

from types import TracebackType
from typing import Literal, Self

import keras

from combined_losses._core import checks
from combined_losses._numerics.arrays import ArrayLike


class NamedErrors:
    """A block whose errors name the component, and say if its predictions have a wrong shape."""

    def __init__(self, name: str, y_true: ArrayLike = None, y_pred: ArrayLike = None) -> None:
        self.name = name
        self.y_true = y_true
        self.y_pred = y_pred

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if error is None or not isinstance(error, Exception):
            return False
        nested = keras.tree.is_nested(self.y_true) or keras.tree.is_nested(self.y_pred)
        if self.y_true is not None and not nested:
            true, pred = tuple(self.y_true.shape), tuple(self.y_pred.shape)
            hint = checks.reshape_hint(true, pred)
            if hint is not None:
                raise ValueError(
                    f"Component '{self.name}' failed, and {hint}. "
                    f"Received: y_true of shape {true} and y_pred of shape {pred}"
                ) from error
        error.add_note(f"This happened in component '{self.name}'.")
        return False
