"""Steps of training in a loop of one's own, `with loss.training_step():`."""

import contextlib
import contextvars


class LoopStep:
    """One block of `training_step`: its loss, and whether a call of it has made the step."""

    def __init__(self, loss):
        self.loss = loss
        self.made = False


_open: contextvars.ContextVar[tuple[LoopStep, ...]] = contextvars.ContextVar(
    "combined_losses_loop_steps", default=()
)
_repeating = contextvars.ContextVar("combined_losses_loop_step_repeating", default=False)


@contextlib.contextmanager
def opened(loss):
    """The block is one step of training of a loss, which is given."""
    step = LoopStep(loss)
    token = _open.set((*_open.get(), step))
    try:
        yield step
    finally:
        _open.reset(token)


def step_of(loss):
    """The innermost open `LoopStep` of a loss, or None."""
    return next((step for step in reversed(_open.get()) if step.loss is loss), None)


@contextlib.contextmanager
def calling(step):
    """The block is a call of the loss of a step; the first one makes the step."""
    token = _repeating.set(step.made)
    try:
        yield
    finally:
        _repeating.reset(token)
    step.made = True


def is_repeated():
    """Whether the step that the loss is called in was made already, so that schedules are one on.

    All calls of a step have the same scheduled weights.
    """
    return _repeating.get()
