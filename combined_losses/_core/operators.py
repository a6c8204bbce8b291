"""The operators of losses: `a + b`, `0.5 * a`, `a / 2` and `sum([a, b])`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from combined_losses._core.checks import as_number


class Builders(NamedTuple):
    """What makes a composite of two losses, and of a factor and a loss."""

    add: Callable[[Any, Any], Any]
    scale: Callable[[Any, Any], Any]


class Operators:
    """`a + b`, `0.5 * a`, `a / 2` and `sum([a, b])`: each builds one flat `CompositeLoss`."""

    name: str
    # A loss does not know composites, which are made of losses: `composite/operators.py` sets this.
    _builders: Builders

    def __add__(self, other):
        return self._builders.add(self, other)

    def __radd__(self, other):
        # sum() starts at 0.
        return self if isinstance(other, int) and other == 0 else self._builders.add(other, self)

    def __mul__(self, factor):
        return self._builders.scale(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        if isinstance(divisor, bool) or not isinstance(divisor, (int, float)):
            return NotImplemented
        return self * (1 / as_number(f"The divisor of component '{self.name}'", divisor))
