"""In which kind of training or test step the code runs: the only context variable of training."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal


class LoopStep:
    """One block of `training_step`: its loss, and whether a call has moved the weights already."""

    def __init__(self, loss: object) -> None:
        self.loss = loss
        self.made = False


@dataclasses.dataclass(frozen=True)
class Step:
    """The step in which the code runs. The defaults mean: in no step.

    Attributes:
        of_model: "step" inside a training or test step of a tracked model; "function" inside the
            model's own step function, which is compiled again when a composite asks for it; else
            None.
        is_test: no weight moves, whatever `training` a user's `compute_loss` passes on.
        keeps_results: JAX only. In the loss of a step that returns the new values of variables.
        calls_model: JAX only. In the call of the model; layers have their losses only there.
        captured: the step that can be asked for gradients at layers and parameters, or None.
        loops: the open blocks of `training_step`.
        is_repeated: the loss is called again in a block of `training_step`. Scheduled weights then
            stay as they are: they are the same in all calls of a step.
    """

    of_model: str | None = None
    is_test: bool = False
    keeps_results: bool = False
    calls_model: bool = False
    captured: Any = None
    loops: tuple[LoopStep, ...] = ()
    is_repeated: bool = False


NO_STEP = Step()
_current: contextvars.ContextVar[Step] = contextvars.ContextVar(
    "combined_losses_step", default=NO_STEP
)


current_step = _current.get
"""`current_step()` is the `Step` in which the caller runs."""


@contextlib.contextmanager
def step_with(**attributes: Any) -> Iterator[None]:
    """A block in which some attributes of the current step are changed."""
    token = _current.set(dataclasses.replace(_current.get(), **attributes))
    try:
        yield
    finally:
        _current.reset(token)


def inside(
    what: Literal["step", "function"], is_test: bool = False
) -> contextlib.AbstractContextManager[None]:
    """A block that is a "step" of a tracked model, or a step "function" that calls such a step.

    A step inside a function is part of that function. With `is_test` no weight moves in the block.
    """
    outer = _current.get()
    return step_with(of_model=outer.of_model or what, is_test=outer.is_test or is_test)


# Steps in the user's own loop.


@contextlib.contextmanager
def loop_step(loss: object) -> Iterator[LoopStep]:
    """A block that is one training step of a loss; yields its `LoopStep`."""
    step = LoopStep(loss)
    with step_with(loops=(*_current.get().loops, step)):
        yield step


def loop_step_of(loss: object) -> LoopStep | None:
    """The innermost open `LoopStep` of a loss, or None."""
    return next((step for step in reversed(_current.get().loops) if step.loss is loss), None)


@contextlib.contextmanager
def call_in(step: LoopStep) -> Iterator[None]:
    """A block for one call of the loss in a `LoopStep`; after the first one the step is made."""
    with step_with(is_repeated=step.made):
        yield
    step.made = True
