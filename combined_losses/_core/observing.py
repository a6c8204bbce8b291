"""What components were given and what they returned, for `cl.diagnose`."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

from combined_losses._core.traits import Traits


class Observation(NamedTuple):
    """What a component was given and what it returned.

    Attributes:
        y_true, y_pred: their shapes; None for targets that are not there, and for several arrays.
        values: the shape of the values.
        weights: which of "sample weights" and "mask" (one that Keras propagated) it was given.
        traits: those of its loss.
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
    """In the block losses do not warn, and fill a dict: by label what each component was given."""
    observations: dict[str, Observation] = {}
    token = _observed.set(observations)
    try:
        yield observations
    finally:
        _observed.reset(token)


observed = _observed.get
"""`observed()` is the dict of who is `observing`; None where nobody is."""
