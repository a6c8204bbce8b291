"""What a rule is told of the gradients of the components."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

# On the cosines, never on the Gramian itself: relative to its trace a component of small scale
# would vanish in it. 1e-6 moves a solution by about 7e-6 and keeps float32 from a singular matrix.
_RIDGE = 1e-6


class Products(NamedTuple):
    """The gradients of k components as they are measured.

    Attributes:
        gramian: `(k, k)`, the products of the gradients, each divided by its scale.
        scales: `(k,)`, powers of two, near the largest entry of each; None: all 1.
        largest, mean: `(k,)`, of the magnitudes of their entries; None unless `"rows"` is needed.
        beside: `(k,)`, which components may act on the network by another way than the place where
            the gradients are taken; None: none of them.
    """

    gramian: Any
    scales: Any = None
    largest: Any = None
    mean: Any = None
    beside: Any = None

    @property
    def whole(self):
        """The Gramian of the gradients themselves, as far as float32 has it."""
        if self.scales is None:
            return self.gramian
        return self.gramian * self.scales[:, None] * self.scales[None, :]


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
        largest = ops.maximum(ops.max(self.live * self.norms), 1e-36)
        shares = ops.sum(self.live * ops.square(self.norms / largest)) / self.count
        norms = ops.where(self.live > 0, self.norms, largest * ops.sqrt(shares))
        return self.cosines * norms[:, None] * norms[None, :]


def live_rows(gramian):
    """Which rows have a gradient that is neither zero nor infinite, as booleans `(k,)`."""
    # A finite G_ii says that the row is finite, and with it G_ij for every other such row. Of rows
    # that are scaled it is 0 for those of zeros alone; a short one beside a long one is no zero.
    squares = ops.diagonal(gramian)
    return ops.logical_and(ops.isfinite(squares), squares > 0)


def describe(products, live, values):
    """The `Gradients` of `Products`."""
    both = live[:, None] * live[None, :]
    units = ops.sqrt(ops.where(live > 0, ops.diagonal(products.gramian), 1.0))
    # Divided twice: the product of two norms may not be a float32 number.
    cosines = ops.where(both > 0, products.gramian, 0.0) / units[:, None] / units[None, :]
    identity = np.eye(live.shape[0], dtype="float32")
    cosines = ops.where(identity > 0, 1.0 + _RIDGE, ops.clip(cosines, -1.0, 1.0))

    def of_live(sizes):
        return None if sizes is None else ops.where(live > 0, sizes, 1.0)

    norms = units if products.scales is None else of_live(units * products.scales)
    largest, mean = of_live(products.largest), of_live(products.mean)
    return Gradients(norms, cosines, live, values, largest, mean)


def plain_cosines(gradients):
    """The cosines of the live components, 0 elsewhere, also on the diagonal."""
    both = gradients.live[:, None] * gradients.live[None, :]
    return ops.minimum(gradients.cosines, 1.0) * both


def products_of(rows):
    """The `Products` of a matrix `(k, n)`, in float32."""
    rows = ops.cast(rows, "float32")
    sizes = ops.abs(rows)
    largest = ops.max(sizes, axis=1)
    scales = powers_of_two(largest)
    rows = rows / scales[:, None]
    # Not by `matmul`, which rounds to fewer digits on some accelerators.
    gramian = ops.stack([ops.sum(rows * rows[i], axis=1) for i in range(rows.shape[0])])
    return Products(gramian, scales, largest, ops.mean(sizes, axis=1))


# From a table: no backend promises that its powers of 2 are exact.
_POWERS = np.exp2(np.arange(-126, 127)).astype("float32")


def powers_of_two(sizes):
    """The power of two near each size, by which what has it is divided without rounding.

    1 for a size of 0, and for one that is not finite. Numbers of that size have squares between 1/4
    and 16 after the division: neither they nor their sums leave float32, whatever the sizes.
    """
    sound = ops.logical_and(ops.isfinite(sizes), sizes > 0)
    exponents = ops.floor(ops.log2(ops.where(sound, sizes, 1.0)))
    index = ops.cast(ops.clip(exponents, -126.0, 126.0), "int32") + 126
    return ops.take(ops.convert_to_tensor(_POWERS), index)
