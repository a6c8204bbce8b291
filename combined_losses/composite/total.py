"""How a composite computes: its components, and their weighted sum."""

import functools
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from combined_losses._core import names
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation, split
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.masks import read_mask
from combined_losses._core.names import quoted
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS_OF_COMPOUNDS
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.composite import gradients, reading, skipping
from combined_losses.composite.arguments import as_weights, check_moving
from combined_losses.composite.settable import SettableWeights
from combined_losses.weightings.base import Weighting


class WeightedSum(SettableWeights):
    """The node of a `CompositeLoss`: evaluates its components, and their weighted sum.

    Args:
        owner: the `CompositeLoss` whose node it is.
        losses: the components, by name.
        weights: what the user gave as `weights`.
        weighting: the rule that moves the weights, or None.
        on_nonfinite: what becomes of components that are not finite.
    """

    def __init__(
        self,
        owner: KerasLoss,
        losses: Mapping[str, KerasLoss],
        weights: Any,
        weighting: Weighting | None,
        on_nonfinite: str,
    ) -> None:
        super().__init__(owner, losses, weighting, on_nonfinite)
        names.check_log_keys(self.component_names, self.name)
        check_moving(self, weighting)
        reading.check_parts(self, weighting)
        if on_nonfinite == "skip":
            skipping.check_parts(self, self.nodes)
        self._set_weights(as_weights(weights, self.names, self.name))

    @property
    def skips(self) -> bool:
        """Whether a component that is not finite is left out of a step, here or inside."""
        return self.on_nonfinite == "skip" or super().skips

    @property
    def skipped_keys(self) -> list[tuple[str, ...]]:
        own = [tuple(map(names.skipped_key, self.names))] if self.on_nonfinite == "skip" else []
        return [*own, *super().skipped_keys]

    def check_skips(self, model: keras.Model) -> None:
        """Called by the mixin: raises where what is skipped could not be cut off."""
        if self.on_nonfinite == "skip":
            skipping.check_readers(self, self.nodes, model)

    @property
    def extra_keys(self) -> tuple[str, ...]:
        own = [names.weight_key(name) for name in self.own_weights.moving_names]
        own += ["weighting_loss"] if self.own_weights.has_term else []
        own += ["base_loss"] if self.own_weights.move else []
        own += ["min_cosine"] if self.own_weights.logs_conflict else []
        own += map(names.skipped_key, self.names if self.on_nonfinite == "skip" else ())
        return (*super().extra_keys, *own)

    def warn_of_places(self) -> None:
        if self.own_weights.reads_gradients:
            reading.warn_of_places([(self, self.weighting)])

    def components(self, batch: Batch) -> dict[str, Tensor]:
        """The value of each component and part, by name."""
        if self.takes_one_output and not keras.tree.is_nested(batch.y_pred):
            return self._components_of_one(batch.replaced(is_one_output=True))
        reduced = self.reduction not in ("none", None)
        values = split(self.evaluate(batch).values, reduced)
        return dict(zip(self.component_names, values, strict=True))

    def _components_of_one(self, batch: Batch) -> dict[str, Tensor]:
        """The values of the components that one output of several is enough for."""
        reduction, found = self._imposed(PER_COMPONENT), {}
        for name, node in self.nodes.items():
            if node.routes and not node.takes_one_output:
                continue
            evaluation = self._evaluate_part(name, None, reduction, None, batch)
            values = [ops.cast(evaluation.total, self.dtype), *evaluation.values]
            parts = split(values, self.reduction not in ("none", None))
            keys = (name, *(f"{name}/{part}" for part in node.component_names))
            found.update(zip(keys, parts, strict=True))
        return {name: value for name, value in found.items() if value is not None}

    def value_of(self, name: str, batch: Batch) -> Tensor:
        """The value of one component, or of a part of a nested one, alone."""
        outer, _, inner = name.partition("/")
        node = self.nodes[outer]
        evaluation = node.evaluate(batch, self._imposed(PER_COMPONENT), outer)
        if not inner:
            return evaluation.total
        reduced = self.reduction not in ("none", None)
        return split(evaluation.values, reduced)[node.component_names.index(inner)]

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        now = self._weights_now(batch)
        is_asked = batch.asks_presence  # by what is around it
        if self.weighting is not None:
            batch = batch.replaced(asks_presence=True)
        skips, dtype = self.on_nonfinite == "skip", self._owner.dtype
        if skips and skipping.is_active(batch):
            batch = batch.replaced(may_be_skipped=True)
        evaluations, taken = self._evaluations(batch, now, self._imposed(reduction), label)
        if skips:
            evaluations, sound, shares = skipping.skipped(evaluations, batch, dtype)
            if sound is not None and now is not None:
                now = ops.where(sound, now, ops.zeros_like(now))
        totals, values, present, extras = [], [], [], []
        for found in evaluations:
            totals.append(ops.cast(found.total, dtype))
            values.extend([totals[-1], *found.values])
            present.append(found.present)
            extras.extend(found.extras)
        # Only at top level and without learned weights does the total get the gradient of the rule:
        # a nested composite would lose its outer factors, learned weights their own gradient.
        replace = taken is not None and label is None and not super().learned_variables
        total, own = self.own_weights.total(
            totals, present, now, batch, self._owner.name, taken, replace
        )
        extras.extend([*own, shares] if skips else own)
        counts = None
        if is_asked:
            counts = any_present(batch, present, self._weights_that_may_be_0(now))
        return Evaluation(total, tuple(values), tuple(extras), counts)

    def _weights_now(self, batch: Batch) -> Tensor | None:
        """c of this step, `(k,)`; None where the fixed weights are constants of the step.

        Until the first `set_weight` the steps of a tracked model have the weights as constants, so
        that compilers fold them into the losses; that call compiles the steps anew, once. So have
        steps on JAX that do not thread the variables, until each change of a weight.
        """
        if batch.is_unthreaded:
            self._check_unthreaded()
        unchanged = not self.own_weights.changed or batch.is_unthreaded
        if batch.weights_are_constants and unchanged and not self.own_weights.move:
            return None
        return self.own_weights.now()

    def _evaluations(
        self, batch: Batch, now: Tensor | None, reduction: str | None, label: str | None
    ) -> tuple[list[Evaluation], gradients.Taken | None]:
        """The `Evaluation` of each component, and what is `Taken` of their gradients."""
        constant = now is None
        if not self.own_weights.reads_gradients:
            found = []
            for index, name in enumerate(self.nodes):
                weight = None if constant else now[index]
                found.append(self._evaluate_part(name, weight, reduction, label, batch))
            return found, None
        parts = [
            functools.partial(
                self._evaluate_part, name, None if constant else now[index], reduction, label
            )
            for index, name in enumerate(self.nodes)
        ]
        moving = self.variables_that_move_inside
        found, taken = gradients.evaluate(self.weighting, batch, parts, self.name, moving)
        if taken is not None:
            taken = taken._replace(products=taken.products._replace(beside=self._acts_beside))
        return found, taken

    def _weights_that_may_be_0(self, now: Tensor | None) -> list[Tensor | None]:
        """c of this step, of a trace too, of each component that has ever had weight 0, else None.

        Others may get weight 0, but then the step is compiled anew.
        """
        fixed = list(self.own_weights.fixed.values()) if now is None else now
        return [
            fixed[index] if name in self.switched_off else None
            for index, name in enumerate(self.names)
        ]

    @functools.cached_property
    def _acts_beside(self) -> Any:
        return reading.acts_beside(self)

    def _check_unthreaded(self) -> None:
        """A step that reads weights outside of Keras's scope holds them as constants."""
        self.held_as_constants = True
        if self.own_weights.move:
            raise ValueError(
                f"'{self.name}' has weights that move, and this `train_step` does not thread their "
                "variables through the loss: on JAX call `self.stateless_compute_loss(...)` in it, "
                "not `self.compute_loss(...)`. Received: a call of compute_loss in a trace"
            )

    def _evaluate_part(
        self,
        name: str,
        weight: Tensor | None,
        reduction: str | None,
        label: str | None,
        batch: Batch,
    ) -> Evaluation:
        """The `Evaluation` of one component; `weight` is its c, or None for a constant."""
        node = self.nodes[name]
        path = f"{label}/{name}" if label else name
        if self.routes and not node.routes and isinstance(batch.y_pred, dict):
            batch = self._only_output(batch, path)
        if name in self.switched_off:
            batch = self._guarded(batch, name, weight)
        if self.on_nonfinite == "skip" and skipping.is_active(batch):
            batch = skipping.cut_gradient(batch)
        return node.evaluate(batch, reduction, path)

    def _only_output(self, batch: Batch, path: str) -> Batch:
        """Where others choose their outputs, a component that does not sees the only one."""
        if len(batch.y_pred) > 1:
            raise ValueError(
                f"Component '{path}' must say what it reads, because others of '{self.name}' do: "
                "wrap it in cl.wrappers.OnOutput(loss, output). The outputs are "
                f"{quoted(batch.y_pred)}. Received: a loss without an output"
            )
        y_pred = next(iter(batch.y_pred.values()))
        y_true, weight = _only(batch.y_true), _only(batch.sample_weight)
        return batch.replaced(
            y_true=y_true, y_pred=y_pred, sample_weight=weight, mask=read_mask(y_pred)
        )

    def _imposed(self, reduction: str | None) -> str | None:
        """What the components are reduced by: what is imposed from outside, or this one's own."""
        own = self._owner.reduction
        if own not in REDUCTIONS_OF_COMPOUNDS:
            self._check_reduction()
        return own or "none" if reduction == PER_COMPONENT else reduction

    def _guarded(self, batch: Batch, name: str, weight: Tensor | None) -> Batch:
        """The batch, without a way for the gradient of a component while its weight is 0.

        The gradient of a NaN is NaN also after a product with 0, so it has to be cut off at
        `y_pred`. Where the weight is a tensor (None: a constant) that costs one pass over
        `y_pred`, so only a component that has had weight 0 pays it; `set_weight(name, 0)` compiles
        the step anew the first time.
        """
        if weight is None:
            constant = self.own_weights.fixed[name]
            return batch if constant else batch.map_predictions(ops.stop_gradient)
        off = ops.equal(weight, 0.0)
        return batch.map_predictions(lambda p: ops.where(off, ops.stop_gradient(p), p))


def _only(values: ArrayLike) -> ArrayLike:
    """The entry of a dict of one."""
    alone = isinstance(values, dict) and len(values) == 1
    return next(iter(values.values())) if alone else values
