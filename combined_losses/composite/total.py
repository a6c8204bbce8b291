"""How a composite computes: its components, and their weighted sum."""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core import names
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation, rows_of_parts, split
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.leaf import Leaf
from combined_losses._core.masks import read_mask
from combined_losses._core.names import quoted
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS_OF_COMPOUNDS
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses._numerics.floats import in_dtype
from combined_losses.composite import gradients, reading, skipping
from combined_losses.composite.arguments import as_weights, check_moving
from combined_losses.composite.settable import SettableWeights
from combined_losses.composite.weights import Weight
from combined_losses.weightings.base import Weighting


class WeightedSum(SettableWeights):
    """The node of a `CompositeLoss`: evaluates its components, and their weighted sum.

    Args:
        owner: the `CompositeLoss` whose node it is.
        losses: the components, by name.
        weights: the argument `weights` of the `CompositeLoss`.
        weighting: the rule that moves the weights, or None.
        on_nonfinite: `"propagate"` or `"skip"`, see `CompositeLoss`.
    """

    def __init__(
        self,
        owner: KerasLoss,
        losses: Mapping[str, KerasLoss],
        weights: Mapping[str, Weight] | Sequence[Weight] | None,
        weighting: Weighting | None,
        on_nonfinite: Literal["propagate", "skip"],
    ) -> None:
        super().__init__(owner, losses, weighting, on_nonfinite)
        names.check_log_keys(self.component_names, self.name)
        check_moving(self, weighting)
        reading.check_parts(self, weighting)
        self.set_on_nonfinite(on_nonfinite)
        self._share_softmax()
        self._make_weights(as_weights(weights, self.names, self.name))

    def _share_softmax(self) -> None:
        """Components that take a softmax of the same logits have it computed once."""
        nodes = [node for node in self.nodes.values() if isinstance(node, Leaf)]
        alike = [leaf for leaf in nodes if leaf.traits.softmax and leaf.may_share]
        for leaf in alike:
            leaf.shares = len(alike) > 1

    def set_on_nonfinite(self, mode: Literal["propagate", "skip"]) -> None:
        """Called by the `CompositeLoss`; raises if a component cannot be skipped."""
        if mode == "skip":
            skipping.check_parts(self, self.nodes)
        self.on_nonfinite = mode

    @property
    def skips(self) -> bool:
        """Whether this composite, or one inside, leaves components that are not finite out."""
        return self.on_nonfinite == "skip" or super().skips

    @property
    def skipped_keys(self) -> list[tuple[str, ...]]:
        own = [tuple(map(names.skipped_key, self.names))] if self.on_nonfinite == "skip" else []
        return [*own, *super().skipped_keys]

    def check_skips(self, model: keras.Model) -> None:
        """Called by the mixin: raises if a component reads the model past the predictions."""
        if self.on_nonfinite == "skip":
            skipping.check_readers(self, self.nodes, model)

    @property
    def extra_keys(self) -> tuple[str, ...]:
        own = [names.weight_key(name) for name in self.own_weights.moving_names]
        own += ["weighting_loss"] if self.own_weights.has_term else []
        own += ["base_loss"] if self.own_weights.moves else []
        own += ["min_cosine"] if self.own_weights.logs_conflict else []
        own += map(names.skipped_key, self.names if self.on_nonfinite == "skip" else ())
        return (*super().extra_keys, *own)

    def warn_of_places(self) -> None:
        if self.weighting is not None and self.weighting.reads_gradients:
            reading.warn_of_places([(self, self.weighting)])

    def components(self, batch: Batch) -> dict[str, Tensor]:
        """The value of each component and part, by name."""
        if self.takes_one_output and not keras.tree.is_nested(batch.y_pred):
            return self._components_of_one(batch.replaced(is_one_output=True))
        values = split(self.evaluate(batch).values, self._reduces)
        return dict(zip(self.component_names, values, strict=True))

    @property
    def _reduces(self) -> bool:
        """Whether a component has one value for the batch, not one for each sample."""
        return self.reduction not in ("none", None)

    def _components_of_one(self, batch: Batch) -> dict[str, Tensor]:
        """The values of the components for which one output of several is enough."""
        reduction = self._reduction_of_parts(PER_COMPONENT)
        found: dict[str, Tensor] = {}
        for name, node in self.nodes.items():
            if node.chooses_outputs and not node.takes_one_output:
                continue
            evaluation = self._evaluate_part(name, None, reduction, None, batch)
            values = [ops.cast(evaluation.total, self.dtype), *evaluation.values]
            keys = (name, *(f"{name}/{part}" for part in node.component_names))
            found.update(zip(keys, split(values, self._reduces), strict=True))
        return {name: value for name, value in found.items() if value is not None}

    def value_of(self, name: str, batch: Batch) -> Tensor:
        """The value of one component, or of one part of a nested one (`outer/inner`)."""
        if name not in self.component_names:
            raise ValueError(
                f"'{self.name}' has no component of this name; it has "
                f"{quoted(self.component_names)}. Received: {name!r}"
            )
        if self.takes_one_output and not keras.tree.is_nested(batch.y_pred):
            found = self._components_of_one(batch.replaced(is_one_output=True))
            if name in found:
                return found[name]
            raise ValueError(
                f"Component '{name}' reads another output than the finest: give a dict of outputs. "
                f"Received: y_pred of shape {tuple(batch.y_pred.shape)}"
            )
        outer, _, inner = name.partition("/")
        node = self.nodes[outer]
        evaluation = node.evaluate(batch, self._reduction_of_parts(PER_COMPONENT), outer)
        if not inner:
            return evaluation.total
        values = split(evaluation.values, self._reduces)
        return values[node.component_names.index(inner)]

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        step_weights = self._step_weights(batch)
        asks_presence = batch.asks_presence  # a rule around this composite does
        if self.weighting is not None:
            batch = batch.replaced(asks_presence=True)
        skips, dtype = self.on_nonfinite == "skip", self._owner.dtype
        if skips and skipping.is_active(batch):
            batch = batch.replaced(may_be_skipped=True)
        reduction = self._reduction_of_parts(reduction)
        evaluations, measured = self._evaluations(batch, step_weights, reduction, label)
        shares: list[Tensor] = []
        if skips:
            evaluations, step_weights, shares = self._skip(evaluations, step_weights, batch)
        totals = in_dtype([found.total for found in evaluations], dtype)
        values: list[Tensor] = []
        extras: list[Tensor] = []
        present: list[Tensor | None] = []
        has_rows = False
        for total, found in zip(totals, evaluations, strict=True):
            values.extend([total, *found.values])
            present.append(found.present)
            extras.extend(found.extras)
            has_rows = has_rows or bool(found.rows)
        # Only at top level and without learned weights does the total get the gradient of the rule:
        # a nested composite would lose its outer factors, learned weights their own gradient.
        replaces_gradient = label is None and measured is not None and not super().learned_variables
        total, logged = self.own_weights.total(
            totals,
            present,
            step_weights,
            batch,
            name=self._owner.name,
            measured=measured,
            replaces_gradient=replaces_gradient,
        )
        is_present = None
        if asks_presence:
            is_present = any_present(batch, present, self._weights_that_may_be_0(step_weights))
        rows = rows_of_parts(evaluations) if has_rows else ()
        return Evaluation(total, tuple(values), (*extras, *logged, *shares), is_present, rows)

    def evaluate_part(self, name: str, batch: Batch, reduction: str) -> Evaluation:
        """The `Evaluation` of one component alone, for a composite that is not nested."""
        return self._evaluate_part(name, None, reduction, None, batch)

    def _skip(
        self, evaluations: list[Evaluation], step_weights: Tensor | None, batch: Batch
    ) -> tuple[list[Evaluation], Tensor | None, list[Tensor]]:
        """Puts zeros in place of components that are not finite, and of their weights.

        The third result is what is logged of them.
        """
        evaluations, are_finite, shares = skipping.skipped(evaluations, batch, self.dtype)
        if are_finite is not None and step_weights is not None:
            step_weights = ops.where(are_finite, step_weights, ops.zeros_like(step_weights))
        return evaluations, step_weights, [shares]

    def _step_weights(self, batch: Batch) -> Tensor | None:
        """c in this step, `(k,)`; None where the fixed weights are constants of the step.

        Until the first `set_weight` the weights are constants in the steps of a tracked model, so
        that compilers fold them into the losses; `set_weight` then compiles the steps anew, once.
        In a step on JAX that does not thread the variables they are always constants, and every
        change of a weight compiles it anew. Where nothing is compiled they are read at every call,
        as numbers, which is faster than as a variable.
        """
        if batch.is_unthreaded:
            self._check_unthreaded()
        own = self.own_weights
        unchanged = batch.weights_are_constants and (not own.changed or batch.is_unthreaded)
        if not own.moves and (unchanged or backend.is_eager([own.variable])):
            return None
        return own.of_this_step()

    def _evaluations(
        self, batch: Batch, step_weights: Tensor | None, reduction: str | None, label: str | None
    ) -> tuple[list[Evaluation], gradients.MeasuredGradients | None]:
        """The `Evaluation` of each component, and their gradients where the rule reads them."""
        if not self.own_weights.reads_gradients:
            found = []
            for index, name in enumerate(self.nodes):
                weight = self._weight_to_check(step_weights, index, name)
                found.append(self._evaluate_part(name, weight, reduction, label, batch))
            return found, None
        parts = [
            functools.partial(
                self._evaluate_part,
                name,
                self._weight_to_check(step_weights, index, name),
                reduction,
                label,
            )
            for index, name in enumerate(self.nodes)
        ]
        found, measured = gradients.evaluate(
            self.weighting, batch, parts, self.name, self.variables_that_move_inside
        )
        if measured is not None:
            products = measured.products._replace(bypassing=self._bypassing)
            measured = measured._replace(products=products)
        return found, measured

    def _weight_to_check(self, step_weights: Tensor | None, index: int, name: str) -> Tensor | None:
        """The c of a component that may be 0; None for a constant, and for all that never were 0.

        An entry of a tensor is an operation of its own, so only these are read.
        """
        if step_weights is None or name not in self.ever_switched_off:
            return None
        return step_weights[index]

    def _weights_that_may_be_0(self, step_weights: Tensor | None) -> list[Tensor | None]:
        """The c in this step of each component whose c may be 0, also when the step is run again.

        None for the others: the step is compiled anew when one of these gets weight 0.
        """
        weights = step_weights
        if weights is None:
            weights = list(self.own_weights.fixed.values())
        return [
            weights[index] if name in self.ever_switched_off else None
            for index, name in enumerate(self.names)
        ]

    @functools.cached_property
    def _bypassing(self) -> Tensor | None:
        return reading.bypassing(self)

    def _check_unthreaded(self) -> None:
        """Notes that this step holds the weights as constants; raises if they would have to move.

        On JAX a step that reads variables outside of Keras's scope reads them in its trace alone.
        """
        self.held_as_constants = True
        if self.own_weights.moves:
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
        """The `Evaluation` of one component; `weight` is that of `_weight_to_check`."""
        node = self.nodes[name]
        path = f"{label}/{name}" if label else name
        if self.chooses_outputs and not node.chooses_outputs and isinstance(batch.y_pred, dict):
            batch = self._with_only_output(batch, path)
        if name in self.ever_switched_off:
            batch = self._without_gradient_at_weight_0(batch, name, weight)
        if self.on_nonfinite == "skip" and skipping.is_active(batch):
            batch = skipping.cut_gradient(batch)
        return node.evaluate(batch, reduction, path)

    def _with_only_output(self, batch: Batch, path: str) -> Batch:
        """The batch of the model's only output, for a component that does not choose its output.

        Other components of this composite choose theirs, so that the predictions come as a dict.
        """
        if len(batch.y_pred) > 1:
            raise ValueError(
                f"Component '{path}' must say what it reads, because others of '{self.name}' do: "
                "wrap it in cl.wrappers.OnOutput(loss, output). The outputs are "
                f"{quoted(batch.y_pred)}. Received: a loss without an output"
            )
        y_pred = next(iter(batch.y_pred.values()))
        y_true, weight = _only_entry(batch.y_true), _only_entry(batch.sample_weight)
        return batch.replaced(
            y_true=y_true, y_pred=y_pred, sample_weight=weight, mask=read_mask(y_pred)
        )

    def _reduction_of_parts(self, imposed: str | None) -> str | None:
        """The reduction of the components: the one imposed from outside, or this composite's."""
        own = self._owner.reduction
        if own not in REDUCTIONS_OF_COMPOUNDS:
            self._check_reduction()
        return own or "none" if imposed == PER_COMPONENT else imposed

    def _without_gradient_at_weight_0(
        self, batch: Batch, name: str, weight: Tensor | None
    ) -> Batch:
        """The batch, with predictions that pass on no gradient while a component has weight 0.

        The gradient of a NaN is NaN even when it is multiplied by 0, so it must be stopped at
        `y_pred`. Where `weight` is a tensor (None: a constant) that costs one pass over `y_pred`,
        so only a component that has ever had weight 0 pays for it; `set_weight(name, 0)` compiles
        the step anew the first time.
        """
        if weight is None:
            constant = self.own_weights.fixed[name]
            return batch if constant else batch.map_predictions(ops.stop_gradient)
        is_off = ops.equal(weight, 0.0)
        return batch.map_predictions(lambda p: ops.where(is_off, ops.stop_gradient(p), p))


def _only_entry(values: ArrayLike) -> ArrayLike:
    """The entry of a dict that has one; anything else as it is."""
    has_one = isinstance(values, dict) and len(values) == 1
    return next(iter(values.values())) if has_one else values
