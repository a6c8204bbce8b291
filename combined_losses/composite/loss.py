"""`CompositeLoss`: a sum of named losses as one `keras.losses.Loss`."""

import collections
import functools
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._backend import keras_private
from combined_losses._core import checks, names
from combined_losses._core.batch import Batch
from combined_losses._core.compound import Compound, as_node, moving_composites, readers_of
from combined_losses._core.config import (
    check_config,
    deeply,
    deserialize_child,
    made,
    read_entry,
    serialize_child,
)
from combined_losses._core.evaluation import Evaluation, split
from combined_losses._core.masks import read_mask
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses.composite import gradients, reading, skipping
from combined_losses.composite.arguments import Losses, as_children, as_weights
from combined_losses.composite.listeners import Listeners
from combined_losses.composite.metric import ComponentMetric
from combined_losses.composite.weights import Weights, check_rule


@keras.saving.register_keras_serializable("combined_losses")
class CompositeLoss(Compound):
    """A weighted sum of named losses that trains, reports and saves as one loss.

    `total = sum_i weights_i * component_i`. Compile it in `cl.Model`, `cl.Sequential` or a model
    from `cl.track`, and every component becomes a metric, `<name>_loss`, from the same pass; in a
    plain `keras.Model` it trains alike, and `as_metrics()` reports the parts.

    Args:
        losses: the components, a dict from name to loss, or a list. A component is a
            `keras.losses.Loss`, a string that `keras.losses.get` knows, or a function
            `f(y_true, y_pred)`. In a list a string is its own name, a function its `__name__`, a
            loss its class in snake case unless it was named; a second one gets `_2`. The parts of
            a nested `CompositeLoss` stay visible as `outer/inner`.
        weights: a dict from name to number (default 1.0 for what it leaves out), a list with one
            number for each component, or None: all 1.0. Finite numbers; see `set_weight`. Or a
            `keras.optimizers.schedules.LearningRateSchedule`, a function of the steps of training.
            Where weights move, `base_loss` in the logs is the sum with the fixed weights, a
            scheduled one at its end: its `final_weight` if it has one, else that of step 2**30.
        weighting: None, or a rule from `cl.weightings` that moves the weights in training. The
            `weights` multiply what it gives.
        reduction: `"per_component"` (default): every component is reduced as it would be alone,
            with its own `reduction`. One of Keras's (`"sum_over_batch_size"`, `"sum"`, `"mean"`,
            `"mean_with_sample_weight"`): imposed on every component, after sample weights and
            mask. `"none"` or None: one total for each sample, `(batch,)`, for custom loops. With
            `gradient_accumulation_steps` Keras averages the gradients of batches, each a mean over
            its own samples, mask or sample weights, whatever their number or sum.
        on_nonfinite: what becomes of a component that is NaN or infinite in a step. `"propagate"`
            (default): the total is, too. `"skip"`: the component is left out of that step, see
            below.
        name: a string, default `"composite_loss"`.
        dtype: the dtype of the total, default `keras.config.floatx()`, or float64 where all
            components have that. Components keep their own.

    A composite of one is its child: sample weights, the mask of `y_pred` and a mask that a loss
    puts on its values (`ignore_class` of `SparseCategoricalCrossentropy`) act as Keras has them.
    Sample weights `(batch,)` weigh samples, finer ones what they match from the left. A row of
    weight 0 cannot spoil loss or gradient, nor can a component of weight 0. Keras's losses, and
    those that say so, never see what such a row holds; every other loss may read it for the sake of
    others, so it stays as it is where it is finite, and gets no gradient. A component that gives
    one number for the whole batch cannot honour weights or mask: it counts unweighted, with one
    warning that names it. An empty batch is 0.

    With `on_nonfinite="skip"` a component whose value is not finite adds neither value nor gradient
    in that step, with all of its parts and on all replicas. It has weight 0 and is absent for a
    rule. The logs show 0 for it, so that `loss` stays the weighted sum, and `<name>_skipped`, the
    share of the steps in which it was skipped: `<name>_loss / (1 - <name>_skipped)` is its mean
    over the others. Where the value is finite and the gradient by the predictions is not (a root at
    0), the value counts, the gradient is left out, and `<name>_skipped` does not tell it. What acts
    on the model by more than the predictions cannot be cut off and is refused: `OnInputs`, and
    functions that hold the model or its layers. Inputs of the model must be finite: a layer that is
    given NaN makes NaN even of a gradient of 0. Where all components are skipped the total is 0; a
    warning says so after an epoch of nothing else. `components` gives values as they are. The cost:
    none that can be measured on JAX; of a small convolutional network under a tenth of a step on
    TensorFlow and torch; on torch, which runs eagerly, a third of a step of a tiny one.

    Raises:
        ValueError: on no components, a name that is reserved, duplicate or holds one of
            `/ . [ ] { }`, a weight for an unknown name or that no float32 can hold, an unknown loss
            or reduction, what is no loss (a metric, a layer); when called, on targets that would be
            broadcast, on values that do not begin with the batch axis, on sample weights finer than
            the values; in training, on predictions that are whole numbers.

    Example:

    >>> import keras
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
    >>> def log(y_true, y_pred):
    ...     return keras.ops.log(y_pred)
    >>> y_pred = np.array([[1.0], [-5.0]])
    >>> [
    ...     float(cl.CompositeLoss(["mse", log], on_nonfinite=what)(y_true, y_pred))
    ...     for what in ("propagate", "skip")
    ... ]
    [nan, 34.0]
    """

    def __init__(
        self,
        losses,
        weights=None,
        weighting=None,
        reduction=PER_COMPONENT,
        name="composite_loss",
        dtype=None,
        on_nonfinite="propagate",
    ):
        check_rule(weighting, name)
        skipping.check_mode(on_nonfinite, name)
        parts = as_children(losses, name)
        if dtype is None and all(loss.dtype == "float64" for loss in parts.values()):
            dtype = "float64"  # the total is as exact as its parts
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._parts = Losses(parts, name)
        self.weighting = weighting
        self.on_nonfinite = on_nonfinite
        self._resolve_reduction()
        self._nodes = {key: as_node(key, loss) for key, loss in self.losses.items()}
        names.check_log_keys(self.component_names, name)
        self._check_moving(weighting)
        reading.check_parts(self, weighting)
        if on_nonfinite == "skip":
            skipping.check_parts(self, reading.is_beyond_output)
        # Last, because it binds the rule to this composite.
        self._weights = Weights(as_weights(weights, self.names, name), weighting, self.dtype)
        # Components that have had weight 0: see `_guarded`.
        self._switched_off = {key for key, c in self._weights.fixed.items() if c == 0}
        self._switched_off.update(self._weights.schedules)
        self._listeners = Listeners()
        self._held_as_constants = False
        self._pending: collections.deque = collections.deque()  # changes by other threads

    def _check_moving(self, weighting):
        if weighting is not None and self.reduction in ("none", None):
            raise ValueError(
                f"A `weighting` weighs whole components, and the reduction of '{self.name}' is "
                f"'none': leave one of them out. Received: weighting={weighting!r}"
            )
        moving = [id(c) for loss in self.losses.values() for c in moving_composites(loss)]
        if len(set(moving)) < len(moving):
            raise ValueError(
                f"A composite with weights that move is in '{self.name}' twice, and they would "
                "move twice in a step: make two of them. "
                f"Received: losses={list(self.losses)}"
            )

    def _resolve_reduction(self):
        """Children with reduction "none" give one total for each sample, if all of them do."""
        if self.reduction != PER_COMPONENT:
            return
        unreduced = [key for key, loss in self.losses.items() if loss.reduction in ("none", None)]
        if unreduced and len(unreduced) < len(self.losses):
            raise ValueError(
                f"Components {unreduced} of '{self.name}' have reduction 'none' and the others "
                "have not, so they have no sum. Give all of them a reduction, or pass "
                f"reduction='none' for the composite. Received: losses={list(self.losses)}"
            )
        if unreduced:
            self.reduction = "none"

    def _children(self):
        return [(loss, f"{name}/") for name, loss in self.losses.items()]

    @property
    def routes(self):
        """Whether a component chooses its outputs, so that the composite sees all of them."""
        return any(isinstance(loss, Compound) and loss.routes for loss in self.losses.values())

    # Names and weights.

    @property
    def losses(self):
        """The components, a mapping from name to loss that cannot be changed.

        Weights, variables and log keys were made for them: make another composite for others.
        """
        return self._parts

    @losses.setter
    def losses(self, losses):
        raise AttributeError(
            f"The `losses` of '{self.name}' are fixed when it is made; make another CompositeLoss, "
            f"for example CompositeLoss({{**loss.losses, 'new': ...}}). Received: losses={losses!r}"
        )

    @property
    def names(self):
        """The names of the components, in order."""
        return tuple(self.losses)

    @property
    def component_names(self):
        """The names of the components, each followed by the parts of a nested composite."""
        flat = []
        for name, loss in self.losses.items():
            flat.append(name)
            if isinstance(loss, Compound):
                flat.extend(f"{name}/{inner}" for inner in loss.component_names)
        return tuple(flat)

    @property
    def part_parents(self):
        found = {}
        for name, loss in self.losses.items():
            found[name] = None
            inner = loss.part_parents if isinstance(loss, Compound) else {}
            found.update({f"{name}/{n}": f"{name}/{p}" if p else name for n, p in inner.items()})
        return found

    @property
    def part_weights(self):
        found = {}
        for name, loss in self.losses.items():
            found[name] = self._weights.fixed[name]
            inner = loss.part_weights if isinstance(loss, Compound) else {}
            found.update({f"{name}/{part}": weight for part, weight in inner.items()})
        return found

    @property
    def settable_names(self):
        return (*self.names, *super().settable_names)

    @property
    def weights(self):
        """The current fixed or scheduled weight of each component, a dict from name to float."""
        with self._listeners.held_still() as still:
            if not still:
                return {**self._weights.fixed, **dict(self._pending)}
            self._listeners.sync()
            return self._weights.current()

    def weight_of(self, name):
        found = isinstance(name, str) and name in self.losses
        return self.weights[name] if found else super().weight_of(name)

    def set_weight(self, name, value):
        """Changes a fixed weight, also between the batches of a running `fit`, on every backend.

        Args:
            name: a component, or a part of a nested composite as `outer/inner`.
            value: a finite number. At 0 the component contributes neither value nor gradient.

        The first change compiles the steps of the models that train on it anew, once; from then on
        `<name>_weight` is in their logs. From another thread than that of a running `fit` it acts
        on the next step.

        In a plain `keras.Model` on JAX the compiled step has read the weight once and for all; a
        warning says so, and `cl.track(model)` helps.

        Raises:
            ValueError: on an unknown name or a weight that is not a finite number.

        Example:

        >>> import combined_losses as cl
        >>> loss = cl.CompositeLoss(["mse", "mae"])
        >>> loss.set_weight("mae", 0.3)
        >>> loss.weights
        {'mse': 1.0, 'mae': 0.3}
        """
        if not isinstance(name, str) or name not in self.losses:
            super().set_weight(name, value)
            return
        value = checks.check_weight(name, value)
        with self._listeners.held_still() as still:
            if still:
                self._set(name, value)
            else:  # a step that runs holds the weights: the next one is given the new ones
                self._pending.append((name, value))

    def _set(self, name, value):
        if self._compiled_in and not self._listeners:
            self._compiled_in = False  # once
            warnings.warn(
                f"'{self.name}' was compiled in a plain keras.Model or a function of your own, "
                "which on JAX has read its weights once and for all: the change has no effect "
                "there. Train it in cl.Model, cl.Sequential or cl.track(model).",
                stacklevel=2,
            )
        self._listeners.sync()
        first = not self._weights.changed and not self._weights.move
        rebuild = first or self._held_as_constants or name in self._weights.schedules
        self._weights.changed.add(name)
        self._assign({name: value}, rebuild)

    def apply_pending(self):
        while self._pending:
            self._set(*self._pending.popleft())
        super().apply_pending()

    def _assign(self, weights, rebuild):
        """Gives components new weights; compiles steps anew where they hold the old ones."""
        newly_off = {name for name, weight in weights.items() if weight == 0} - self._switched_off
        self._switched_off |= newly_off
        self._weights.assign(weights)
        if rebuild or newly_off:
            self._listeners.rebuild()

    def current_weights(self, all_of_them=False):
        shown = self.losses if all_of_them else self._weights.changed
        logged = () if all_of_them else self._weights.moving_names  # by every step
        found = {
            name: weight
            for name, weight in self._weights.fixed.items()
            if name in shown and name not in logged
        }
        return {**found, **super().current_weights(all_of_them)}

    # Weights that move.

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
        if self.on_nonfinite == "skip":
            skipping.check_readers(self, readers_of, model)
        super().check_skips(model)

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

    def warn_of_values(self):
        self._weights.warn_of_values(self.name)
        super().warn_of_values()

    def warn_of_places(self):
        if self._weights.reads_gradients:
            reading.warn_of_places([(self, self.weighting)])
        super().warn_of_places()

    @backend.as_written
    def training_step(self):
        """In a loop of one's own: the block is one step of the rules and schedules.

        The first call of the loss in the block moves its weights, as a step of `fit` does, those of
        composites inside too; further calls, of micro-batches say, see the same scheduled weights
        and move nothing. Open one block for each step of the optimizer. Outside of it a call moves
        nothing. Rules that read gradients need `gradients="output"`. Give your optimizer
        `loss.trainable_variables` beside those of the network where weights are learned.

        In `tf.function` the call of the loss and the block belong inside. So they do in a loop that
        is compiled as one (`tf.range`, `jax.lax.scan`), in which each round is a step. On JAX, in
        `jax.jit`, `loss.variables` must be part of the state, see docs/other_models.md.

        Raises:
            ValueError: by the call of the loss, where a rule reads gradients at a layer or at the
                parameters, or where `jax.jit` would forget what moves.

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

    def end_epoch(self):
        """In a loop of one's own: ends an epoch, for rules that go by epochs.

        `fit` does it by itself; a loop of `train_on_batch`, or of `training_step`, calls it after
        each epoch. On JAX, assign the state of your loop to `loss.variables` before.

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
        self._weights.lone_steps = 0
        if self.weighting is not None:
            self._listeners.sync()
            self.weighting.end_epoch()
            self._weights.warn_of_values(self.name)
        super().end_epoch()

    def note_lone_step(self):
        self._weights.note_lone_step(self.name)
        super().note_lone_step()

    def add_listener(self, listener):
        self._listeners.add(listener)
        super().add_listener(listener)

    @property
    def own_variables(self):
        return self._weights.variables

    # Computation.

    def components(self, y_true, y_pred, sample_weight=None):
        """Each component's unweighted value, for custom loops.

        Args:
            y_true, y_pred: arrays or tensors `(batch, ...)`.
            sample_weight: None, or weights that match the values from the left, such as `(batch,)`.

        Returns:
            A dict from name to a tensor `()`, or `(batch,)` where the reduction is "none". A
            nested composite is followed by its parts, `outer/inner`. Where a component is a
            `cl.wrappers.DeepSupervision` and `y_pred` one array, that is its finest output, and
            the dict has only what reads no other.
        """
        batch = Batch(y_true, y_pred, sample_weight, self.name)
        return self._components_of(batch.replaced(skips_nothing=True))

    def logged_components(self, y_true, y_pred, sample_weight=None):
        """As `components`, but 0 for what is skipped in this step, as in the logs."""
        return self._components_of(Batch(y_true, y_pred, sample_weight, self.name))

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
            inner = node.component_names if isinstance(node, Compound) else ()
            if isinstance(node, Compound) and node.routes and not node.takes_one_output:
                continue
            evaluation = self._evaluate_part(name, None, reduction, None, batch)
            values = [ops.cast(evaluation.total, self.dtype), *evaluation.values]
            parts = split(values, self.reduction not in ("none", None))
            keys = (name, *(f"{name}/{part}" for part in inner))
            found.update(zip(keys, parts, strict=True))
        return {name: value for name, value in found.items() if value is not None}

    def component(self, name, y_true, y_pred, sample_weight=None):
        """The unweighted value of one component (`outer/inner` for a part of a nested one)."""
        if name not in self.component_names:
            raise ValueError(
                f"'{self.name}' has no component of this name; it has "
                f"{', '.join(map(repr, self.component_names))}. Received: {name!r}"
            )
        if self.takes_one_output and not keras.tree.is_nested(y_pred):
            found = self.components(y_true, y_pred, sample_weight)
            if name in found:
                return found[name]
            raise ValueError(
                f"Component '{name}' reads another output than the finest: give a dict of outputs. "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        outer, _, inner = name.partition("/")
        node = self._nodes[outer]
        reduction = self._imposed(PER_COMPONENT)
        batch = Batch(y_true, y_pred, sample_weight, self.name).replaced(skips_nothing=True)
        evaluation = node.evaluate(batch, reduction, outer)
        if not inner:
            return evaluation.total
        reduced = self.reduction not in ("none", None)
        return split(evaluation.values, reduced)[node.component_names.index(inner)]

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        reduction = self._imposed(reduction)
        # Until the first `set_weight` the steps of a tracked model have the weights as constants,
        # so that compilers fold them into the losses; that call compiles the steps anew, once.
        # So have steps on JAX that do not thread the variables, until each change of a weight.
        unchanged = not self._weights.changed or batch.is_unthreaded
        constant = batch.weights_are_constants and unchanged and not self._weights.move
        if batch.is_unthreaded:
            self._check_unthreaded()
        now: Any = None if constant else self._weights.now()
        is_asked = batch.asks_presence  # by what is around it
        if self.weighting is not None:
            batch = batch.replaced(asks_presence=True)
        parts = [
            functools.partial(
                self._evaluate_part, name, None if constant else now[index], reduction, label
            )
            for index, name in enumerate(self.names)
        ]
        skips = self.on_nonfinite == "skip"
        if skips and skipping.is_active(batch):
            batch = batch.replaced(may_be_skipped=True)
        moving = self.variables_that_move_inside if self._weights.reads_gradients else ()
        evaluations, taken = gradients.evaluate(self.weighting, batch, parts, self.name, moving)
        if taken is not None:
            taken = taken._replace(products=taken.products._replace(beside=self._acts_beside))
        if skips:
            evaluations, sound, shares = skipping.skipped(evaluations, batch, self.dtype)
            if sound is not None and not constant:
                now = ops.where(sound, now, ops.zeros_like(now))
        direct, values, extras = [], [], []
        for found in evaluations:
            direct.append(ops.cast(found.total, self.dtype))
            values.extend([direct[-1], *found.values])
            extras.extend(found.extras)
        # Of a part of another loss the rest of the path would be cut off, and of what is learned.
        replace = taken is not None and label is None and not super().learned_variables
        present = [found.present for found in evaluations]
        total, own = self._weights.total(direct, present, now, batch, self.name, taken, replace)
        extras.extend([*own, shares] if skips else own)
        counts = None
        if is_asked:
            counts = any_present(batch, present, self._weights_that_may_be_0(now))
        return Evaluation(total, tuple(values), tuple(extras), counts)

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
        seen = self._guarded(self._only_output(batch, node, path), name, weight)
        if self.on_nonfinite == "skip" and skipping.is_active(batch):
            seen = skipping.cut_gradient(seen)
        return node.evaluate(seen, reduction, path)

    def _only_output(self, batch, node, path):
        """Where others choose their outputs, a component that does not sees the only one."""
        if not self.routes or not isinstance(batch.y_pred, dict):
            return batch
        if isinstance(node, Compound) and node.routes:
            return batch
        if len(batch.y_pred) > 1:
            raise ValueError(
                f"Component '{path}' must say what it reads, because others of '{self.name}' do: "
                "wrap it in cl.wrappers.OnOutput(loss, output). The outputs are "
                f"{', '.join(map(repr, batch.y_pred))}. Received: a loss without an output"
            )
        y_pred = next(iter(batch.y_pred.values()))
        y_true, weight = _only(batch.y_true), _only(batch.sample_weight)
        return batch.replaced(
            y_true=y_true, y_pred=y_pred, sample_weight=weight, mask=read_mask(y_pred)
        )

    def _imposed(self, reduction):
        """What the components are reduced by: what is imposed from outside, or this one's own."""
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
        if name not in self._switched_off:
            return batch
        off = ops.equal(weight, 0.0)
        return batch.map_predictions(lambda p: ops.where(off, ops.stop_gradient(p), p))

    # For a plain Keras model.

    def as_metrics(self):
        """Metrics that report every component in a plain `keras.Model`.

        Pass them as `weighted_metrics=loss.as_metrics()`: Keras gives sample weights to no other
        metrics. The parts are computed a second time for it; `cl.track(model)` reports them from
        the same pass instead.

        Returns:
            A list with one `keras.metrics.Metric` for each component, named `<name>_loss`.

        Example:

        >>> import combined_losses as cl
        >>> [metric.name for metric in cl.CompositeLoss(["mse", "mae"]).as_metrics()]
        ['mse_loss', 'mae_loss']
        """
        return [ComponentMetric(self, name) for name in self.component_names]

    # Saving.

    def get_config(self):
        with deeply():
            losses = [[name, serialize_child(name, loss)] for name, loss in self.losses.items()]
        return {
            "losses": losses,
            "weights": [
                keras.saving.serialize_keras_object(self._weights.schedules.get(name, weight))
                for name, weight in self._weights.fixed.items()
            ],
            "weighting": keras.saving.serialize_keras_object(self.weighting),
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
            "on_nonfinite": self.on_nonfinite,
        }

    @classmethod
    def from_config(cls, config):
        check_config(cls, config)
        config = dict(config)
        pairs = config.pop("losses")
        if not isinstance(pairs, list) or not all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError(
                f"The entry 'losses' of the config of {cls.__name__} must be a list of pairs of a "
                f"name and a loss. Received: {checks.shown(pairs)}"
            )
        with deeply():
            losses = {str(name): deserialize_child(name, child) for name, child in pairs}
        for key in ("weights", "weighting"):
            config[key] = read_entry(cls, key, config.get(key))
        return made(cls, {"losses": losses, **config})

    def save_own_variables(self, store):
        """Called by Keras's saver, which walks `model.loss`."""
        self._leave_former_place()
        self._weights.save(store)

    def load_own_variables(self, store):
        """Called by Keras's saver; a file without weights leaves them as they are."""
        super().load_own_variables(store)
        if "weights" not in keras_private.names_in(store):
            return
        self._listeners.sync()
        flags = zip(self.names, np.array(store["changed"]), strict=True)
        changed = {name for name, is_changed in flags if is_changed}
        weights = dict(zip(self.names, map(float, np.array(store["weights"])), strict=True))
        # What has been changed decides, too, whether a step may hold the weights as constants.
        rebuild = weights != self._weights.fixed or changed != self._weights.changed
        self._weights.changed = changed
        self._weights.load(store)
        scheduled = self._weights.schedules
        self._assign({n: w for n, w in weights.items() if n not in scheduled}, rebuild)


def _only(values):
    """The entry of a dict of one."""
    alone = isinstance(values, dict) and len(values) == 1
    return next(iter(values.values())) if alone else values
