"""The weights of a composite's components: fixed, scheduled, and those of a rule."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.keras_types import KerasSchedule, KerasScheduleClass
from combined_losses._core.names import listed
from combined_losses._core.step import current_step
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite import gradients
from combined_losses.weightings.base import Weighting

Weight: TypeAlias = float | KerasSchedule
"""What the weight of a component may be."""

# The step at which a schedule without a `final_weight` counts as ended.
LATE = 2**30

# After so many steps outside `fit`, a rule that waits for the end of an epoch gives a warning.
PATIENCE = 100


class Weights:
    """The fixed or scheduled weights c of the components, and the rule that gives w.

    Args:
        given: the weight of each component, by name.
        rule: None, or the rule that moves the weights.
        dtype: the dtype of the composite.

    Attributes:
        fixed: the fixed weights by name; of a component with a schedule its first weight.
        schedules: the schedules by name, without those that `set_weight` has ended.
        changed: the names of the components whose weights `set_weight` has changed.
        moving_names: the components whose weights may change by themselves in a step of training;
            the logs show these weights in every step.
        moves: whether there are such components.
    """

    def __init__(self, given: Mapping[str, Weight], rule: Weighting | None, dtype: str) -> None:
        self.given = given
        self.changed: set[str] = set()
        self.schedules: dict[str, KerasSchedule] = self._schedules_left()
        self.fixed: dict[str, float] = {
            name: float(c(0)) if isinstance(c, KerasScheduleClass) else c
            for name, c in given.items()
        }
        # Settled here, because the log keys must not change when `set_weight` ends a schedule.
        moving = self.schedules if rule is None else given
        self.moving_names: tuple[str, ...] = tuple(moving)
        self.moves: bool = bool(self.moving_names)
        # By `map`: a comprehension is a frame of its own, which a `stacklevel` would have to count.
        final_weights = map(_final_weight, self.schedules, self.schedules.values())
        final = zip(self.schedules, final_weights, strict=True)
        self.final_weights: dict[str, float] = dict(final)
        self.rule = rule
        self.reads_gradients: bool = rule is not None and rule.reads_gradients
        self.steps_outside_fit: int = 0  # since the last end of an epoch
        self.variable: Any = keras.Variable(
            list(self.fixed.values()),
            dtype="float64" if dtype == "float64" else "float32",
            trainable=False,
            name="component_weights",
        )
        # The number of steps of training so far, for the schedules; None without schedules.
        self.steps: Any = None
        if self.schedules:
            self.steps = keras.Variable(
                0, dtype="int32", trainable=False, name="steps", aggregation="only_first_replica"
            )
        if rule is not None:
            rule.build(len(given), self.of_this_step)

    def _schedules_left(self) -> dict[str, KerasSchedule]:
        """The schedules that no change of a weight has ended."""
        given = {name: c for name, c in self.given.items() if isinstance(c, KerasScheduleClass)}
        return {name: c for name, c in given.items() if name not in self.changed}

    @property
    def variables(self) -> list[Any]:
        """The state of the fixed weights, of the schedules and of the rule."""
        found = [self.variable, *([] if self.steps is None else [self.steps])]
        return found if self.rule is None else [*found, *self.rule.variables]

    @property
    def has_term(self) -> bool:
        """Whether the rule adds a term of its own to the total."""
        return self.rule is not None and self.rule.has_term

    @property
    def measures_whole_gradients(self) -> bool:
        """Whether the rule reads the gradients by all parameters, in every step."""
        return (
            self.rule is not None
            and self.rule.place == "parameters"
            and self.rule.shared_layers is None
            and self.rule.innermost.update_every == 1
        )

    @property
    def logs_conflict(self) -> bool:
        """Whether the smallest cosine between two gradients is logged."""
        return self.rule is not None and self.rule.logs_conflict

    def of_this_step(self) -> Tensor:
        """The fixed and scheduled weights c in this step, `(k,)`."""
        values = ops.convert_to_tensor(self.variable)
        if not self.schedules:
            return values
        step = ops.convert_to_tensor(self.steps)
        # A step is repeated after it has been counted.
        step = step - 1 if current_step().is_repeated else step
        return self._with_schedules(values, lambda name: self.schedules[name](step))

    def after_schedules(self) -> Tensor:
        """The weights c when all schedules have ended, `(k,)`: those of `base_loss`."""
        values = ops.convert_to_tensor(self.variable)
        return self._with_schedules(values, self.final_weights.__getitem__)

    def _with_schedules(self, values: Tensor, weight_of: Callable[[str], Any]) -> Tensor:
        """The fixed weights `(k,)`, with `weight_of(name)` where there is a schedule."""
        if not self.schedules:
            return values
        entries = [
            ops.cast(weight_of(name), values.dtype) if name in self.schedules else value
            for name, value in zip(self.fixed, ops.unstack(values, len(self.fixed)), strict=True)
        ]
        return ops.stack(entries)

    def as_floats(self) -> dict[str, float]:
        """The current fixed and scheduled weights c, by name."""
        if not self.schedules:
            return dict(self.fixed)
        step = int(ops.convert_to_numpy(self.steps.value))
        return {
            name: float(self.schedules[name](step)) if name in self.schedules else value
            for name, value in self.fixed.items()
        }

    def assign(self, weights: Mapping[str, float]) -> None:
        """Gives components new fixed weights; a schedule ends there."""
        for name in weights:
            self.schedules.pop(name, None)
        self.fixed.update(weights)
        self.variable.assign(list(self.fixed.values()))

    # The total.

    def total(
        self,
        values: Sequence[Tensor],
        present: Sequence[Tensor | None],
        step_weights: Tensor | None,
        batch: Batch,
        *,
        name: str,
        measured: gradients.MeasuredGradients | None = None,
        replaces_gradient: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """The total of the components, and what is logged of weights that move.

        Args:
            values: the value of each component, `()` or `(batch,)`.
            present: for each component whether anything of the batch counts; None: surely.
            step_weights: c in this step, `(k,)`; None where the weights are constants.
            batch: the `Batch` that was evaluated.
            name: the name of the composite, for messages.
            measured: the gradients of the components; None where the rule is not given any.
            replaces_gradient: whether the total may get its gradient from those that are measured,
                if they are gradients by all parameters.
        """
        if step_weights is None:
            return self._constant_total(values, batch), []
        stacked = ops.stack(values)
        if not self.moves:
            return _weighted_sum(stacked, step_weights), []
        weights, term = step_weights, None
        if self.rule is not None:
            weights, term = self._weigh(stacked, present, step_weights, batch, name, measured)
        total = _weighted_sum(stacked, weights, switch=step_weights)
        if measured is not None and replaces_gradient and self.measures_whole_gradients:
            total = gradients.with_gradient(total, measured, weights)
        if self.has_term:
            term = ops.cast(term, stacked.dtype) / batch.replicas
            total = total + term
        logged = self._logged(stacked, weights, term, batch)
        if batch.training and self.steps is not None:
            self.steps.assign_add(1)
        return total, logged

    def _constant_total(self, values: Sequence[Tensor], batch: Batch) -> Tensor:
        """The sum with constant weights, without the components of weight 0.

        If all weights are 0, the total is a 0 with a gradient of 0: an optimizer refuses a loss
        that does not depend on what is trained.
        """
        given = zip(self.fixed.values(), values, strict=True)
        counted = [(weight, value) for weight, value in given if weight]
        if not counted:
            return ops.zeros_like(values[0]) + ops.cast(batch.zero(), values[0].dtype)
        weights, values = zip(*counted, strict=True)
        # As vectors: a product and a sum for each component would double the step of many small
        # components.
        stacked = ops.stack(values)
        if {*weights} != {1.0}:
            each = np.reshape(weights, (-1, *[1] * (len(stacked.shape) - 1)))
            stacked = ops.cast(each, stacked.dtype) * stacked
        return ops.sum(stacked, axis=0)

    def _logged(
        self, values: Tensor, weights: Tensor, term: Tensor | None, batch: Batch
    ) -> list[Tensor]:
        """What is logged beside the components, in the order of `WeightedSum.extra_keys`.

        What is the same in all replicas is divided by their number, because their logs are added.
        """
        if len(self.moving_names) < len(self.fixed):
            moves = {*self.moving_names}
            weights = ops.stack([weights[i] for i, name in enumerate(self.fixed) if name in moves])
        logged = [weights / batch.replicas]
        logged += [] if term is None or not self.has_term else [term]
        logged.append(_weighted_sum(values, self.after_schedules()))
        if self.rule is not None and self.logs_conflict:
            cosine = ops.cast(self.rule.innermost.min_cosine, values.dtype)
            logged.append(cosine / batch.replicas)
        return logged

    def _weigh(
        self,
        values: Tensor,
        present: Sequence[Tensor | None],
        step_weights: Tensor,
        batch: Batch,
        name: str,
        measured: gradients.MeasuredGradients | None,
    ) -> tuple[Tensor, Tensor]:
        """The weights `(k,)`, c times those of the rule, and the term of the rule."""
        rule = self.rule
        assert rule is not None  # asked only then
        if len(values.shape) > 1:
            raise ValueError(
                f"The `weighting` of '{name}' weighs whole components, and the reduction 'none', "
                "imposed from outside, gives values of single samples: leave one of them out. "
                f"Received: {rule!r}"
            )
        whole, not_finite = _values_for_rule(values, present, batch.replicas)
        # Without gradients (in `evaluate`) a rule that reads gradients must not update its state.
        training = batch.training and (measured is not None or not self.reads_gradients)
        products = None if measured is None else measured.products
        weights, term = rule.step(whole, training, products)
        # A component that is not finite makes the total so. Its weight in the logs must show that
        # it counts: not the 0 of the rule, but the last weight before.
        weights = ops.where(not_finite, ops.cast(rule.last_weights, weights.dtype), weights)
        weights = step_weights * ops.cast(weights, step_weights.dtype)
        if batch.may_be_skipped and rule.learned:
            weights = backend.finite_gradient(weights)
        return weights, term

    # Warnings that are given once.

    def warn_of_values(self, name: str) -> None:
        """Warns, once, of components with values that the rule is not made for."""
        rule = None if self.rule is None else self.rule.innermost
        if rule is None or "values" in rule.settled_warnings:
            return
        found = rule.values_beyond()
        if not found:
            return
        rule.settled_warnings |= {"values"}
        names = list(self.given)
        values = listed([f"{value:.6g} of '{names[i]}'" for i, value in found.items()])
        warnings.warn(
            f"{type(rule).__name__}, the weighting of '{name}', is made for values above "
            f"{rule.lower_bound:g}: the weights that it gives for other values balance nothing. "
            f"For these components {rule.cure}. Received: {values}",
            stacklevel=2,
        )

    def count_step_outside_fit(self, name: str) -> None:
        """Warns, once, if after many steps nobody has told the rule of the end of an epoch."""
        rule = None if self.rule is None else self.rule.innermost
        if rule is None or not rule.goes_by_epochs:
            return
        self.steps_outside_fit += 1
        if self.steps_outside_fit != PATIENCE or "epochs" in rule.settled_warnings:
            return
        rule.settled_warnings |= {"epochs"}
        warnings.warn(
            f"{type(rule).__name__}, the weighting of '{name}', moves its weights at the end of an "
            "epoch, and outside `fit` it does not know when an epoch ends: call "
            f"`loss.end_epoch()` after each epoch{rule.instead_of_epochs}. "
            f"Received: {PATIENCE} steps without the end of an epoch",
            stacklevel=5,  # the loop, through `train_on_batch` or the block of a step
        )

    # Saving.

    def save(self, store: Any) -> None:
        """Writes the weights, and the state of schedules and rule, into a dict of arrays."""
        store["weights"] = np.array(list(self.fixed.values()))
        store["changed"] = np.array([name in self.changed for name in self.fixed])
        if self.steps is not None:
            store["steps"] = ops.convert_to_numpy(self.steps.value)
        if self.rule is not None:
            state: dict[str, Any] = {}
            self.rule.save(state)
            for name, value in state.items():
                store[f"rule_{name}"] = value

    def load(self, store: Any) -> None:
        """Reads all but the fixed weights, which the composite assigns."""
        self.schedules = self._schedules_left()
        stored = keras_private.names_in(store)
        if self.steps is not None and "steps" in stored:
            self.steps.assign(np.array(store["steps"]))
        if self.rule is not None:
            names = [key for key in stored if key.startswith("rule_")]
            self.rule.load({name.removeprefix("rule_"): store[name] for name in names})


def _values_for_rule(
    values: Tensor, present: Sequence[Tensor | None], replicas: int
) -> tuple[Tensor, Tensor]:
    """The values over all replicas, `(k,)`: NaN for a component that is absent in all of them.

    The second result says which components are present and not finite.
    """
    if all(each is None for each in present):
        values = values if replicas == 1 else backend.global_sum(values)
        return values, ops.logical_not(ops.isfinite(values))
    counts = ops.stack(
        [
            ops.ones((), values.dtype) if each is None else ops.cast(each, values.dtype)
            for each in present
        ]
    )
    if replicas > 1:
        values, counts = ops.unstack(backend.global_sum(ops.stack([values, counts])), 2)
    is_present = counts > 0
    not_finite = ops.logical_and(is_present, ops.logical_not(ops.isfinite(values)))
    return ops.where(is_present, values, ops.cast(np.nan, values.dtype)), not_finite


def _final_weight(name: str, schedule: KerasSchedule) -> float:
    """The weight when a schedule has ended.

    That is its `final_weight`, or else its weight at a very late step. If that is no finite number,
    it is the first weight, with a warning.
    """
    given = getattr(schedule, "final_weight", None)
    try:
        found = float(schedule(LATE) if given is None else given)
    except Exception:  # of a user's schedule, which may look up the step in a table
        found = np.nan
    if abs(found) <= np.finfo("float32").max:
        return found
    warnings.warn(
        f"The schedule of component '{name}' has no finite weight at step {LATE}, so that "
        "`base_loss` takes its first one: give it an attribute `final_weight`, the weight to "
        f"judge by. Received: {schedule!r}",
        stacklevel=6,
    )
    return float(schedule(0))


def _weighted_sum(values: Tensor, weights: Tensor, switch: Tensor | None = None) -> Tensor:
    """The sum over the first axis; a component of fixed weight 0 adds 0, not 0 * NaN.

    Args:
        values: `(k, ...)`.
        weights: `(k,)`.
        switch: `(k,)`, the fixed weights, 0 for a component that is switched off; default:
            `weights`.
    """
    switch = weights if switch is None else switch
    shape = (-1, *([1] * (len(values.shape) - 1)))
    weights, switch = (ops.reshape(ops.cast(w, values.dtype), shape) for w in (weights, switch))
    # Before the product, not after it: weights may have a gradient, and 0 * NaN is NaN.
    values = ops.where(ops.equal(switch, 0.0), ops.zeros_like(values), values)
    return ops.sum(weights * values, axis=0)


def check_rule(rule: object, owner: str) -> None:
    """Raises unless `rule`, the `weighting` of composite `owner`, is a rule or None."""
    if rule is None or isinstance(rule, Weighting):
        return
    hint = f"; create it first: {rule.__name__}()" if isinstance(rule, type) else ""
    raise ValueError(
        f"`weighting` of '{owner}' must be None or a rule of cl.weightings{hint}. "
        f"Received: {rule!r}"
    )
