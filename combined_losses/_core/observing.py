"""What components were given and what they returned, for `cl.diagnose`."""

import contextlib
import contextvars
from typing import Any, NamedTuple

from combined_losses._core.traits import Traits

_observed: Any = contextvars.ContextVar("combined_losses_observed", default=None)


@contextlib.contextmanager
def observing():
    """In the block nothing is warned of; it gives a dict from label to the `Seen` of components."""
    token = _observed.set({})
    try:
        yield _observed.get()
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

    y_true: tuple | None
    y_pred: tuple | None
    values: tuple
    weights: tuple
    traits: Traits


observed = _observed.get
"""`observed()` is the dict from label to `Seen` where somebody is observing, else None."""
