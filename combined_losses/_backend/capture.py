"""What the captured steps of the frameworks share."""

import abc
from collections.abc import Sequence
from typing import Any, Protocol, Self

import keras
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._backend.arrays import Rows, Tensor
from combined_losses._backend.factors import Columns, Factors, Product, are_cheaper


class Reader(Protocol):
    """A rule that reads gradients."""

    needs: frozenset[str]

    @property
    def place(self) -> Any:
        """Where: "output", "parameters", or the name of a layer, a string."""


class Capture(abc.ABC):
    """A training step that keeps what is needed for gradients at layers and parameters.

    Args:
        model: the model that makes the step.
    """

    # What the repetition of a step needs, on JAX; a listener in `training/` fills it in.
    call: Any = None  # the state, arguments and keywords of the model's call
    loss: Any = None  # the metrics and keywords of its loss

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._watched: dict[str, list[Tensor]] = {}
        self._products: dict[int, list[Product]] = {}  # by the `id` of the kernel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._watched.clear()
        self._products.clear()

    @abc.abstractmethod
    def watch(self, name: str, tensor: Tensor) -> Tensor:
        """Called with each output of a layer that is watched; returns the output to go on with.

        It adds to `_watched`, under the name of the layer, the point where gradients are taken.
        """

    def watch_product(self, product: Product) -> Tensor:
        """Called with each product of inputs and the kernel of a layer; returns z to go on with."""
        self._products.setdefault(id(product.kernel), []).append(product)
        return product.z

    def _factored(self, rule: Reader, k: int, points: Sequence[Any]) -> dict[int, list[Product]]:
        """The products of kernels whose gradients are better kept as factors, by index of point."""
        if "rows" in rule.needs:  # the sizes of the entries, which factors do not tell
            return {}
        # Copies: on torch rematerialisation calls layers again while gradients are taken.
        found = {i: list(self._products.get(id(point), [])) for i, point in enumerate(points)}
        return {
            index: products
            for index, products in found.items()
            if products and are_cheaper(products, k)
        }

    @abc.abstractmethod
    def rows(
        self, rule: Reader, values: list[Tensor], points: Sequence[Any], scale: Tensor
    ) -> Columns:
        """For each point the k flat gradients of `values`, or their `Factors`.

        Args:
            rule: the rule that reads them.
            values: k scalars.
            points: tensors of `watched`, or variables.
            scale: what `loss_scale` gives. Gradients are multiplied by it on their way, and divided
                by it at the end.
        """

    def watched(self, name: str) -> list[Tensor]:
        """The points that stand for the outputs of a layer in this step."""
        return self._watched.get(name, [])

    def loss_scale(self) -> Tensor:
        """The factor of losses that keeps float16 gradients from vanishing; 1.0 without one."""
        return keras_private.loss_scale(self._model.optimizer)


def is_scaled(scale: Tensor) -> bool:
    """Whether a loss scale changes anything."""
    return not (isinstance(scale, float) and scale == 1.0)


def float32(tensor: Tensor) -> Tensor:
    """A point for gradients, in float32 or more: the gradient of a mean vanishes in float16."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")


def columns(rows: Rows, scale: Tensor = 1.0) -> Columns:
    """Gradients by values as gradients by points: flat, in float32, and divided by `scale`."""
    flat = [[ops.reshape(ops.cast(row, "float32"), (-1,)) for row in each] for each in rows]
    if is_scaled(scale):
        flat = [[row / scale for row in each] for each in flat]
    return [list(column) for column in zip(*flat, strict=True)]


def joined(products: Sequence[Product], slopes: Sequence[Tensor]) -> Factors:
    """The `Factors` of the products of one kernel, of slopes `(k, ..., m)` for each of them."""
    n, m = products[0].kernel.shape
    inputs = [ops.reshape(ops.stop_gradient(product.x), (-1, n)) for product in products]
    flat = [ops.reshape(slope, (slope.shape[0], -1, m)) for slope in slopes]
    if len(products) == 1:
        return Factors(inputs[0], flat[0])
    return Factors(ops.concatenate(inputs), ops.concatenate(flat, axis=1))
