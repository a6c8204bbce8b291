"""`CompositeLoss`: a sum of named losses as one `keras.losses.Loss`."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import keras

from combined_losses._backend import backend
from combined_losses._core.batch import Batch
from combined_losses._core.compound_loss import CompoundLoss
from combined_losses._core.keras_types import CompositeReduction, KerasLoss, LossLike
from combined_losses._core.ranks import check_ranks, whole
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor
from combined_losses.composite import files, shown, skipping
from combined_losses.composite.arguments import Losses, as_children, resolved_reduction
from combined_losses.composite.metric import ComponentMetric
from combined_losses.composite.total import WeightedSum
from combined_losses.composite.weights import Weight, check_rule
from combined_losses.weightings.base import Weighting


@keras.saving.register_keras_serializable("combined_losses")
class CompositeLoss(CompoundLoss):
    """A weighted sum of named losses that trains, reports and saves as one loss.

    `total = sum_i weights_i * component_i`. Compile it in `cl.Model`, `cl.Sequential` or a model
    from `cl.track`, and every component becomes a metric, `<name>_loss`, from the same pass; in a
    plain `keras.Model` it trains alike, and `as_metrics()` reports the parts.

    Args:
        losses: the components, a dict from name to loss, or a list. A component is a
            `keras.losses.Loss`, a string that `keras.losses.get` knows, or a function
            `f(y_true, y_pred)`. In a list, a string is its own name, a function has its `__name__`,
            and a loss its class in snake case unless it was named; a second one gets `_2`. The
            parts of a nested `CompositeLoss` are reported as `outer/inner`.
        weights: a dict from name to weight (1.0 for a name that it lacks), a list with one weight
            for each component, or None: all 1.0. A weight is a finite number, see `set_weight`, or
            a `keras.optimizers.schedules.LearningRateSchedule`, a function of the step of training.
            Where weights move, `base_loss` in the logs is the sum with the fixed weights. There a
            schedule counts with its `final_weight`, or else with its weight at step 2**30.
        weighting: None, or a rule from `cl.weightings` that moves the weights in training. The
            weights of the rule are multiplied by `weights`.
        reduction: `"per_component"` (default): every component is reduced as it would be alone,
            with its own `reduction`. One of Keras's (`"sum_over_batch_size"`, `"sum"`, `"mean"`,
            `"mean_with_sample_weight"`): imposed on every component, after sample weights and
            mask. `"none"` or None: one total for each sample, `(batch,)`, for custom loops. With
            `gradient_accumulation_steps` Keras gives each batch the same weight, whatever its
            number of samples, its mask or the sum of its sample weights.
        on_nonfinite: what becomes of a component that is NaN or infinite in a step. `"propagate"`
            (default): the total is, too. `"skip"`: the component is left out of that step.
        name: a string, default `"composite_loss"`.
        dtype: the dtype of the total, default `keras.config.floatx()`, or float64 where all
            components have that. Components keep their own.

    A composite of one component gives what that component gives alone, also with sample weights and
    masks. What becomes of rows of weight 0 and of what is not finite: see docs/composite_loss.md.

    Raises:
        ValueError: on no components, a name that is reserved, duplicate or holds one of
            `/ . [ ] { }`, a weight for an unknown name or that no float32 can hold, an unknown loss
            or reduction, what is no loss (a metric, a layer). When called: on targets that would be
            broadcast, on values that do not begin with the batch axis, on sample weights with more
            axes than the values. In training: on predictions that are whole numbers.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(
    ...     {"mse": "mse", "under": cl.losses.UnderestimationPenalty(weight=1.0)},
    ...     weights={"under": 2.0},
    ... )
    >>> y_true, y_pred = np.array([[3.0], [3.0]]), np.array([[1.0], [5.0]])
    >>> float(loss(y_true, y_pred))
    6.0
    >>> {name: float(value) for name, value in loss.components(y_true, y_pred).items()}
    {'mse': 4.0, 'under': 1.0}
    """

    def __init__(
        self,
        losses: Mapping[str, LossLike] | Sequence[LossLike],
        weights: Mapping[str, Weight] | Sequence[Weight] | None = None,
        weighting: Weighting | None = None,
        reduction: CompositeReduction = PER_COMPONENT,
        name: str | None = "composite_loss",
        dtype: Dtype = None,
        on_nonfinite: Literal["propagate", "skip"] = "propagate",
    ) -> None:
        name = name or "composite_loss"
        check_rule(weighting, name)
        skipping.check_mode(on_nonfinite, name)
        parts = as_children(losses, name)
        if dtype is None and all(loss.dtype == "float64" for loss in parts.values()):
            dtype = "float64"  # the total is as exact as its parts
        resolved = resolved_reduction(reduction, parts, name)
        super().__init__(name=name, reduction=resolved, dtype=dtype)
        self._parts = Losses(parts, name)
        self.weighting = weighting
        self._node = WeightedSum(self, parts, weights, weighting, on_nonfinite)

    def _as_node(self) -> WeightedSum:
        return self._node

    def __repr__(self) -> str:
        return shown.on_one_line(self, self.losses)

    def _repr_html_(self) -> str:
        return shown.table(self._node)

    # Names and weights.

    @property
    def losses(self) -> Mapping[str, KerasLoss]:
        """The components, a mapping from name to loss that cannot be changed.

        Weights, variables and log keys are made for these: for others make another composite.
        """
        return self._parts

    @losses.setter
    def losses(self, losses: object) -> None:
        raise AttributeError(
            f"The `losses` of '{self.name}' are fixed when it is made; make another CompositeLoss, "
            f"for example CompositeLoss({{**loss.losses, 'new': ...}}). Received: losses={losses!r}"
        )

    @property
    def on_nonfinite(self) -> Literal["propagate", "skip"]:
        """The argument. After a change, compile the models that train on the composite again."""
        return self._node.on_nonfinite

    @on_nonfinite.setter
    def on_nonfinite(self, mode: Literal["propagate", "skip"]) -> None:
        skipping.check_mode(mode, self.name)
        self._node.set_on_nonfinite(mode)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the components, in order."""
        return self._node.names

    @property
    def component_names(self) -> tuple[str, ...]:
        """The names of the components, each followed by the parts of a nested composite."""
        return self._node.component_names

    @property
    def weights(self) -> dict[str, float]:
        """The current fixed or scheduled weight of each component, a dict from name to float."""
        return self._node.weights

    def set_weight(self, name: str, value: float) -> None:
        """Changes a fixed weight, also between the batches of a running `fit`, on every backend.

        Args:
            name: a component, or a part of a nested composite as `outer/inner`.
            value: a finite number. At 0 the component contributes neither value nor gradient.

        The first change has the models that train on this loss compile their steps anew, once. From
        then on `<name>_weight` is in their logs. A change that another thread makes while `fit`
        runs acts on the next step.

        In a plain `keras.Model` on JAX the compiled step keeps the weight that it was compiled
        with: a change has no effect there, and a warning says so. Train in `cl.track(model)`.

        Raises:
            ValueError: on an unknown name or a weight that is not a finite number.

        Example:

        >>> import combined_losses as cl
        >>> loss = cl.CompositeLoss(["mse", "mae"])
        >>> loss.set_weight("mae", 0.3)
        >>> loss.weights
        {'mse': 1.0, 'mae': 0.3}
        """
        self._node.set_weight(name, value)

    # Weights that move.

    @backend.as_written
    def training_step(self) -> contextlib.AbstractContextManager[None]:
        """A block that is one step of the rules and schedules, in a training loop of your own.

        The first call of the loss in the block moves its weights, and those of composites inside,
        as a step of `fit` does. Further calls in the block, of micro-batches say, see the same
        scheduled weights and move nothing; nor does a call outside of a block. Open one block for
        each step of the optimizer. Rules that read gradients need `gradients="output"`. Where
        weights are learned, give your optimizer `loss.trainable_variables`, too.

        A `tf.function` must hold both the block and the call of the loss. So must the body of a
        compiled loop (`tf.range`, `jax.lax.scan`), each round of which is a step. In `jax.jit`,
        `loss.variables` must be part of the state, see docs/other_models.md.

        Raises:
            ValueError: in the call of the loss, if a rule reads gradients at a layer or at the
                parameters, or if variables are not part of the state of `jax.jit`.

        Example:

        >>> import numpy as np
        >>> import combined_losses as cl
        >>> loss = cl.CompositeLoss(["mse", "mae"], {"mae": cl.weightings.LinearRamp(2)})
        >>> y_true, y_pred = np.array([[2.0]]), np.array([[0.0]])
        >>> for _ in range(3):
        ...     with loss.training_step():
        ...         print(float(loss(y_true, y_pred)))
        4.0
        5.0
        6.0
        """
        return super().training_step()

    def end_epoch(self) -> None:
        """Ends an epoch for rules that count epochs, in a training loop of your own.

        Call it after each epoch of `train_on_batch` or of `training_step`; `fit` does so by itself.
        On JAX, first assign the state of your loop to `loss.variables`.

        Example:

        >>> import combined_losses as cl
        >>> rule = cl.weightings.DynamicWeightAverage()
        >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
        >>> for epoch in range(3):
        ...     for y_true, y_pred in [([[2.0]], [[0.0]]), ([[1.0]], [[0.0]])]:
        ...         with loss.training_step():
        ...             total = loss(y_true, y_pred)
        ...     loss.end_epoch()
        """
        super().end_epoch()

    # Computation.

    def components(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
    ) -> dict[str, Tensor]:
        """Each component's unweighted value, for custom loops.

        Args:
            y_true, y_pred: arrays or tensors `(batch, ...)`.
            sample_weight: None, or weights that match the values from the left, such as `(batch,)`.

        Returns:
            A dict from name to a tensor `()`, or `(batch,)` if the reduction is "none". A nested
            composite is followed by its parts, `outer/inner`. If a component is a
            `cl.wrappers.DeepSupervision` and `y_pred` is one array, this array is its finest
            output, and the dict lacks components that read other outputs.
        """
        check_ranks(self)
        batch = Batch(y_true, y_pred, sample_weight, self.name)
        found = self._node.components(batch.replaced(skips_nothing=True))
        return {name: whole(value) for name, value in found.items()}

    def component(
        self, name: str, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
    ) -> Tensor:
        """The unweighted value of one component (`outer/inner` for a part of a nested one)."""
        check_ranks(self)
        batch = Batch(y_true, y_pred, sample_weight, self.name)
        return whole(self._node.value_of(name, batch.replaced(skips_nothing=True)))

    # For a plain Keras model.

    def as_metrics(self) -> list[ComponentMetric]:
        """Metrics that report every component in a plain `keras.Model`.

        Pass them as `weighted_metrics=loss.as_metrics()`: Keras gives sample weights to no other
        metrics. They compute the components a second time; `cl.track(model)` reports them from the
        same pass instead.

        Returns:
            A list with one `keras.metrics.Metric` for each component, named `<name>_loss`.

        Example:

        >>> import combined_losses as cl
        >>> [metric.name for metric in cl.CompositeLoss(["mse", "mae"]).as_metrics()]
        ['mse_loss', 'mae_loss']
        """
        return [ComponentMetric(self, name) for name in self.component_names]

    # Saving.

    def get_config(self) -> dict[str, Any]:
        weights = self._node.own_weights
        return files.config_of(self, weights.fixed, weights.schedules)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return files.made_of(cls, config)

    def save_own_variables(self, store: Any) -> None:
        """Called by Keras's saver, which walks `model.loss`."""
        self._leave_former_place()
        self._node.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Called by Keras's saver; if the file has no weights, they stay as they are."""
        super().load_own_variables(store)
        self._node.load(store)
