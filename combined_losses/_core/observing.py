"""Records for `cl.diagnose` of what each component is given and what it returns."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

from combined_losses._core.traits import Traits


class Observation(NamedTuple):
    """What a component was given and what it returned.

    Attributes:
        y_true, y_pred: their shapes; None if there are no targets, or several arrays.
        values: the shape of the values.
        weights: "sample weights" and "mask", each if the component was given it; only a mask that
            Keras propagated counts.
        traits: the `Traits` of its loss.
    """

    y_true: tuple[int | None, ...] | None
    y_pred: tuple[int | None, ...] | None
    values: tuple[int | None, ...]
    weights: tuple[str, ...]
    traits: Traits


_observed: contextvars.ContextVar[dict[str, Observation] | None] = contextvars.ContextVar(
    "combined_losses_observed", default=None
)


@contextlib.contextmanager
def observing() -> Iterator[dict[str, Observation]]:
    """A block in which losses do not warn, and record an `Observation` by label in a dict."""
    observations: dict[str, Observation] = {}
    token = _observed.set(observations)
    try:
        yield observations
    finally:
        _observed.reset(token)


observed = _observed.get
"""`observed()` is the dict of the surrounding `observing()` block, or None."""
