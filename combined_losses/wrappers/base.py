"""The base of every wrapper: one child, seen through a changed batch."""

import functools
from typing import Any, Self

from combined_losses._core.alignment import align, of_rank
from combined_losses._core.arguments import as_child, component_name
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_single, check_single_weight, check_target
from combined_losses._core.compound import LossAsNode, as_node, has_channels, layout_of
from combined_losses._core.config import construct, signature_config
from combined_losses._core.data_format import (
    Format,
    as_given,
    formats_in,
    telling,
    with_channels_last,
)
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import CompositeReduction, KerasLoss, LossLike
from combined_losses._core.layouts import PredictionsApart
from combined_losses._core.node import Node
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._core.short_call import short_loss
from combined_losses._numerics.arrays import Dtype, Tensor

__all__ = ["Wrapper"]


class Wrapper(LossAsNode):
    """A loss that gives its child another view of the data (abstract).

    A subclass implements `see(batch, label)`, which returns the batch that the child is given,
    with its sample weights and its mask. A wrapper has the operators `+`, `*` and `/`, and its
    config holds every argument of `__init__`. If the parts of its child have names, the wrapper
    reports them under the same names.

    Args:
        loss: a `keras.losses.Loss`, a string that `keras.losses.get` knows, or a function
            `f(y_true, y_pred)`.
        reduction: `"per_component"` (default): the child's own; or one of Keras's.
        name: a string, default the name of the child.
        dtype: default the dtype of the child.

    Some wrappers have to know which axis holds the channels, and take one more argument,
    `data_format`: `"channels_last"`, or `"channels_first"` for arrays `(batch, channels,
    spatial...)`. None (default): the format of the losses inside, or else Keras's setting, but only
    for predictions of rank 4 or more. A format that differs from that of a loss inside is an error.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> class Doubled(cl.wrappers.Wrapper):
    ...     def see(self, batch, label):
    ...         return batch.replaced(y_true=2 * batch.y_true, y_pred=2 * batch.y_pred)
    >>> float(Doubled("mae")(np.ones((3, 1)), np.zeros((3, 1))))
    2.0
    """

    def __init__(
        self,
        loss: LossLike,
        reduction: CompositeReduction = PER_COMPONENT,
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        child = as_child(loss, type(self).__name__, None)
        own = child.reduction if reduction == PER_COMPONENT else reduction
        super().__init__(
            name=name or component_name(child)[0], reduction=own, dtype=dtype or child.dtype
        )
        self.name_is_given: bool = name is not None
        self._node = as_node(self.name, child)

    def __repr__(self) -> str:
        return short_loss(self, self.name_is_given, self._node.loss_itself())

    @property
    def loss(self) -> Any:  # of a `PerChannel` it may be a list or dict of losses
        """The loss inside. It cannot be replaced, because names and variables come from it."""
        return self._wrapped()

    @loss.setter
    def loss(self, loss: LossLike) -> None:
        raise AttributeError(
            f"The `loss` of {type(self).__name__} ('{self.name}') is fixed when it is made; make "
            f"another {type(self).__name__} for another loss. Received: loss={loss!r}"
        )

    # True: `see` is given the channels last, even if the `data_format` of the wrapper or of a loss
    # inside is "channels_first". False: `see` is given the data as they are.
    sees_channels_last = False

    def _wrapped(self) -> Any:
        return self._node.loss_itself()

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(self._node, "")]

    @property
    def component_names(self) -> tuple[str, ...]:
        return self._node.component_names

    @property
    def part_parents(self) -> dict[str, str | None]:
        same = self._node.component_names == self.component_names
        return self._node.part_parents if same else super().part_parents

    @property
    def part_weights(self) -> dict[str, float | None]:
        return self._node.part_weights if self.is_view else super().part_weights

    @property
    def chooses_outputs(self) -> bool:
        return self._node.chooses_outputs

    def innermost_loss(self) -> KerasLoss:
        return self._node.innermost_loss() if self.is_view else self

    @property
    def is_view(self) -> bool:
        """Whether it only changes what the child is given, so that its values are the child's."""
        return type(self).evaluate is Wrapper.evaluate

    def see(self, batch: Batch, label: str) -> Batch:
        """The batch that the child is given; `label` names the component in messages."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `see(batch, label)`, which returns the batch "
            f"that the loss inside sees. Received: no such method for component '{label}'"
        )

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        label = label or self.name
        chosen = self.choose_output(batch, label)
        inside = self._batch_inside(chosen, label)
        found = self._node.evaluate(inside, self._imposed(reduction), label)
        return self._over_rows_of(chosen, batch, found)

    @staticmethod
    def _over_rows_of(chosen: Batch, batch: Batch, found: Evaluation) -> Evaluation:
        """`found` says over which rows it is a mean, where `choose_output` has chosen an output.

        That output may have other rows than the batch, which has those of the first one.
        """
        return found if chosen is batch else found.over_rows(chosen.count)

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        if not self.is_view:
            return None
        return self._node.unreduced(self._batch_inside(batch, label), imposed, label)

    def _batch_inside(self, batch: Batch, label: str) -> Batch:
        """What `see` returns for this batch, checked."""
        batch = self.arranged(batch)
        with telling(batch):
            inside = self.see(batch.of_floats(self.dtype), label)
        if not isinstance(inside, Batch):
            raise TypeError(
                f"`see` of {type(self).__name__} (component '{label}') must return a batch, for "
                "example batch.replaced(y_true=..., y_pred=...). "
                f"Received: an object of type {type(inside).__name__}"
            )
        return inside

    def arranged(self, batch: Batch) -> Batch:
        """The batch with the channels where `see` expects them; see `sees_channels_last`."""
        if self.sees_channels_last:
            return self._with_channels_last(batch)
        return as_given(batch, for_view=True)

    def _with_channels_last(self, batch: Batch) -> Batch:
        return with_channels_last(batch, self._formats)

    @functools.cached_property
    def _formats(self) -> list[Format]:
        return formats_in(self)

    @functools.cached_property
    def _layout(self) -> str | None:
        return layout_of(self)

    def _predictions_apart(self, batch: Batch, label: str) -> PredictionsApart | None:
        """The batch as `PredictionsApart` if each target has several predictions; else None."""
        if self._layout is None or batch.y_true is None:
            return None
        return PredictionsApart(batch, self._layout, label)

    def one_array(self, batch: Batch, label: str) -> Batch:
        """The batch with a target and a prediction of one rank; raises if there are several."""
        if self.needs_target:
            check_target(label, batch.y_true)
        if not self.reads_target:
            batch = batch.replaced(y_true=None)
        check_single(label, batch.y_true, batch.y_pred)
        check_single_weight(label, batch.sample_weight)
        batch = self._with_channels_last(batch.of_floats(self.dtype))
        y_true, y_pred = align(batch.y_true, batch.y_pred, has_channels(self))
        batch = batch.view(
            weights=lambda _, weight: of_rank(weight, y_pred), y_true=y_true, y_pred=y_pred
        )
        return self.arranged(batch)

    def choose_output(self, batch: Batch, label: str) -> Batch:
        """The batch of the output that a loss inside reads.

        The output is chosen first: a view needs the arrays of one output.
        """
        if not self.chooses_outputs or batch.output_is_chosen:
            return batch
        if self._node.chooses_outputs:
            return self._node.choose_output(batch, label)
        return super().choose_output(batch, label)

    def _imposed(self, reduction: str | None) -> str | None:
        """The reduction imposed on the child; `PER_COMPONENT` leaves the child its own."""
        self._check_reduction()
        if reduction != PER_COMPONENT or self.reduction == self.loss.reduction:
            return reduction
        return self.reduction or "none"

    def get_config(self) -> dict[str, Any]:
        return signature_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return construct(cls, config)
