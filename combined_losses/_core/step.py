"""In which kind of step are we: the one context variable of training."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal


class LoopStep:
    """One block of `training_step`: its loss, and whether a call of it has made the step."""

    def __init__(self, loss: object) -> None:
        self.loss = loss
        self.made = False


@dataclasses.dataclass(frozen=True)
class Step:
    """What runs around the code that asks; the defaults are those of no step at all.

    Attributes:
        of_model: "step" inside a training or test step of a tracked model; "function" inside a step
            function of its own, which is compiled anew where a composite asks for it; else None.
        is_test: nothing moves, whatever a `compute_loss` of the user's hands on.
        keeps_results: on JAX, in the loss of a step that gives back what variables have become.
        calls_model: on JAX, in the call of the model, outside of which layers have no losses.
        captured: the step that may be asked for gradients at layers and parameters, or None.
        loops: the open blocks of `training_step`.
        is_repeated: a further call of the loss in such a block, whose step was made already: all
            calls of a step have the same scheduled weights.
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
"""`current_step()` is the `Step` that runs here."""


@contextlib.contextmanager
def step_with(**attributes: Any) -> Iterator[None]:
    """In the block the current step has other attributes."""
    token = _current.set(dataclasses.replace(_current.get(), **attributes))
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def inside(what: Literal["step", "function"], is_test: bool = False) -> Iterator[None]:
    """The block is a "step" of a tracked model, or a step "function" that calls it.

    A step inside of a function is part of that function. `is_test`: nothing moves in the block.
    """
    outer = _current.get()
    is_test = outer.is_test or is_test
    step = dataclasses.replace(outer, of_model=outer.of_model or what, is_test=is_test)
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


# Steps in a loop of one's own.


@contextlib.contextmanager
def loop_step(loss: object) -> Iterator[LoopStep]:
    """The block is one step of training of a loss: gives its `LoopStep`."""
    step = LoopStep(loss)
    with step_with(loops=(*_current.get().loops, step)):
        yield step


def loop_step_of(loss: object) -> LoopStep | None:
    """The innermost open `LoopStep` of a loss, or None."""
    return next((step for step in reversed(_current.get().loops) if step.loss is loss), None)


@contextlib.contextmanager
def call_in(step: LoopStep) -> Iterator[None]:
    """The block is a call of the loss of a `LoopStep`; the first one makes the step."""
    with step_with(is_repeated=step.made):
        yield
    step.made = True
