"""What `PerChannel` and `PerElement` share: a component for each part of one array."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, Unpack, get_args

import numpy as np
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.checks import are_finite, as_array, check_equal_shapes, check_size, shown
from combined_losses._core.data_format import telling
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.names import check_log_keys, check_name, quoted
from combined_losses._core.node import Node
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.wrappers.base import Wrapper

Aggregation: TypeAlias = Literal["sum", "mean", "weighted_mean"]
AGGREGATIONS = get_args(Aggregation)

Weights: TypeAlias = np.ndarray[Any, Any] | None
"""The weights of parts, checked; None: all are 1."""


class PerPart(Wrapper):
    """What `PerChannel` and `PerElement` share: named parts with weights, and their sum."""

    _part = "part"  # the word for one part in messages and default names
    _size_may_be_tuple = False

    def __init__(
        self,
        loss: LossLike,
        names: Sequence[str] | None,
        size: int | Sequence[int] | None,
        weights: ArrayLike | Mapping[str, float],
        aggregation: Aggregation,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f"The argument `aggregation` of {type(self).__name__} ('{self.name}') must be one "
                f"of {quoted(AGGREGATIONS, 'or')}. Received: {aggregation!r}"
            )
        self.names = names
        self.size = size
        self.weights = weights
        self.aggregation = aggregation
        self._part_names = self._as_names(names, size)
        self._weights = self._as_weights(weights)

    def _as_names(
        self, names: Sequence[str] | None, size: int | Sequence[int] | None
    ) -> tuple[str, ...]:
        check_size(size, f"{type(self).__name__} ('{self.name}')", self._size_may_be_tuple)
        if names is None:
            shape = () if size is None else np.atleast_1d(size)
            at = np.ndindex(*shape) if size is not None else ()
            return tuple("_".join([self._part, *map(str, index)]) for index in at)
        if not isinstance(names, (list, tuple)):
            raise ValueError(
                f"The argument `names` of {type(self).__name__} ('{self.name}') must be a list of "
                f"strings. Received: {names!r}"
            )
        names = tuple(names)
        for name in names:
            check_name(name, self.name)
        check_log_keys(names, self.name)
        if size is not None and np.prod(size) != len(names):
            raise ValueError(
                f"`names` and `size` of '{self.name}' must agree. Received: {len(names)} names "
                f"and size={size!r}"
            )
        return names

    def _as_weights(self, weights: ArrayLike | Mapping[str, float]) -> Weights:
        """The argument `weights` as an array, checked; None: all are 1."""
        if weights is None:
            return None
        if isinstance(weights, dict):
            if not self._part_names:
                raise ValueError(
                    f"`weights` of '{self.name}' is a dict from name, and it has no names: give "
                    f"`names` too, or a list of weights. Received: {weights!r}"
                )
            unknown = [name for name in weights if name not in self._part_names]
            if unknown:
                raise ValueError(
                    f"`weights` of '{self.name}' must name its parts {list(self._part_names)}. "
                    f"Received: {unknown[0]!r}"
                )
            weights = [weights.get(name, 1.0) for name in self._part_names]
        values = as_array(weights)
        if not are_finite(values):
            raise ValueError(
                f"`weights` of '{self.name}' must be finite numbers, which a float32 can hold. "
                f"Received: {shown(weights)}"
            )
        values = values.astype("float64")
        if self.aggregation == "weighted_mean" and values.sum() == 0:
            raise ValueError(
                f"`weights` of '{self.name}' must not sum to 0, because aggregation is "
                f"'weighted_mean'. Received: {weights!r}"
            )
        return values

    @property
    def component_names(self) -> tuple[str, ...]:
        return self._part_names

    @property
    def part_weights(self) -> dict[str, float | None]:
        count, weights = len(self._part_names), self._factors()
        factors = np.ones(count) if weights is None else weights.reshape(-1)
        if self.aggregation == "mean" or (weights is None and self.aggregation != "sum"):
            factors = factors / max(count, 1)
        elif weights is not None and self.aggregation == "weighted_mean":
            factors = factors / weights.sum()
        # If the number of weights does not fit, the first call raises; this may come before it.
        known = map(float, factors) if len(factors) == count else [None] * count
        return dict(zip(self._part_names, known, strict=True))

    def _factors(self) -> Weights:
        """What multiplies the parts before they are added up; None: nothing."""
        return self._weights

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(self._node, None)]

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label = label or self.name
        chosen = self.choose_output(batch, label)
        found = self._evaluate_chosen(chosen, reduction, label)
        return self._over_rows_of(chosen, batch, found)

    def _evaluate_chosen(self, batch: Batch, reduction: str | None, label: str) -> Evaluation:
        batch = self.one_array(batch, label).with_target()
        with telling(batch):
            view = self._predictions_apart(batch, label)
            if view is None:
                check_equal_shapes(label, batch.y_true, batch.y_pred)
            else:
                batch = view.batch
            parts, weights, present = self._evaluate_parts(batch, reduction, label)
        total = self._total(parts, weights)
        return Evaluation(total, (parts,) if self._part_names else (), present=present)

    def _evaluate_parts(
        self, batch: Batch, reduction: str | None, label: str
    ) -> tuple[Tensor, Weights, Tensor]:
        """The parts, `(parts,)` or `(parts, batch)`, their weights or None, and the presence."""
        raise NotImplementedError

    def _total(self, parts: Tensor, weights: Weights) -> Tensor:
        weighted = parts
        if weights is not None:
            shape = (-1, *([1] * (len(parts.shape) - 1)))
            weighted = parts * ops.cast(weights.reshape(shape), parts.dtype)
        if self.aggregation == "sum":
            return ops.sum(weighted, axis=0)
        if self.aggregation == "mean" or weights is None:
            return ops.mean(weighted, axis=0)
        return ops.sum(weighted, axis=0) / float(weights.sum())

    def _check_count(self, count: int | None, label: str, shape: tuple[Any, ...] | None) -> None:
        if self._part_names and count is not None and count != len(self._part_names):
            raise ValueError(
                f"Component '{label}' has {len(self._part_names)} names for {count} "
                f"{self._part}s; give one for each. Received: y_pred of shape {shape}"
            )

    def _check_weights(self, shape: tuple[Any, ...], label: str, *allowed: tuple[Any, ...]) -> None:
        if self._weights is not None and self._weights.shape not in allowed:
            raise ValueError(
                f"The weights of component '{label}' must be one number for each {self._part} or "
                f"an array of the shape of one sample, {tuple(shape[1:])}. "
                f"Received: weights of shape {self._weights.shape}"
            )
