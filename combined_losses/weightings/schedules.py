"""Schedules of single weights: functions of the step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import LEAST, is_number, shown
from combined_losses._core.config import arguments_of
from combined_losses._core.keras_types import KerasScheduleClass
from combined_losses._core.short_call import short_call
from combined_losses._numerics.arrays import ArrayLike, Tensor

__all__ = ["Cyclical", "LinearRamp", "Sigmoid"]


class _WeightSchedule(KerasScheduleClass):
    """Base of the schedules that end at the weight `end`."""

    end: float

    @property
    def final_weight(self) -> float:
        """The weight at the end, which `base_loss` uses."""
        return self.end

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in arguments_of(type(self))}

    def __repr__(self) -> str:
        return short_call(self)


@keras.saving.register_keras_serializable("combined_losses")
class LinearRamp(_WeightSchedule):
    """A weight that changes from one value to another in a straight line, then stays there.

    Args:
        steps: the length of the ramp in steps, at least 1.
        start, end: the weights before and after the ramp, default 0 and 1.
        delay: the number of steps before the ramp, default 0.

    Example:

    >>> import combined_losses as cl
    >>> ramp = cl.weightings.LinearRamp(steps=100, end=0.5)
    >>> [float(ramp(step)) for step in (0, 50, 100, 200)]
    [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(
        self, steps: float, start: float = 0.0, end: float = 1.0, delay: float = 0
    ) -> None:
        self.steps = steps
        self.start = start
        self.end = end
        self.delay = delay
        _check_schedule(self, steps=steps, start=start, end=end, delay=delay)

    def __call__(self, step: ArrayLike) -> Tensor:
        share = (ops.cast(step, "float32") - float(self.delay)) / float(self.steps)
        return _between(self.start, self.end, ops.clip(share, 0.0, 1.0))


@keras.saving.register_keras_serializable("combined_losses")
class Sigmoid(_WeightSchedule):
    """A weight that changes from one value to another along a logistic curve.

    Args:
        steps: the number of steps from 5 % to 95 % of the change, at least 1.
        start, end: the weights before and after the curve, default 0 and 1.
        midpoint: the step at which half of the change is done; None (default): `steps`.

    Example:

    >>> import combined_losses as cl
    >>> curve = cl.weightings.Sigmoid(steps=100, midpoint=200)
    >>> [round(float(curve(step)), 3) for step in (0, 150, 200, 250)]
    [0.0, 0.05, 0.5, 0.95]
    """

    def __init__(
        self, steps: float, start: float = 0.0, end: float = 1.0, midpoint: float | None = None
    ) -> None:
        self.steps = steps
        self.start = start
        self.end = end
        self.midpoint = midpoint
        _check_schedule(self, steps=steps, start=start, end=end, midpoint=midpoint)

    def __call__(self, step: ArrayLike) -> Tensor:
        middle = float(self.steps if self.midpoint is None else self.midpoint)
        distance = ops.cast(step, "float32") - middle
        # sigmoid(log 19) = 0.95
        share = ops.sigmoid(2 * np.log(19.0) * distance / float(self.steps))
        return _between(self.start, self.end, share)


@keras.saving.register_keras_serializable("combined_losses")
class Cyclical(_WeightSchedule):
    """A weight that rises again and again: every cycle is a ramp followed by a constant.

    Args:
        cycle: the length of a cycle in steps, at least 1.
        ratio: the length of the ramp as a fraction of the cycle, in (0, 1]. Default 0.5.
        start, end: the weights at the beginning of a cycle and after the ramp, default 0 and 1.
        cycles: None (default): for ever; or the number of cycles after which the weight stays at
            `end`.

    References:
        - Fu et al., 2019, Cyclical Annealing Schedule, arXiv:1903.10145.

    Example:

    >>> import combined_losses as cl
    >>> beta = cl.weightings.Cyclical(cycle=100)
    >>> [float(beta(step)) for step in (0, 25, 50, 99, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    def __init__(
        self,
        cycle: float,
        ratio: float = 0.5,
        start: float = 0.0,
        end: float = 1.0,
        cycles: float | None = None,
    ) -> None:
        self.cycle = cycle
        self.ratio = ratio
        self.start = start
        self.end = end
        self.cycles = cycles
        _check_schedule(self, cycle=cycle, start=start, end=end, cycles=cycles)
        if not is_number(ratio) or not 0 < ratio <= 1:
            raise ValueError(
                f"`ratio` of Cyclical must be a finite number above 0 and at most 1. "
                f"Received: {shown(ratio)}"
            )

    def __call__(self, step: ArrayLike) -> Tensor:
        step = ops.cast(step, "float32")
        rise = max(float(self.cycle) * self.ratio, LEAST)
        share = ops.minimum(ops.mod(step, float(self.cycle)) / rise, 1.0)
        if self.cycles is not None:
            share = ops.where(step < float(self.cycle) * self.cycles, share, 1.0)
        return _between(self.start, self.end, share)


def _between(start: float, end: float, share: Tensor) -> Tensor:
    """The weight after a share of the change from `start` to `end`."""
    # Floats, because no backend multiplies a tensor by a whole number above 2**63. Not
    # `start + (end - start) * share`, because the difference may overflow in float32.
    return float(start) * (1 - share) + float(end) * share


def _check_schedule(schedule: _WeightSchedule, **arguments: float | None) -> None:
    for name, value in arguments.items():
        if value is None and name in ("midpoint", "cycles"):
            continue
        is_count = name in ("steps", "cycle", "cycles")
        if value is None or not is_number(value) or (is_count and value < 1):
            allowed = "a number of at least 1" if is_count else "a finite number"
            raise ValueError(
                f"`{name}` of {type(schedule).__name__} must be {allowed}. Received: {shown(value)}"
            )
