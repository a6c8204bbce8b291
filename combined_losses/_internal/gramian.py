"""What a rule is told of the gradients of the components."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

# On the cosines, never on the Gramian itself: relative to its trace a component of small scale
# would vanish in it. 1e-6 moves a solution by about 7e-6 and keeps float32 from a singular matrix.
_RIDGE = 1e-6


class Gradients(NamedTuple):
    """The gradients of k components; those without one are as if they were not there.

    A component is live where it has a finite value, a fixed weight and a gradient that is neither
    zero nor infinite. The others have a row of the identity in `cosines`, the norm 1 in `norms`,
    and get the weight 0 whatever a rule gives them.

    Attributes:
        norms: `(k,)`, their lengths.
        cosines: `(k, k)`, between them, plus 1e-6 on the diagonal.
        live: `(k,)`, 1.0 or 0.0.
        values: `(k,)`, the raw values of the components.
        largest, mean: `(k,)`, of the magnitudes of their entries; None unless `"rows"` is needed.
    """

    norms: Any
    cosines: Any
    live: Any
    values: Any = None
    largest: Any = None
    mean: Any = None

    @property
    def count(self):
        """The number of live components, at least 1."""
        return ops.maximum(ops.sum(self.live), 1.0)

    @property
    def gramian(self):
        """`(k, k)`, of the live components; the others have the mean on the diagonal alone."""
        typical = ops.sum(self.live * ops.square(self.norms)) / self.count
        norms = ops.where(self.live > 0, self.norms, ops.sqrt(ops.maximum(typical, 1e-36)))
        return self.cosines * norms[:, None] * norms[None, :]


def live_rows(gramian):
    """Which rows have a gradient that is neither zero nor infinite, as booleans `(k,)`."""
    # A finite G_ii says that the row is finite, and with it G_ij for every other such row.
    squares = ops.diagonal(gramian)
    finite = ops.isfinite(squares)
    norms = ops.sqrt(ops.where(finite, ops.maximum(squares, 0.0), 0.0))
    return ops.logical_and(finite, norms > ops.maximum(1e-10 * ops.max(norms), 1e-18))


def describe(gramian, live, values, sizes):
    """The `Gradients` of a Gramian `(k, k)`; `sizes` is None or `(largest, mean)`."""
    both = live[:, None] * live[None, :]
    norms = ops.sqrt(ops.where(live > 0, ops.diagonal(gramian), 1.0))
    # Divided twice: the product of two norms may not be a float32 number.
    cosines = ops.where(both > 0, gramian, 0.0) / norms[:, None] / norms[None, :]
    identity = np.eye(live.shape[0], dtype="float32")
    cosines = ops.where(identity > 0, 1.0 + _RIDGE, ops.clip(cosines, -1.0, 1.0))
    largest, mean = (None, None) if sizes is None else (ops.where(live > 0, s, 1.0) for s in sizes)
    return Gradients(norms, cosines, live, values, largest, mean)


def plain_cosines(gradients):
    """The cosines of the live components, 0 elsewhere, also on the diagonal."""
    both = gradients.live[:, None] * gradients.live[None, :]
    return ops.minimum(gradients.cosines, 1.0) * both


def gramian_of(rows):
    """`J J^T` of a matrix `(k, n)`, in float32."""
    # Not by `matmul`, which rounds to fewer digits on some accelerators.
    rows = ops.cast(rows, "float32")
    return ops.stack([ops.sum(rows * rows[i], axis=1) for i in range(rows.shape[0])])


def sizes_of(rows):
    """The largest and the mean magnitude of the entries of each row."""
    sizes = ops.abs(ops.cast(rows, "float32"))
    return ops.max(sizes, axis=1), ops.mean(sizes, axis=1)
