"""What belongs to the points of a set: targets and sample weights."""

import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from combined_losses._core.checks import as_array, as_number
from combined_losses._core.names import quoted
from combined_losses.points.sources import Drawn, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Field:
    """The targets or sample weights of one output, at the points of one set.

    Args:
        what: how messages call it, such as `The target of 'u'`.
        set_name: the set.
        given: a function of the points, an array with a row for each row of the set, or a number.
        source: that of the set.
        number_axes: how many axes of length 1 a number has after that of the points.
    """

    def __init__(
        self, what: str, set_name: str, given: Any, source: Source, number_axes: int
    ) -> None:
        self.what = what
        self.set_name = set_name
        self._axes = (1,) * number_axes
        self._given = given if callable(given) else self._array_or_number(given, source)

    def _array_or_number(self, given: Any, source: Source) -> Any:
        if isinstance(given, numbers.Real):
            return as_number(self.what, given)
        array = as_array(given)
        if array.ndim and array.dtype.kind in "fiub" and len(array) == source.length:
            return array
        rows = "" if source.length is None else f", an array of {source.length} rows"
        why = " (points are drawn, so an array cannot belong to them)" if not rows else ""
        raise ValueError(
            f"{self.what} must be a function of the points{rows}, or a number, as the set "
            f"'{self.set_name}' is{why}. Received: {_shown(given, array)}"
        )

    def at(self, drawn: Drawn) -> "NDArray[Any]":
        """The values at points, in Keras's float type."""
        count = len(drawn.points)
        if isinstance(self._given, float):
            return np.full((count, *self._axes), self._given, keras.config.floatx())
        if not callable(self._given):
            return as_floatx(self._given[drawn.rows])
        values = np.asarray(self._given(drawn.points))
        if values.ndim < 1 or len(values) != count or values.dtype.kind not in "fiub":
            raise ValueError(
                f"{self.what} is a function that must return a row for each of the {count} points "
                f"of '{self.set_name}', as a NumPy array. "
                f"Received: an array of shape {values.shape} and dtype {values.dtype}"
            )
        return as_floatx(values)


def fields_of(
    argument: str,
    word: str,
    given: Any,
    sources: dict[str, Source],
    default_sets: dict[str, str],
    number_axes: int,
) -> dict[str, Field]:
    """The fields by output, as users give them: `{output: value or (set, value)}`.

    Args:
        argument: the argument of `PointSets`.
        word: how messages call one, such as `target`.
        given: what the user has given for it; None as a value counts as nothing.
        sources: those of the sets, by name.
        default_sets: the set of an output for which none is stated.
        number_axes: see `Field`.
    """
    if not (given is None or isinstance(given, Mapping)):
        raise ValueError(
            f"The argument `{argument}` of PointSets must be None or a dict from the name of an "
            f"output to (set, values). Received: {given!r} of type {type(given).__name__}"
        )
    fields = {}
    for output, entry in (given or {}).items():
        if entry is None:
            continue
        name, value = entry if _has_set(entry) else (default_sets.get(output, output), entry)
        if name not in sources:
            raise ValueError(
                f"The {word} of '{output}' needs the name of its set: {argument}={{{output!r}: "
                f"(set, values)}}. The sets are {quoted(sources)}. Received: "
                + (f"the set {name!r}" if _has_set(entry) else "no set")
            )
        if value is not None:
            what = f"The {word} of '{output}'"
            fields[output] = Field(what, name, value, sources[name], number_axes)
    return fields


def _has_set(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)


def as_floatx(values: "NDArray[Any]") -> "NDArray[Any]":
    """Floating-point numbers in Keras's type; whole numbers, such as class ids, as they are."""
    return values.astype(keras.config.floatx()) if values.dtype.kind == "f" else values


def _shown(given: Any, array: "NDArray[Any]") -> str:
    if given is None or isinstance(given, str):
        return repr(given)
    return f"an array of shape {array.shape} and dtype {array.dtype}"
