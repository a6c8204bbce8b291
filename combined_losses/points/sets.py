"""`PointSets`: batches of several sets of points, each of a size of its own."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from combined_losses._core.checks import is_integer, shown
from combined_losses._core.keras_types import KerasPyDataset
from combined_losses._core.names import quoted
from combined_losses._numerics.arrays import ArrayLike
from combined_losses.points.box import Box
from combined_losses.points.density import residual_density
from combined_losses.points.fields import Field, as_floatx, fields_of
from combined_losses.points.sources import Drawn, Pool, Source, State, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sampler: TypeAlias = Box | Callable[..., ArrayLike] | ArrayLike
"""A box, a function `f(count, rng)` that draws points, or an array of points."""

Values: TypeAlias = Callable[[Any], ArrayLike] | ArrayLike
"""A function of the points, an array with a row for each row of the set, or a number."""

Batch: TypeAlias = tuple[dict[str, Any], ...]
"""`(x, y, sample_weight)`, or less: a dict of arrays each."""


class PointSets(KerasPyDataset):
    """A data set of several sets of points, each with a batch size of its own.

    Every batch is `(x, y)`: `x` has points of each set by its name, which must be that of an input
    of the model; `y` has targets by the name of an output. The sizes are the same in every batch.
    A new epoch has new points. It is for `fit`, `evaluate` and loops of your own.

    Args:
        sets: what each set is, by name: a `cl.Box`, a function `f(count, rng)` that draws `count`
            points with a NumPy generator, or an array of points. The rows of an array are shuffled,
            and begin anew where they end; each row comes equally often.
        targets: by the name of an output, `(set, values)`: a function of the points, an array with
            a row for each row of the set, or a number. An output that has the name of its set may
            have values alone. An output that is not named, or has None, has no target.
        batch: how many points of each set a batch has, or one number for all.
        steps: how many batches an epoch has. Default: so many that an epoch has each row of each
            array at least once.
        seed: None, or an integer that makes the points the same in every run.
        sample_weight: as `targets`. Whoever gives weights for one output gives weights of 1 for the
            other outputs that have a target.
        redraw_every: after how many epochs there are new points, default 1. None: the points of all
            epochs are the same, as validation data should be.

    `fit` shuffles the order of the batches by Python's generator. `fit(..., shuffle=False)` does
    not, and is needed for a training that is the same to the last bit. Leave `steps_per_epoch` of
    `fit` and `workers` of the data set alone: they would mix epochs.

    Raises:
        ValueError: if an argument is none of the above, or a function returns another number of
            rows.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> points = cl.PointSets(
    ...     {
    ...         "pde": cl.Box([-1, 0], [1, 1], method="latin"),
    ...         "start": cl.Box([-1, 0], [1, 0]),
    ...         "measured": np.random.rand(20, 2),
    ...     },
    ...     targets={
    ...         "u_start": ("start", lambda x: -np.sin(np.pi * x[:, :1])),
    ...         "u_measured": ("measured", np.random.rand(20, 1)),
    ...     },
    ...     batch={"pde": 128, "start": 16, "measured": 8},
    ...     seed=0,
    ... )
    >>> len(points)
    3
    >>> x, y = points[0]
    >>> [array.shape for array in x.values()]
    [(128, 2), (16, 2), (8, 2)]
    >>> [array.shape for array in y.values()]
    [(16, 1), (8, 1)]
    """

    def __init__(
        self,
        sets: Mapping[str, Sampler],
        targets: "Mapping[str, Values | tuple[str, Values | None] | None] | None" = None,
        *,
        batch: Mapping[str, int] | int,
        steps: int | None = None,
        seed: int | None = None,
        sample_weight: "Mapping[str, Values | tuple[str, Values]] | None" = None,
        redraw_every: int | None = 1,
    ) -> None:
        super().__init__()
        _check_sets(sets)
        _check_integers(steps, seed, redraw_every)
        self._sources = {name: source_of(name, given) for name, given in sets.items()}
        self.batch: dict[str, int] = _sizes(batch, self._sources)
        self.steps: int = _steps(self._sources, self.batch) if steps is None else int(steps)
        self.redraw_every = redraw_every
        self._targets = fields_of("targets", "target", targets, self._sources, {}, 1)
        self._weights = self._weight_fields(sample_weight)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        self._state = State(epoch=0, seed=int(seed))
        self._drawn: tuple[State, dict[str, Drawn]] | None = None
        # See `on_epoch_end`.
        self._is_new, self._has_begun = True, False

    def _weight_fields(self, given: Any) -> dict[str, Field]:
        """The sample weights; Keras wants some for all outputs that have a target, or for none."""
        set_of = {output: field.set_name for output, field in self._targets.items()}
        if isinstance(given, Mapping) and any(value is not None for value in given.values()):
            given = {**dict.fromkeys(set_of, 1.0), **given}
        return fields_of("sample_weight", "sample weight", given, self._sources, set_of, 0)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self.steps:
            raise IndexError(f"There are {self.steps} batches. Received: index {index}")
        at = {name: self._part(drawn, name, index) for name, drawn in self._draw().items()}
        x = {name: drawn.points for name, drawn in at.items()}
        y = {output: field.at(at[field.set_name]) for output, field in self._targets.items()}
        if self._weights:
            weights = {out: field.at(at[field.set_name]) for out, field in self._weights.items()}
            return x, y, weights
        return (x, y) if y else (x,)

    def _part(self, drawn: Drawn, name: str, index: int) -> Drawn:
        """What belongs to one batch of an epoch's points."""
        size = self.batch[name]
        part = slice(index * size, (index + 1) * size)
        return Drawn(drawn.points[part], None if drawn.rows is None else drawn.rows[part])

    def _draw(self) -> dict[str, Drawn]:
        """The points of the current epoch.

        A thread of Keras's may still read a batch of the last epoch. So the state is read once, and
        is stored together with what was drawn from it.
        """
        state, last = self._state, self._drawn
        if last is not None and last[0] is state:
            return last[1]
        number = 0 if self.redraw_every is None else state.epoch // self.redraw_every
        found = {}
        for name, source in self._sources.items():
            drawn = source.draw(self.batch[name], self.steps, number, state)
            found[name] = Drawn(as_floatx(drawn.points), drawn.rows)
        self._drawn = (state, found)
        return found

    @property
    def epoch(self) -> int:
        """The number of the current epoch, from 0; it decides which points there are.

        `fit` and `evaluate` count it, over all their calls. Set it in a loop of your own.
        """
        return self._state.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if not is_integer(epoch) or epoch < 0:
            raise ValueError(
                f"`epoch` of PointSets must be an integer of at least 0. Received: {shown(epoch)}"
            )
        self._state = dataclasses.replace(self._state, epoch=int(epoch))

    def on_epoch_begin(self) -> None:
        self._has_begun = True

    def on_epoch_end(self) -> None:
        """Called by Keras: goes on to the next epoch.

        Keras also calls it before the first epoch of every `fit` and `evaluate`. There no epoch has
        begun, except where a new model is built: that reads a batch, and is the first call of all.
        """
        if self._has_begun and not self._is_new:
            self.epoch += 1
        self._is_new = self._has_begun = False

    def candidates(self, name: str, count: int) -> "NDArray[Any]":
        """Points of a set to choose from by their residuals: those of its box or function.

        Args:
            name: the set, one whose points are drawn.
            count: how many.
        """
        self._check_drawn(name)
        found = self._sources[name].candidates(count, self._state)
        return as_floatx(np.asarray(found))

    def adapt(
        self, name: str, candidates: ArrayLike, residuals: ArrayLike, k: float = 1.0, c: float = 1.0
    ) -> None:
        """From now on draws the points of a set where residuals are large.

        Residual-based adaptive distribution (RAD), Wu et al. 2023, arXiv 2207.10289: the points are
        drawn from the candidates with a probability proportional to `|r|^k / mean(|r|^k) + c`.
        `cl.callbacks.AdaptPoints` does it in `fit`.

        Args:
            name: the set, one whose points are drawn.
            candidates: the points to draw from, such as those that `candidates` gives.
            residuals: that of each candidate, `(count,)`, or `(count, ...)` for systems, of which
                the Euclidean norm counts.
            k: how much large residuals count; 0: not at all.
            c: the share of all others: the larger, the more even.
        """
        self._check_drawn(name)
        points = np.asarray(candidates)
        probability = residual_density(name, np.asarray(residuals), len(points), k, c)
        pools = {**self._state.pools, name: Pool(points, probability)}
        self._state = dataclasses.replace(self._state, pools=pools)

    def _check_drawn(self, name: str) -> None:
        drawn = [each for each, source in self._sources.items() if source.length is None]
        if name not in drawn:
            raise ValueError(
                "Points can be chosen by their residuals in sets that are drawn: "
                f"{quoted(drawn)}. Received: {name!r}"
            )

    def get_state(self) -> dict[str, Any]:
        """All that decides which points come next, as arrays: the epoch, the seed, what is adapted.

        `np.savez(path, **points.get_state())` saves it. `cl.callbacks.BackupPoints` does it in
        `fit`.
        """
        state = self._state
        arrays = {"epoch": np.asarray(state.epoch), "seed": np.asarray(state.seed)}
        for name, pool in state.pools.items():
            arrays |= {f"{name}/candidates": pool.points, f"{name}/probability": pool.probability}
        return arrays

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where another `PointSets` of the same arguments was.

        Args:
            state: what `get_state` gave, or `np.load(path)` of it.
        """
        allowed = {"epoch", "seed"}
        for name in self._sources:
            allowed |= {f"{name}/candidates", f"{name}/probability"}
        if not {"epoch", "seed"} <= set(state) <= allowed:
            raise ValueError(
                "The state must be what `get_state()` of a PointSets with the same sets gave; "
                f"these sets are {quoted(self._sources)}. Received: a state of {quoted(state)}"
            )
        pools = {
            name: Pool(np.asarray(state[f"{name}/candidates"]), state[f"{name}/probability"])
            for name in self._sources
            if f"{name}/candidates" in state
        }
        self._state = State(int(state["epoch"]), int(state["seed"]), pools)


def _check_sets(sets: Any) -> None:
    if not isinstance(sets, Mapping) or not sets or not all(isinstance(name, str) for name in sets):
        raise ValueError(
            "The first argument of PointSets must be a dict of at least one set by its name, that "
            f"of an input of the model. Received: {shown(sets)}"
        )


def _check_integers(steps: Any, seed: Any, redraw_every: Any) -> None:
    arguments = {"steps": (steps, 1), "seed": (seed, 0), "redraw_every": (redraw_every, 1)}
    for argument, (value, least) in arguments.items():
        if not (value is None or (is_integer(value) and value >= least)):
            raise ValueError(
                f"The argument `{argument}` of PointSets must be None or an integer of at least "
                f"{least} and below 2**31. Received: {shown(value)}"
            )


def _sizes(batch: Any, sources: dict[str, Source]) -> dict[str, int]:
    """The batch size of each set."""
    sizes = batch if isinstance(batch, Mapping) else dict.fromkeys(sources, batch)
    good = all(is_integer(size) and size >= 1 for size in sizes.values())
    if not good or sizes.keys() != sources.keys():
        raise ValueError(
            "The argument `batch` of PointSets must be an integer of at least 1, or a dict of one "
            f"for each of the sets {quoted(sources)}. Received: {shown(batch)}"
        )
    return {name: int(sizes[name]) for name in sources}


def _steps(sources: dict[str, Source], batch: dict[str, int]) -> int:
    """So many batches that each row of each array is in one."""
    lengths = {name: source.length for name, source in sources.items()}
    steps = [math.ceil(length / batch[name]) for name, length in lengths.items() if length]
    if not steps:
        raise ValueError(
            "PointSets needs `steps`, how many batches an epoch has, because no set is an array, "
            "whose length would tell. Received: steps=None"
        )
    return max(steps)
