"""The weights of a composite's components: fixed, scheduled, and those of a rule."""

import warnings
from collections.abc import Callable, Mapping
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

# The step at which a schedule that does not say its `final_weight` counts as ended.
LATE = 2**30

# After so many steps outside `fit` without the end of an epoch a rule that goes by epochs says so.
PATIENCE = 100


class Weights:
    """The fixed or scheduled weights c of the components, and the rule that gives w.

    Args:
        given: a dict from name to a float or a `LearningRateSchedule`.
        rule: None, or a `Weighting`.
        dtype: the dtype of the composite.
    """

    def __init__(self, given: Mapping[str, Weight], rule: Weighting | None, dtype: str) -> None:
        self.given = given
        self.changed: set[str] = set()
        self.schedules = self._schedules_left()
        self.fixed = {
            name: float(c(0)) if isinstance(c, KerasScheduleClass) else c
            for name, c in given.items()
        }
        # What is logged does not change, also where `set_weight` ends a schedule.
        self.moving_names = tuple(given) if rule is not None else tuple(self.schedules)
        self.move = bool(self.moving_names)  # by themselves, in the steps of training
        self.final_weights = {name: _final_weight(name, c) for name, c in self.schedules.items()}
        self.rule = rule
        self.reads_gradients = rule is not None and rule.reads_gradients
        self.lone_steps = 0  # outside `fit`, since the last end of an epoch
        self.variable = keras.Variable(
            list(self.fixed.values()),
            dtype="float64" if dtype == "float64" else "float32",
            trainable=False,
            name="component_weights",
        )
        # Steps of training, for the schedules.
        self.steps: Any = None
        if self.schedules:
            self.steps = keras.Variable(
                0, dtype="int32", trainable=False, name="steps", aggregation="only_first_replica"
            )
        if rule is not None:
            rule.build(len(given), self.now)

    def _schedules_left(self) -> dict[str, KerasSchedule]:
        """The schedules that no change of a weight has ended."""
        given = self.given.items()
        return {
            n: c for n, c in given if isinstance(c, KerasScheduleClass) and n not in self.changed
        }

    @property
    def variables(self) -> list[Any]:
        found: list[Any] = [self.variable, *([] if self.steps is None else [self.steps])]
        return found if self.rule is None else [*found, *self.rule.variables]

    @property
    def has_term(self) -> bool:
        """Whether the rule adds a term of its own to the total."""
        return self.rule is not None and self.rule.has_term

    @property
    def gives_gradient(self) -> bool:
        """Whether the gradients that the rule is given are whole ones, taken in every step."""
        rule = self.rule
        if rule is None or rule.place != "parameters" or rule.shared_layers is not None:
            return False
        return rule.innermost.update_every == 1

    @property
    def logs_conflict(self) -> bool:
        """Whether the smallest cosine between two gradients is logged."""
        return self.rule is not None and self.rule.logs_conflict

    def now(self) -> Tensor:
        """c of this step, `(k,)`."""
        values = ops.convert_to_tensor(self.variable)
        if not self.schedules:
            return values
        step = ops.convert_to_tensor(self.steps)
        step = step - 1 if current_step().is_repeated else step
        return self._with_schedules(values, lambda name: self.schedules[name](step))

    def final(self) -> Tensor:
        """c when all schedules have ended, `(k,)`: the weights of `base_loss`."""
        values = ops.convert_to_tensor(self.variable)
        return self._with_schedules(values, lambda name: self.final_weights[name])

    def _with_schedules(self, values: Tensor, weight_of: Callable[[str], Tensor]) -> Tensor:
        """The fixed weights `(k,)`, with `weight_of(name)` where there is a schedule."""
        if not self.schedules:
            return values
        entries = [
            ops.cast(weight_of(name), values.dtype) if name in self.schedules else value
            for name, value in zip(self.fixed, ops.unstack(values, len(self.fixed)), strict=True)
        ]
        return ops.stack(entries)

    def current(self) -> dict[str, float]:
        """c as a dict from name to float."""
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
        values: list[Tensor],
        present: list[Tensor | None],
        now: Tensor | None,
        batch: Batch,
        name: str,
        taken: gradients.Taken | None = None,
        replace: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """The total of the components, and what is logged of weights that move.

        Args:
            values: a list of the values of the components, each `()` or `(batch,)`.
            present: a list of whether anything of each has counted; None: surely.
            now: c of this step, or None where the weights are constants.
            batch: the `Batch` that was evaluated.
            name: that of the composite, for messages.
            taken: the gradients of the components, or None where the rule is not given any.
            replace: whether the total gets its gradient from those `taken`.
        """
        if now is None:
            return self._constant_total(values, batch), []
        stacked = ops.stack(values)
        if not self.move:
            return _weighted_sum(stacked, now), []
        return self._moving_total(stacked, present, now, batch, name, taken, replace)

    def _constant_total(self, values: list[Tensor], batch: Batch) -> Tensor:
        """The sum with constant weights; a component of weight 0 is left out.

        Without any other the total is a 0 that has a gradient of 0: an optimizer refuses a loss
        that has no way to what is trained.
        """
        total: Tensor = None
        for weight, value in zip(self.fixed.values(), values, strict=True):
            if weight:
                term = value if weight == 1 else weight * value
                total = term if total is None else total + term
        if total is not None:
            return total
        return ops.zeros_like(values[0]) + ops.cast(batch.zero(), values[0].dtype)

    def _moving_total(
        self,
        values: Tensor,
        present: list[Tensor | None],
        now: Tensor,
        batch: Batch,
        name: str,
        taken: gradients.Taken | None,
        replace: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        weights, term = now, None
        if self.rule is not None:
            weights, term = self._weigh(self.rule, values, present, now, batch, name, taken)
            if batch.may_be_skipped and self.rule.learned:
                weights = backend.sound_gradient(weights)
        shown = [weights[i] for i, key in enumerate(self.fixed) if key in self.moving_names]
        total = _weighted_sum(values, weights, off=now)
        if replace and self.gives_gradient and taken is not None:
            total = gradients.with_gradient(total, taken, weights)
        # The shares of all replicas are added.
        extras = [ops.stack(shown) / batch.replicas]
        if self.has_term:
            term = ops.cast(term, values.dtype) / batch.replicas
            total = total + term
            extras.append(term)
        extras.append(_weighted_sum(values, self.final()))
        if self.rule is not None and self.rule.logs_conflict:
            extras.append(ops.cast(self.rule.innermost.min_cosine, values.dtype) / batch.replicas)
        if batch.training:
            self._advance()
        return total, extras

    def _weigh(
        self,
        rule: Weighting,
        values: Tensor,
        present: list[Tensor | None],
        now: Tensor,
        batch: Batch,
        name: str,
        taken: gradients.Taken | None,
    ) -> tuple[Tensor, Tensor]:
        """The weights with those of the rule, and its term."""
        if len(values.shape) > 1:
            raise ValueError(
                f"The `weighting` of '{name}' weighs whole components, which the reduction 'none' "
                f"that is imposed on it does not give. Received: {rule!r}"
            )
        whole, lost = _seen_by_rule(values, present, batch.replicas)
        # A rule that reads gradients stays as it is where there are none.
        training = batch.training and (taken is not None or not self.reads_gradients)
        products = None if taken is None else taken.products
        weights, term = rule.step(whole, training, products)
        # What is not finite makes the total so: the weight that is logged must not deny it.
        weights = ops.where(lost, ops.cast(rule.last_weights, weights.dtype), weights)
        return now * ops.cast(weights, now.dtype), term

    def warn_of_values(self, name: str) -> None:
        """Says, once, which components had a value that the rule is not made for."""
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
            f"{rule.lower_bound:g}: what it makes of others is no balance. "
            f"For these components {rule.cure}. Received: {values}",
            stacklevel=2,
        )

    def note_lone_step(self, name: str) -> None:
        """Says, once, where a rule waits for the end of an epoch, which nobody tells it of."""
        rule = None if self.rule is None else self.rule.innermost
        if rule is None or not rule.goes_by_epochs:
            return
        self.lone_steps += 1
        if self.lone_steps != PATIENCE or "epochs" in rule.settled_warnings:
            return
        rule.settled_warnings |= {"epochs"}
        warnings.warn(
            f"{type(rule).__name__}, the weighting of '{name}', moves its weights at the end of an "
            "epoch, and outside `fit` nobody tells it of one: call `loss.end_epoch()` after each "
            f"epoch{rule.instead_of_epochs}. Received: {PATIENCE} steps without the end of one",
            stacklevel=3,
        )

    def _advance(self) -> None:
        """Counts a step of training."""
        if self.steps is not None:
            self.steps.assign_add(1)

    # Saving.

    def save(self, store: Any) -> None:
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
            self.rule.load({name[5:]: store[name] for name in names})


