"""A component as a metric of a plain `keras.Model`: `CompositeLoss.as_metrics`."""

from typing import TYPE_CHECKING, Any, Self

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.keras_types import KerasMetric
from combined_losses._core.names import log_key
from combined_losses._numerics.arrays import ArrayLike, Tensor

if TYPE_CHECKING:
    from combined_losses.composite.loss import CompositeLoss


@keras.saving.register_keras_serializable("combined_losses")
class ComponentMetric(KerasMetric):
    """One component of a `CompositeLoss` as a metric of a plain `keras.Model`.

    Args:
        loss: the `CompositeLoss`.
        component: the name of one of its components, `outer/inner` for a part of a nested one.
        name: the key in the logs, default `<component>_loss`.
    """

    def __init__(self, loss: "CompositeLoss", component: str, name: str | None = None) -> None:
        super().__init__(name=name or log_key(component))
        self.loss = loss
        self.component = component
        self.total: Any = self.add_variable((), "zeros", name="total")
        self.count: Any = self.add_variable((), "zeros", name="count")

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
    ) -> None:
        if self.loss._node.skips:
            # 0 for a component that is skipped, as in the logs of a tracked model.
            batch = Batch(y_true, y_pred, sample_weight, self.loss.name)
            value = self.loss._node.components(batch)[self.component]
        else:
            value = self.loss.component(self.component, y_true, y_pred, sample_weight)
        size = ops.cast(ops.shape(keras.tree.flatten(y_pred)[0])[0], self.dtype)
        self.total.assign_add(ops.cast(value, self.dtype) * size)
        self.count.assign_add(size)

    def result(self) -> Tensor:
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {"loss": loss, "component": self.component, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
