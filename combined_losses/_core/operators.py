"""The operators of losses: `a + b`, `0.5 * a`, `a / 2` and `sum([a, b])`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self, overload

from combined_losses._core.checks import as_number
from combined_losses._core.keras_types import LossLike

if TYPE_CHECKING:  # only for types: composites are made of losses, so losses cannot import them
    from combined_losses.composite.loss import CompositeLoss


class Builders(NamedTuple):
    """The functions that make a composite of two losses, and of a loss and a factor."""

    add: Callable[["Operators | LossLike", "Operators | LossLike"], "CompositeLoss | None"]
    scale: Callable[["Operators", float], "CompositeLoss | None"]


class Operators:
    """`a + b`, `0.5 * a`, `a / 2` and `sum([a, b])`: each builds one flat `CompositeLoss`."""

    name: str
    _builders: Builders  # set by `composite/operators.py`

    def __add__(self, other: LossLike) -> "CompositeLoss":
        return _or_not_implemented(self._builders.add(self, other))

    @overload
    def __radd__(self, other: int) -> Self: ...
    @overload
    def __radd__(self, other: LossLike) -> "CompositeLoss": ...
    def __radd__(self, other: LossLike | int) -> "Self | CompositeLoss":
        if isinstance(other, int):  # sum() starts at 0
            return self if other == 0 else NotImplemented
        return _or_not_implemented(self._builders.add(other, self))

    def __mul__(self, factor: float) -> "CompositeLoss":
        return _or_not_implemented(self._builders.scale(self, factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "CompositeLoss":
        if isinstance(divisor, bool) or not isinstance(divisor, (int, float)):
            return NotImplemented
        return self * (1 / as_number(f"The divisor of component '{self.name}'", divisor))


def _or_not_implemented(found: "CompositeLoss | None") -> "CompositeLoss":
    """The result of an operator; for None, Python asks the other operand or raises."""
    return NotImplemented if found is None else found
