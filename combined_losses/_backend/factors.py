"""Gradients by the kernel of a product, without the gradients: the two factors that they are of.

The gradient of a value by W in `z = x W` is `x' s`, s its slope at z. The products of two of them,

    <x' s, x' t> = <s, (x x') t>,

need only matrices of as many rows as x has, which are small where a batch is smaller than a layer.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from keras import ops

from combined_losses._backend.arrays import Tensor


class Factors(NamedTuple):
    """The gradients of k values by a kernel `(n, m)`: `inputs' slopes[i]`.

    Attributes:
        inputs: `(rows, n)`; the rows of all products, one after another, if there are several.
        slopes: `(k, rows, m)`.
    """

    inputs: Tensor
    slopes: Tensor

    def largest(self) -> Tensor:
        """The largest entry in each of k outer products of rows, `(k,)`.

        The gradients are sums of these. Only what is lost to cancellation makes them smaller.
        """
        sizes = ops.max(ops.abs(self.inputs), axis=-1) * ops.max(ops.abs(self.slopes), axis=-1)
        return ops.max(sizes, axis=-1)

    def gramian(self, scales: Tensor) -> Tensor:
        """The products of the k gradients, each divided by its scale, `(k, k)`, in float32.

        Where sums over rows cancel, the products of factors lose twice as many digits as those of
        gradients do: they are computed in float64, in the block of `Backend.in_float64`.
        """
        inputs, slopes, wide = (ops.cast(each, "float64") for each in (*self, scales))
        slopes = slopes / ops.reshape(wide, (-1, 1, 1))
        of_rows = inputs @ ops.transpose(inputs)  # `ops.matmul` is in float32 on torch
        k = slopes.shape[0]
        # A product with the rows for each slope, not for each pair of them.
        turned = ops.stack([of_rows @ slopes[i] for i in range(k)])
        flat, turned = (ops.reshape(each, (k, -1)) for each in (slopes, turned))
        products = flat @ ops.transpose(turned)
        return ops.cast((products + ops.transpose(products)) / 2, "float32")

    def combine(self, weights: Tensor) -> Tensor:
        """The sum of the k gradients with weights `(k,)`, flat."""
        slope = ops.tensordot(ops.stop_gradient(weights), self.slopes, 1)
        return ops.reshape(ops.matmul(ops.transpose(self.inputs), slope), (-1,))


Columns: TypeAlias = Sequence[Sequence[Tensor] | Factors]
"""Gradients of k values by points: for each point the k gradients, flat, or their factors.

On torch the k gradients are a tensor `(k, n)`.
"""


class Product(NamedTuple):
    """One product of a step, `z = x W` or `z = x W + b`."""

    kernel: Any
    x: Tensor
    z: Tensor


def are_cheaper(products: Sequence[Product], k: int) -> bool:
    """Whether factors need less time than the gradients by the kernel of products, and memory.

    Not where the number of rows is not known when a step is compiled.
    """
    if any(size is None for product in products for size in product.x.shape[:-1]):
        return False
    rows = sum(math.prod(product.x.shape[:-1]) for product in products)
    n, m = products[0].kernel.shape
    # Factors take `rows^2 (n + k m) + k^2 rows m` multiplications, in float64, where each takes
    # twice as long; gradients take `k rows n m`.
    return bool(0 < 2 * (rows * (n + k * m) + k * k * m) < k * n * m)
