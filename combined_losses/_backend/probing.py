"""Evaluating a loss for the values of one composite's components alone."""

import contextlib
import contextvars
from typing import Any

_probed: Any = contextvars.ContextVar("combined_losses_probed", default=None)


def probed():
    """The rule whose components are wanted and the list that gets their values, or None."""
    return _probed.get()


@contextlib.contextmanager
def probing(rule, values):
    """The block evaluates losses for the components of `rule`, whose values go into a list."""
    token = _probed.set((rule, values))
    try:
        yield
    finally:
        _probed.reset(token)
