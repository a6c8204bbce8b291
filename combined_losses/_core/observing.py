"""What components were given and what they returned, for `cl.diagnose`."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

from combined_losses._core.checks import Shape
from combined_losses._core.traits import Traits

_observed: contextvars.ContextVar[dict[str, "Seen"] | None] = contextvars.ContextVar(
    "combined_losses_observed", default=None
)


@contextlib.contextmanager
def observing() -> Iterator[dict[str, "Seen"]]:
    """In the block nothing is warned of; it gives a dict from label to the `Seen` of components."""
    found: dict[str, Seen] = {}
    token = _observed.set(found)
    try:
        yield found
    finally:
        _observed.reset(token)


class Seen(NamedTuple):
    """What a component was given and what it returned.

    Attributes:
        y_true, y_pred: their shapes; None for targets that are not there, and for several arrays.
        values: the shape of the values.
        weights: "sample weights" and "mask" (one that Keras propagated), as far as given.
        traits: those of its loss.
    """

    y_true: Shape | None
    y_pred: Shape | None
    values: Shape
    weights: tuple[str, ...]
    traits: Traits


observed = _observed.get
"""`observed()` is the dict from label to `Seen` where somebody is observing, else None."""