def _seen_by_rule(
    values: Tensor, present: list[Tensor | None], replicas: int
) -> tuple[Tensor, Tensor]:
    """The values over all replicas, `(k,)`; NaN for what is absent on each of them.

    And which components are there and not finite.
    """
    if all(each is None for each in present):
        values = values if replicas == 1 else backend.global_sum(values)
        return values, ops.logical_not(ops.isfinite(values))
    there = ops.stack(
        [
            ops.ones((), values.dtype) if each is None else ops.cast(each, values.dtype)
            for each in present
        ]
    )
    if replicas > 1:
        values, there = ops.unstack(backend.global_sum(ops.stack([values, there])), 2)
    lost = ops.logical_and(there > 0, ops.logical_not(ops.isfinite(values)))
    return ops.where(there > 0, values, ops.cast(np.nan, values.dtype)), lost


def _final_weight(name: str, schedule: KerasSchedule) -> float:
    """The weight when a schedule has ended; of one that has none its first weight, with a warning.

    A schedule says it as `final_weight`; of every other it is that of a very late step.
    """
    given = getattr(schedule, "final_weight", None)
    try:
        found = float(schedule(LATE) if given is None else given)
    except Exception:  # a user's: it may look up the step in a table
        found = np.nan
    if abs(found) <= np.finfo("float32").max:
        return found
    warnings.warn(
        f"The schedule of component '{name}' has no finite weight at step {LATE}, so that "
        "`base_loss` takes its first one: give it an attribute `final_weight`, the weight to "
        f"judge by. Received: {schedule!r}",
        stacklevel=5,
    )
    return float(schedule(0))


def _weighted_sum(values: Tensor, weights: Tensor, off: Tensor | None = None) -> Tensor:
    """The sum over the first axis; a component of fixed weight 0 adds 0, not 0 * NaN."""
    off = weights if off is None else off
    shape = (-1, *([1] * (len(values.shape) - 1)))
    weights, off = (ops.reshape(ops.cast(w, values.dtype), shape) for w in (weights, off))
    # Before the product, not after it: weights may have a gradient, and 0 * NaN is NaN.
    values = ops.where(ops.equal(off, 0.0), ops.zeros_like(values), values)
    return ops.sum(weights * values, axis=0)


def check_rule(rule: object, owner: str) -> None:
    if rule is None or isinstance(rule, Weighting):
        return
    hint = f"; create it first: {rule.__name__}()" if isinstance(rule, type) else ""
    raise ValueError(
        f"`weighting` of '{owner}' must be None or a rule of cl.weightings{hint}. "
        f"Received: {rule!r}"
    )
