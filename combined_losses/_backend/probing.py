"""Repeating the losses of a step for the values of one composite's components alone."""

import contextlib
import contextvars
from collections.abc import Iterator

from combined_losses._backend.arrays import Tensor
from combined_losses._backend.capture import Reader

# The rule whose components are wanted, and the list that their values are put into.
Probe = tuple[Reader, list[Tensor]]
_probe: contextvars.ContextVar[Probe | None] = contextvars.ContextVar(
    "combined_losses_probe", default=None
)


def probed() -> Probe | None:
    """The rule whose components are wanted, and the list that gets their values; or None."""
    return _probe.get()


@contextlib.contextmanager
def probing(rule: Reader, values: list[Tensor]) -> Iterator[None]:
    """In the block, losses put the values of the components of `rule` into a list."""
    token = _probe.set((rule, values))
    try:
        yield
    finally:
        _probe.reset(token)
