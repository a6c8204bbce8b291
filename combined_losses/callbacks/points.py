"""Callbacks for `cl.PointSets`: points where residuals are large, and their state in a file."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from combined_losses._core.checks import check_number, is_integer, shown
from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._numerics.arrays import Tensor
from combined_losses.points import PointSets

__all__ = ["AdaptPoints", "BackupPoints"]


class AdaptPoints(KerasCallback):
    """Draws the points of an equation where its residual is large.

    Residual-based adaptive distribution (RAD), Wu et al. 2023, arXiv 2207.10289. After every so
    many epochs the residual is taken at `candidates` new points of the set. Until the next time its
    points are drawn from these, with a probability proportional to `|r|^k / mean(|r|^k) + c`.

    Args:
        points: the `cl.PointSets` that is trained on.
        residuals: by the name of a set that is drawn (no array), `f(model, points)`, which returns
            the residual at each point: `(count,)`, or `(count, ...)` for systems, of which the
            Euclidean norm counts.
        every: after how many epochs the residual is taken anew.
        candidates: how many points there are to choose from.
        k: how much large residuals count; 0: not at all.
        c: the share of all others: the larger, the more even.

    To go on after an interruption, add `cl.callbacks.BackupPoints`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> points = cl.PointSets({"x": cl.Box([0.0], [1.0])}, {"u": ("x", 0.0)}, batch=8, steps=2)
    >>> inputs = keras.Input((1,), name="x")
    >>> model = keras.Model({"x": inputs}, {"u": keras.layers.Dense(1)(inputs)})
    >>> model.compile("sgd", loss={"u": "mse"})
    >>> adapt = cl.callbacks.AdaptPoints(points, {"x": lambda model, x: model({"x": x})["u"]})
    >>> history = model.fit(points, epochs=3, callbacks=[adapt], verbose=0)
    """

    def __init__(
        self,
        points: PointSets,
        residuals: Mapping[str, Callable[[Any, Tensor], Tensor]],
        *,
        every: int = 1,
        candidates: int = 10_000,
        k: float = 1.0,
        c: float = 1.0,
    ) -> None:
        super().__init__()
        _check_points("AdaptPoints", points)
        functions = isinstance(residuals, Mapping) and all(map(callable, residuals.values()))
        if not functions or not residuals:
            raise ValueError(
                "The argument `residuals` of AdaptPoints must be a dict from the name of a set to "
                f"f(model, points). Received: {shown(residuals)}"
            )
        for argument, value in {"every": every, "candidates": candidates}.items():
            if not is_integer(value) or value < 1:
                raise ValueError(
                    f"The argument `{argument}` of AdaptPoints must be an integer of at least 1. "
                    f"Received: {shown(value)}"
                )
        check_number("AdaptPoints", "k", k, minimum=0)
        check_number("AdaptPoints", "c", c, minimum=0)
        for name in residuals:
            points.candidates(name, 1)  # raises where the set is none that is drawn
        self.points = points
        self.residuals = residuals
        self.every = every
        self.candidates = candidates
        self.k = k
        self.c = c

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """At the beginning, not at the end: a training that goes on from a file comes here too."""
        if epoch == 0 or epoch % self.every:
            return
        for name, residual in self.residuals.items():
            candidates = self.points.candidates(name, self.candidates)
            found = residual(self.model, keras.ops.convert_to_tensor(candidates))
            values = keras.ops.convert_to_numpy(found)
            self.points.adapt(name, candidates, values, self.k, self.c)


class BackupPoints(KerasCallback):
    """Keeps the state of a `cl.PointSets` in a file, so that an interrupted `fit` can go on.

    It does for the points what `keras.callbacks.BackupAndRestore` does for the model: the file is
    written after each epoch, read at the beginning of `fit` if it is there, and removed when `fit`
    has come to its end. Use both. With `fit(..., shuffle=False)` the training then goes on as if it
    had not stopped.

    Args:
        points: the `cl.PointSets` that is trained on.
        path: the file, `.npz`.
        delete_checkpoint: whether the file is removed at the end of `fit`, default True.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> points = cl.PointSets({"x": cl.Box([0.0], [1.0])}, batch=8, steps=2)
    >>> callbacks = [
    ...     keras.callbacks.BackupAndRestore("backup"),
    ...     cl.callbacks.BackupPoints(points, "backup/points.npz"),
    ... ]
    """

    def __init__(
        self, points: PointSets, path: str | os.PathLike[str], *, delete_checkpoint: bool = True
    ) -> None:
        super().__init__()
        _check_points("BackupPoints", points)
        self.points = points
        self.path: Path = Path(path)
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self, logs: Logs = None) -> None:
        if self.path.exists():
            with np.load(self.path) as state:
                self.points.set_state(state)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f"{self.path.name}.new")
        with written.open("wb") as file:  # numpy would add an ending to a path
            np.savez(file, **self.points.get_state())
        written.replace(self.path)  # so that there is never half a file

    def on_train_end(self, logs: Logs = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)


def _check_points(owner: str, points: object) -> None:
    if not isinstance(points, PointSets):
        raise ValueError(
            f"{owner} needs the cl.PointSets that is trained on. "
            f"Received: {shown(points)} of type {type(points).__name__}"
        )
