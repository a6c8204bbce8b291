"""What a rule is given about the gradients of the components."""

from typing import NamedTuple

import numpy as np
from keras import ops

from combined_losses._numerics.arrays import ArrayLike, Tensor

# Added to the diagonal of the cosines, never to the Gramian itself: relative to the trace of the
# Gramian, a component of small scale would vanish. 1e-6 moves a solution by about 7e-6 and keeps
# the matrix from being singular in float32.
_RIDGE = 1e-6


class Products(NamedTuple):
    """The products and sizes of the gradients of k components, as they were measured.

    Attributes:
        gramian: `(k, k)`, the products of the gradients, each gradient divided by its scale.
        scales: `(k,)`, a power of two near the largest entry of each gradient; None: all 1.
        largest, mean: `(k,)`, the largest and mean magnitude of the entries of each gradient; None
            unless the rule needs `"rows"`.
        bypassing: `(k,)`, which components may also act on the network in a way that bypasses the
            place where the gradients are taken; None: none of them.
    """

    gramian: Tensor
    scales: Tensor | None = None
    largest: Tensor | None = None
    mean: Tensor | None = None
    bypassing: Tensor | None = None

    @property
    def whole(self) -> Tensor:
        """The Gramian of the gradients without scales; it may overflow in float32."""
        if self.scales is None:
            return self.gramian
        return self.gramian * self.scales[:, None] * self.scales[None, :]


class Gradients(NamedTuple):
    """The gradients of k components; those that do not count do not influence the others.

    A component is active if it has a finite value, a fixed weight other than 0, and a gradient that
    is neither zero nor infinite. Every other component has a row of the identity in `cosines` and
    the norm 1 in `norms`, and gets the weight 0 whatever the rule returns for it.

    Attributes:
        norms: `(k,)`, the lengths of the gradients.
        cosines: `(k, k)`, the cosines between them, plus 1e-6 on the diagonal.
        active: `(k,)`, 1.0 for active components, 0.0 for the others.
        values: `(k,)`, the raw values of the components.
        largest, mean: `(k,)`, the largest and mean magnitude of the entries of each gradient; None
            unless the rule needs `"rows"`.
    """

    norms: Tensor
    cosines: Tensor
    active: Tensor
    values: Tensor = None
    largest: Tensor = None
    mean: Tensor = None

    @property
    def live(self) -> Tensor:
        """The first name of `active`, for rules that were written with it."""
        return self.active

    @property
    def count(self) -> Tensor:
        """The number of active components, at least 1."""
        return ops.maximum(ops.sum(self.active), 1.0)

    @property
    def gramian(self) -> Tensor:
        """The Gramian `(k, k)`; components that are not active have zeros beside the diagonal.

        On the diagonal they have the mean of the active ones.
        """
        largest = ops.maximum(ops.max(self.active * self.norms), 1e-36)
        shares = ops.sum(self.active * ops.square(self.norms / largest)) / self.count
        norms = ops.where(self.active > 0, self.norms, largest * ops.sqrt(shares))
        return self.cosines * norms[:, None] * norms[None, :]


def has_usable_gradient(gramian: Tensor) -> Tensor:
    """Which components have a gradient that is neither zero nor infinite, booleans `(k,)`.

    Args:
        gramian: `(k, k)`, of gradients that are divided by their scales.
    """
    # If G_ii is finite, the gradient i is finite, and so is G_ij for every other finite gradient j.
    # Thanks to the scales G_ii is 0 only for a gradient of zeros, however short the others are.
    squares = ops.diagonal(gramian)
    return ops.logical_and(ops.isfinite(squares), squares > 0)


def describe(products: Products, active: Tensor, values: Tensor) -> Gradients:
    """The `Gradients` that belong to measured `Products`."""
    both = active[:, None] * active[None, :]
    units = ops.sqrt(ops.where(active > 0, ops.diagonal(products.gramian), 1.0))
    # Divided by one norm after the other: the product of two norms may overflow in float32.
    cosines = ops.where(both > 0, products.gramian, 0.0) / units[:, None] / units[None, :]
    identity = np.eye(active.shape[0], dtype="float32")
    cosines = ops.where(identity > 0, 1.0 + _RIDGE, ops.clip(cosines, -1.0, 1.0))

    def of_active(sizes: Tensor | None) -> Tensor | None:
        return None if sizes is None else ops.where(active > 0, sizes, 1.0)

    norms = units if products.scales is None else of_active(units * products.scales)
    largest, mean = of_active(products.largest), of_active(products.mean)
    return Gradients(norms, cosines, active, values, largest, mean)


def plain_cosines(gradients: Gradients) -> Tensor:
    """The cosines without the ridge, 1 on the diagonal; all 0 for components not active."""
    both = gradients.active[:, None] * gradients.active[None, :]
    return ops.minimum(gradients.cosines, 1.0) * both


def products_of(rows: ArrayLike) -> Products:
    """The `Products` of gradients that are the rows of a matrix `(k, n)`, in float32."""
    rows = ops.cast(rows, "float32")
    sizes = ops.abs(rows)
    largest = ops.max(sizes, axis=1)
    scales = powers_of_two(largest)
    rows = rows / scales[:, None]
    # Not by `matmul`, which rounds to fewer digits on some accelerators.
    gramian = ops.stack([ops.sum(rows * rows[i], axis=1) for i in range(rows.shape[0])])
    return Products(gramian, scales, largest, ops.mean(sizes, axis=1))


# Looked up in a table, because no backend promises that its powers of 2 are exact.
_POWERS = np.exp2(np.arange(-126, 127)).astype("float32")


def powers_of_two(sizes: Tensor) -> Tensor:
    """The power of two near each size; 1 for a size that is 0 or not finite.

    Dividing by a power of two does not round. An array whose largest entry has that size has, after
    the division, a largest square between 1/4 and 16: neither squares nor their sums overflow or
    vanish in float32, whatever the sizes were.
    """
    sound = ops.logical_and(ops.isfinite(sizes), sizes > 0)
    exponents = ops.floor(ops.log2(ops.where(sound, sizes, 1.0)))
    index = ops.cast(ops.clip(exponents, -126.0, 126.0), "int32") + 126
    return ops.take(ops.convert_to_tensor(_POWERS), index)
