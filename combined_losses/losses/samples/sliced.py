"""Sets compared by their shadows on lines."""

from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._backend import backend, keras_private
from combined_losses._core.checks import are_finite, as_array, is_integer
from combined_losses._core.keras_types import LossArguments
from combined_losses._core.over import Over
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, magnitude
from combined_losses.losses.samples.members import OfMembers

__all__ = ["SlicedWasserstein"]


@keras.saving.register_keras_serializable("combined_losses")
class SlicedWasserstein(OfMembers):
    """The Wasserstein distance of two sets: the mean over their shadows on many lines.

    On a line the best way to move one set onto the other keeps the order: the k-th smallest of one
    goes to the k-th smallest of the other. The value is the mean over directions and ranks of
    `|difference|^power`; no root is taken. Use it where `MMD` needs too much memory, or bandwidths
    that nobody knows: it takes the time of a sort, and pulls from any distance.

    Args:
        projections: the number of directions, drawn afresh in each call; or the directions, an
            array `(P, D)`, which are then fixed. Their lengths do not matter. Default 50.
        power: 1 or 2, of the distances on a line. Default 2.
        seed: of the drawn directions, a whole number, or None (default) for another one each time.
        over: `"batch"` (default): all members of the batch, on all replicas, are one set, and every
            sample is given its one number; `"sample"`: each sample is a pair of sets of its own.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ..., D)`, equal; with `over="batch"` every row is a
    member of D numbers, with `over="sample"` the middle axes are the members of each sample. Values
    `(batch,)`, in units of the members to the power.

    Weights are those of members, and the same for both sets: each member then takes a stretch of
    the ranks. A member of weight 0, or with a missing label, leaves both.

    Raises:
        ValueError: if an argument is outside its range, or the shapes differ.

    Example: of one number each, moved by 2, in whatever order.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.SlicedWasserstein(projections=[[1.0]])
    >>> float(loss(np.array([[0.0], [5.0]]), np.array([[7.0], [2.0]])))
    4.0

    Limits: for D = 1 it is the Wasserstein distance to the power, in any direction. In D dimensions
    a set moved by t has about `|t|^2 / D`. In a function that a user compiles on JAX the directions
    are drawn once; in `fit` of a `cl.Model` they are drawn in each step.

    Reference: Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, J. Math.
    Imaging Vis. 2015.
    """

    _needs_as_many = True

    def __init__(
        self,
        projections: int | Sequence[Sequence[float]] = 50,
        power: int = 2,
        *,
        seed: int | None = None,
        over: Over = "batch",
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(over, **kwargs)
        self._number = _number_of(projections)
        self._directions = None if self._number else _unit_rows(projections)
        if power not in (1, 2) or isinstance(power, bool):
            _refuse("power", "1 or 2", power)
        if seed is not None and not (is_integer(seed) and 0 <= seed < 2**31):
            _refuse("seed", "None, or a whole number from 0 to 2**31 - 1", seed)
        self.projections = projections
        self.power = power
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed) if self._directions is None else None

    def measure(self, x: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        directions = self._drawn(x)
        x, z = _shadows(x, directions), _shadows(z, directions)
        if weight is None:
            return ops.mean(self._prices(ops.sort(x, axis=-1), ops.sort(z, axis=-1)), axis=(1, 2))
        x, x_ends = _in_order(x, weight)
        z, z_ends = _in_order(z, weight)
        # Between two neighbouring ends, of either set, each set has one member.
        ends = ops.sort(ops.concatenate([x_ends, z_ends], axis=-1), axis=-1)
        starts = ops.concatenate([ops.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
        middles = (starts + ends) / 2
        prices = self._prices(_at(middles, x, x_ends), _at(middles, z, z_ends))
        return ops.mean(ops.sum((ends - starts) * prices, axis=-1), axis=-1)

    def _prices(self, x: Tensor, z: Tensor) -> Tensor:
        return ops.square(x - z) if self.power == 2 else magnitude(x - z)

    def _drawn(self, members: Tensor) -> Tensor:
        """The directions, `(P, D)`, each of length 1; the same on all replicas."""
        size = members.shape[-1]
        if self._directions is not None:
            if self._directions.shape[1] != size:
                raise ValueError(
                    f"The directions of SlicedWasserstein have {self._directions.shape[1]} numbers "
                    f"each, and its members {size}. Received: projections={self.projections!r}"
                )
            return ops.convert_to_tensor(self._directions, members.dtype)
        shape, generator = (self._number, size), self._generator
        if backend.is_compiling() and not backend.is_threaded(keras_private.seed_state(generator)):
            # Nobody would keep the count of the draws: these are part of the compiled function.
            drawn = np.random.default_rng(self.seed or 0).normal(size=shape)
            drawn = ops.convert_to_tensor(drawn, members.dtype)
        else:
            drawn = keras.random.normal(shape, dtype=members.dtype, seed=generator)
        # Those of the first replica.
        drawn = ops.reshape(backend.global_concat(drawn)[: self._number], shape)
        return drawn / ops.sqrt(ops.sum(ops.square(drawn), axis=-1, keepdims=True) + 1e-30)


def _shadows(members: Tensor, directions: Tensor) -> Tensor:
    """Where the members lie on each line, `(sets, P, n)`."""
    sets, number, size = ops.shape(members)
    flat = backend.products(ops.reshape(members, (sets * number, size)), directions)
    return ops.swapaxes(ops.reshape(flat, (sets, number, directions.shape[0])), 1, 2)


def _in_order(shadows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The shadows in order, and where the stretch of each in [0, 1] ends, `(sets, P, n)`."""
    order = ops.argsort(ops.stop_gradient(shadows), axis=-1)
    weight = ops.broadcast_to(ops.expand_dims(weight, 1), ops.shape(shadows))
    ends = ops.cumsum(ops.take_along_axis(weight, order, axis=-1), axis=-1)
    # The last end is exactly 1 in both sets; all are 0 where nothing has a weight.
    return ops.take_along_axis(shadows, order, axis=-1), div(ends, ends[..., -1:])


def _at(places: Tensor, in_order: Tensor, ends: Tensor) -> Tensor:
    """The shadow whose stretch holds each place: that with the first end beyond it."""
    sets, lines, number = ops.shape(ends)
    rows = (ops.reshape(array, (sets * lines, ops.shape(array)[-1])) for array in (ends, places))
    found = ops.cast(backend.places_after(*rows), "int32")
    found = ops.reshape(ops.minimum(found, number - 1), ops.shape(places))
    return ops.take_along_axis(in_order, found, axis=-1)


_PROJECTIONS = "an integer of at least 1, or an array (P, D) without a row of zeros"


def _number_of(projections: object) -> int:
    """How many directions are to be drawn; 0: they are given."""
    if not is_integer(projections):
        return 0
    number = int(as_array(projections))
    if number < 1:
        _refuse("projections", _PROJECTIONS, projections)
    return number


def _unit_rows(projections: object) -> NDArray[np.float64]:
    """Given directions, `(P, D)`, each of length 1."""
    array = as_array(projections)
    if array.ndim != 2 or not array.size or not are_finite(array):
        _refuse("projections", _PROJECTIONS, projections)
    array = array.astype("float64")  # the squares of small integers, or of float16, may overflow
    lengths = np.sqrt(np.sum(np.square(array), axis=-1, keepdims=True))
    if np.any(lengths == 0):
        _refuse("projections", _PROJECTIONS, projections)
    found: NDArray[np.float64] = array / lengths
    return found


def _refuse(name: str, allowed: str, received: object) -> None:
    raise ValueError(
        f"The argument `{name}` of SlicedWasserstein must be {allowed}. Received: {received!r}"
    )
