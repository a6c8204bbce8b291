"""How a composite computes: its components, and their weighted sum."""

import functools
from typing import Any

import keras
from keras import ops

from combined_losses._core import names
from combined_losses._core.compound import Compound
from combined_losses._core.evaluation import Evaluation, split
from combined_losses._core.masks import read_mask
from combined_losses._core.names import quoted
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS
from combined_losses.composite import gradients, reading, skipping

_REDUCTIONS = (PER_COMPONENT, *REDUCTIONS)


class WeightedSum(Compound):
    """A node whose parts are named components with weights (abstract).

    `CompositeLoss` makes `_nodes`, by name, `_weights`, and `_switched_off`: the components that
    have had weight 0, see `_guarded`.
    """

    has_weights = True
    _nodes: Any
    _weights: Any
    _switched_off: Any
    _held_as_constants: Any
    _listeners: Any
    on_nonfinite: Any
    names: Any

    def nodes_inside(self):
        return [(node, f"{name}/") for name, node in self._nodes.items()]

    @functools.cached_property
    def routes(self):
        """Whether a component chooses its outputs, so that the composite sees all of them."""
        return any(node.routes for node in self._nodes.values())

    @functools.cached_property
    def component_names(self):
        """The names of the components, each followed by the parts of a nested composite."""
        flat = []
        for name, node in self._nodes.items():
            flat += [name, *(f"{name}/{inner}" for inner in node.component_names)]
        return tuple(flat)

    @property
    def part_parents(self):
        found = {}
        for name, node in self._nodes.items():
            found[name], inner = None, node.part_parents
            found.update({f"{name}/{n}": f"{name}/{p}" if p else name for n, p in inner.items()})
        return found

    @property
    def part_weights(self):
        found = {}
        for name, node in self._nodes.items():
            found[name] = self._weights.fixed[name]
            found.update({f"{name}/{part}": c for part, c in node.part_weights.items()})
        return found

    @property
    def has_moving_weights(self):
        """Whether its own weights move, beside those of composites inside."""
        return self._weights.move

    @property
    def moves(self):
        return self._weights.move or super().moves

    @property
    def skips(self):
        """Whether a component that is not finite is left out of a step, here or inside."""
        return self.on_nonfinite == "skip" or super().skips

    @property
    def skipped_keys(self):
        own = [tuple(map(names.skipped_key, self.names))] if self.on_nonfinite == "skip" else []
        return [*own, *super().skipped_keys]

    def check_skips(self, model):
        """Called by the mixin: raises where what is skipped could not be cut off."""
        if self.on_nonfinite == "skip":
            skipping.check_readers(self, self._nodes, model)

    @property
    def extra_keys(self):
        own = [names.weight_key(name) for name in self._weights.moving_names]
        own += ["weighting_loss"] if self._weights.has_term else []
        own += ["base_loss"] if self._weights.move else []
        own += ["min_cosine"] if self._weights.logs_conflict else []
        own += map(names.skipped_key, self.names if self.on_nonfinite == "skip" else ())
        return (*super().extra_keys, *own)

    @property
    def learned_variables(self):
        own = [] if self.weighting is None else self.weighting.trainable_variables
        return [*own, *super().learned_variables]

    @property
    def own_variables(self):
        return self._weights.variables

    def warn_of_values(self):
        """Says, once, where its rule had a value that it is not made for."""
        self._weights.warn_of_values(self.name)

    def warn_of_places(self):
        """Says, once, what its rule does not see where it reads gradients."""
        if self._weights.reads_gradients:
            reading.warn_of_places([(self, self.weighting)])

    def end_own_epoch(self):
        """Ends an epoch for its own rule."""
        self._weights.lone_steps = 0
        if self.weighting is not None:
            self._listeners.sync()
            self.weighting.end_epoch()
            self._weights.warn_of_values(self.name)

    def note_lone_step(self):
        """Called after a step outside `fit`: says, once, where a rule waits for ends of epochs."""
        self._weights.note_lone_step(self.name)

    def _components_of(self, batch):
        if self.takes_one_output and not keras.tree.is_nested(batch.y_pred):
            return self._components_of_one(batch.replaced(is_one_output=True))
        reduced = self.reduction not in ("none", None)
        values = split(self.evaluate(batch).values, reduced)
        return dict(zip(self.component_names, values, strict=True))

    def _components_of_one(self, batch):
        """The values of the components that one output of several is enough for."""
        reduction, found = self._imposed(PER_COMPONENT), {}
        for name, node in self._nodes.items():
            if node.routes and not node.takes_one_output:
                continue
            evaluation = self._evaluate_part(name, None, reduction, None, batch)
            values = [ops.cast(evaluation.total, self.dtype), *evaluation.values]
            parts = split(values, self.reduction not in ("none", None))
            keys = (name, *(f"{name}/{part}" for part in node.component_names))
            found.update(zip(keys, parts, strict=True))
        return {name: value for name, value in found.items() if value is not None}

    def _value_of(self, name, batch):
        """The value of one component, or of a part of a nested one, alone."""
        outer, _, inner = name.partition("/")
        node = self._nodes[outer]
        evaluation = node.evaluate(batch, self._imposed(PER_COMPONENT), outer)
        if not inner:
            return evaluation.total
        reduced = self.reduction not in ("none", None)
        return split(evaluation.values, reduced)[node.component_names.index(inner)]

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        now = self._weights_now(batch)
        is_asked = batch.asks_presence  # by what is around it
        if self.weighting is not None:
            batch = batch.replaced(asks_presence=True)
        skips = self.on_nonfinite == "skip"
        if skips and skipping.is_active(batch):
            batch = batch.replaced(may_be_skipped=True)
        evaluations, taken = self._evaluations(batch, now, self._imposed(reduction), label)
        if skips:
            evaluations, sound, shares = skipping.skipped(evaluations, batch, self.dtype)
            if sound is not None and now is not None:
                now = ops.where(sound, now, ops.zeros_like(now))
        totals, values, present, extras = [], [], [], []
        for found in evaluations:
            totals.append(ops.cast(found.total, self.dtype))
            values.extend([totals[-1], *found.values])
            present.append(found.present)
            extras.extend(found.extras)
        # Only at top level and without learned weights does the total get the gradient of the rule:
        # a nested composite would lose its outer factors, learned weights their own gradient.
        replace = taken is not None and label is None and not super().learned_variables
        total, own = self._weights.total(totals, present, now, batch, self.name, taken, replace)
        extras.extend([*own, shares] if skips else own)
        counts = None
        if is_asked:
            counts = any_present(batch, present, self._weights_that_may_be_0(now))
        return Evaluation(total, tuple(values), tuple(extras), counts)

    def _weights_now(self, batch):
        """c of this step, `(k,)`; None where the fixed weights are constants of the step.

        Until the first `set_weight` the steps of a tracked model have the weights as constants, so
        that compilers fold them into the losses; that call compiles the steps anew, once. So have
        steps on JAX that do not thread the variables, until each change of a weight.
        """
        if batch.is_unthreaded:
            self._check_unthreaded()
        unchanged = not self._weights.changed or batch.is_unthreaded
        if batch.weights_are_constants and unchanged and not self._weights.move:
            return None
        return self._weights.now()

    def _evaluations(self, batch, now, reduction, label):
        """The `Evaluation` of each component, and what is `Taken` of their gradients."""
        reads, parts = self._weights.reads_gradients, []
        for index, name in enumerate(self._nodes):
            weight = None if now is None else now[index]
            if reads:
                part = functools.partial(self._evaluate_part, name, weight, reduction, label)
                parts.append(part)
            else:
                parts.append(self._evaluate_part(name, weight, reduction, label, batch))
        if not reads:
            return parts, None
        moving = self.variables_that_move_inside
        found, taken = gradients.evaluate(self.weighting, batch, parts, self.name, moving)
        if taken is not None:
            taken = taken._replace(products=taken.products._replace(beside=self._acts_beside))
        return found, taken

    def _weights_that_may_be_0(self, now):
        """c of this step, of a trace too, of each component that has ever had weight 0, else None.

        Others may get weight 0, but then the step is compiled anew.
        """
        fixed = list(self._weights.fixed.values()) if now is None else now
        return [
            fixed[index] if name in self._switched_off else None
            for index, name in enumerate(self.names)
        ]

    @functools.cached_property
    def _acts_beside(self):
        return reading.acts_beside(self)

    def _check_unthreaded(self):
        """A step that reads weights outside of Keras's scope holds them as constants."""
        self._held_as_constants = True
        if self._weights.move:
            raise ValueError(
                f"'{self.name}' has weights that move, and this `train_step` does not thread their "
                "variables through the loss: on JAX call `self.stateless_compute_loss(...)` in it, "
                "not `self.compute_loss(...)`. Received: a call of compute_loss in a trace"
            )

    def _evaluate_part(self, name, weight, reduction, label, batch):
        """The `Evaluation` of one component; `weight` is its c, or None for a constant."""
        node = self._nodes[name]
        path = f"{label}/{name}" if label else name
        if self.routes and not node.routes and isinstance(batch.y_pred, dict):
            batch = self._only_output(batch, path)
        if name in self._switched_off:
            batch = self._guarded(batch, name, weight)
        if self.on_nonfinite == "skip" and skipping.is_active(batch):
            batch = skipping.cut_gradient(batch)
        return node.evaluate(batch, reduction, path)

    def _only_output(self, batch, path):
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

    def _imposed(self, reduction):
        """What the components are reduced by: what is imposed from outside, or this one's own."""
        if self.reduction not in _REDUCTIONS:
            self._check_reduction()
        return self.reduction or "none" if reduction == PER_COMPONENT else reduction

    def _guarded(self, batch, name, weight):
        """The batch, without a way for the gradient of a component while its weight is 0.

        The gradient of a NaN is NaN also after a product with 0, so it has to be cut off at
        `y_pred`. Where the weight is a tensor (None: a constant) that costs one pass over
        `y_pred`, so only a component that has had weight 0 pays it; `set_weight(name, 0)` compiles
        the step anew the first time.
        """
        if weight is None:
            constant = self._weights.fixed[name]
            return batch if constant else batch.map_predictions(ops.stop_gradient)
        off = ops.equal(weight, 0.0)
        return batch.map_predictions(lambda p: ops.where(off, ops.stop_gradient(p), p))


def _only(values):
    """The entry of a dict of one."""
    alone = isinstance(values, dict) and len(values) == 1
    return next(iter(values.values())) if alone else values
