"""Schedules of single weights: functions of the step."""

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import LEAST, is_number, shown
from combined_losses._core.keras_types import KerasSchedule

__all__ = ["Cyclical", "LinearRamp", "Sigmoid"]


@keras.saving.register_keras_serializable("combined_losses")
class LinearRamp(KerasSchedule):
    """A weight that goes from one value to another in a straight line, and stays there.

    Args:
        steps: the number of steps that it takes, at least 1.
        start, end: the weights before and after, default 0 and 1.
        delay: the number of steps before it begins, default 0.

    Example:

    >>> import combined_losses as cl
    >>> ramp = cl.weightings.LinearRamp(steps=100, end=0.5)
    >>> [float(ramp(step)) for step in (0, 50, 100, 200)]
    [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(self, steps, start=0.0, end=1.0, delay=0):
        self.steps, self.start, self.end, self.delay = steps, start, end, delay
        _check_schedule(self, steps=steps, start=start, end=end, delay=delay)

    def __call__(self, step):
        share = (ops.cast(step, "float32") - float(self.delay)) / float(self.steps)
        return _between(self.start, self.end, ops.clip(share, 0.0, 1.0))

    @property
    def final_weight(self):
        """The weight after the ramp, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "steps", "start", "end", "delay")


@keras.saving.register_keras_serializable("combined_losses")
class Sigmoid(KerasSchedule):
    """A weight that goes from one value to another along a logistic curve.

    Args:
        steps: the number of steps in which it goes from 5 % to 95 % of the way, at least 1.
        start, end: the weights before and after, default 0 and 1.
        midpoint: the step at which it is half way; default `steps`.

    Example:

    >>> import combined_losses as cl
    >>> curve = cl.weightings.Sigmoid(steps=100, midpoint=200)
    >>> [round(float(curve(step)), 3) for step in (0, 150, 200, 250)]
    [0.0, 0.05, 0.5, 0.95]
    """

    def __init__(self, steps, start=0.0, end=1.0, midpoint=None):
        self.steps, self.start, self.end, self.midpoint = steps, start, end, midpoint
        _check_schedule(self, steps=steps, start=start, end=end, midpoint=midpoint)

    def __call__(self, step):
        middle, steps = (
            float(self.steps if self.midpoint is None else self.midpoint),
            float(self.steps),
        )
        # sigmoid(log 19) = 0.95.
        share = ops.sigmoid(2 * np.log(19.0) * (ops.cast(step, "float32") - middle) / steps)
        return _between(self.start, self.end, share)

    @property
    def final_weight(self):
        """The weight at the end of the curve, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "steps", "start", "end", "midpoint")


@keras.saving.register_keras_serializable("combined_losses")
class Cyclical(KerasSchedule):
    """A weight that rises again and again: a ramp in the first part of every cycle, then constant.

    Args:
        cycle: the number of steps of a cycle, at least 1.
        ratio: the part of a cycle in which it rises, in (0, 1]. Default 0.5.
        start, end: the weights at the beginning of a cycle and after the ramp, default 0 and 1.
        cycles: None: for ever; or the number of cycles after which it stays at `end`.

    References:
        - Fu et al., 2019, Cyclical Annealing Schedule, arXiv:1903.10145.

    Example:

    >>> import combined_losses as cl
    >>> beta = cl.weightings.Cyclical(cycle=100)
    >>> [float(beta(step)) for step in (0, 25, 50, 99, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    def __init__(self, cycle, ratio=0.5, start=0.0, end=1.0, cycles=None):
        self.cycle, self.ratio, self.start, self.end = cycle, ratio, start, end
        self.cycles = cycles
        _check_schedule(self, cycle=cycle, start=start, end=end, cycles=cycles)
        if not is_number(ratio) or not 0 < ratio <= 1:
            raise ValueError(
                f"`ratio` of Cyclical must be a finite number above 0 and at most 1. "
                f"Received: {shown(ratio)}"
            )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rise = max(float(self.cycle) * self.ratio, LEAST)
        share = ops.minimum(ops.mod(step, float(self.cycle)) / rise, 1.0)
        if self.cycles is not None:
            share = ops.where(step < float(self.cycle) * self.cycles, share, 1.0)
        return _between(self.start, self.end, share)

    @property
    def final_weight(self):
        """The weight at the end of each cycle, which `base_loss` takes."""
        return self.end

    def get_config(self):
        return _config(self, "cycle", "ratio", "start", "end", "cycles")


def _between(start, end, share):
    # Floats: no backend adds a whole number above 2**63 to a tensor. Each by its own share: the
    # difference of the two may be no float32 number.
    return float(start) * (1 - share) + float(end) * share


def _check_schedule(schedule, **arguments):
    for name, value in arguments.items():
        if value is None and name in ("midpoint", "cycles"):
            continue
        counts = name in ("steps", "cycle", "cycles")
        if not is_number(value) or (counts and value < 1):
            allowed = "a number of at least 1" if counts else "a finite number"
            raise ValueError(
                f"`{name}` of {type(schedule).__name__} must be {allowed}. Received: {shown(value)}"
            )


def _config(schedule, *names):
    return {name: getattr(schedule, name) for name in names}
