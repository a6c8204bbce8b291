"""What differs between two trainings: weights, ends of schedules, and the rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

import keras

from combined_losses import weightings
from combined_losses._core.keras_types import CompositeReduction, KerasScheduleClass
from combined_losses._core.names import quoted
from combined_losses.composite import CompositeLoss
from combined_losses.training.compiling import compiled_again
from combined_losses.training.model_state import ModelState, state_of
from combined_losses.weightings.base import Weighting

RULE: Final = "weighting"  # the name of the parameter that is a rule
Rule: TypeAlias = Weighting | None


class _Kept:
    """Stands for the rule with which the model was compiled."""

    def __repr__(self) -> str:
        return "as compiled"


KEPT: Final = _Kept()


@dataclass(frozen=True)
class Setting:
    """Changes to a compiled model, made before its first step.

    Args:
        weights: new fixed weights, from a component (or `outer/inner`) to a number.
        ends: new arguments of schedules, from `<component>.<argument>` to a number.
        rule: another rule, None for no rule, or `KEPT`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)
    rule: Rule | _Kept = KEPT

    def apply(self, model: keras.Model) -> None:
        """Makes the changes; the model must not have been trained."""
        if self.ends or self.rule is not KEPT:
            composite = composite_of(model)
            changed = _variant(composite, self.ends, self.rule)
            compiled_again(model, {id(composite): changed})
        composite = composite_of(model)
        for path, weight in self.weights.items():
            composite.set_weight(path, weight)

    def shown(self) -> dict[str, Any]:
        """What it changes, as a table shows it."""
        found: dict[str, Any] = {**self.weights, **self.ends}
        return found if self.rule is KEPT else {**found, RULE: label_of(self.rule)}


def label_of(rule: "Rule | _Kept") -> str:
    """The rule as a table shows it; of one at its defaults its name."""
    if rule is None:
        return "none"
    return repr(rule).removesuffix("()")


def rule_of(given: object) -> Rule:
    """A rule of its own, of a name such as `"UPGrad"`, a class, a rule, or None."""
    if isinstance(given, str):
        is_name = given in weightings.__all__ and is_rule(given)
        given = getattr(weightings, given) if is_name else given
    if isinstance(given, type) and issubclass(given, Weighting):
        given = given()
    if isinstance(given, Weighting):
        return type(given).from_config(given.get_config())
    if given is None or (isinstance(given, str) and given.lower() == "none"):
        return None
    names = filter(is_rule, weightings.__all__)
    raise ValueError(
        f"A rule is None, a `cl.weightings.Weighting`, or one of the names {quoted(names)}. "
        f"Received: {given!r}"
    )


def every_rule(composite: CompositeLoss) -> list[Weighting]:
    """Every rule at its defaults.

    Those that read gradients read them at the parameters where a component acts on the model by
    more than its output: at the output they would not see all of it.
    """
    rules = [getattr(weightings, name)() for name in weightings.__all__ if is_rule(name)]
    if not any(node.acts_beyond_output() for node in composite._node.nodes.values()):
        return rules
    return [type(rule)(gradients="parameters") if rule.reads_gradients else rule for rule in rules]


def is_rule(name: str) -> bool:
    """Whether a name of `cl.weightings` is a rule that can be made without arguments."""
    cls = getattr(weightings, name)
    without = (Weighting, weightings.GramianWeighting, weightings.Smoothed)
    return isinstance(cls, type) and issubclass(cls, Weighting) and cls not in without


def composite_of(model: keras.Model) -> CompositeLoss:
    """The composite whose components the parameters name."""
    state = state_of(model) if isinstance(model, keras.Model) else None
    found = [] if state is None else _composites_of(state)
    if len(found) != 1:
        raise ValueError(
            "`build` must return a model compiled with one `CompositeLoss`: `cl.Model`, "
            "`cl.Sequential` or `cl.track(model)`, compiled with `loss=cl.CompositeLoss(...)`. "
            + _what_is_wrong(model, len(found))
        )
    return found[0]


def _composites_of(state: ModelState) -> list[CompositeLoss]:
    losses = [each.loss_itself() for each in state.compounds]
    return [loss for loss in losses if isinstance(loss, CompositeLoss)]


def _what_is_wrong(model: object, number: int) -> str:
    if not isinstance(model, keras.Model):
        return f"Received: {model!r} of type {type(model).__name__}"
    if not getattr(model, "compiled", False):
        return "Received: a model that is not compiled"
    if number > 1:
        return f"Received: a model with {number} composites; join them in one, by `OnOutput`"
    kind = type(model).__name__
    return f"Received: a {kind} that does not report components, or has no composite"


def _variant(
    composite: CompositeLoss, ends: Mapping[str, float], rule: Rule | _Kept
) -> CompositeLoss:
    """A composite of the same components with other schedules, or another rule."""
    # A rule belongs to one composite: this one gets a rule of its own.
    rule = rule_of(composite.weighting if rule is KEPT else rule)
    weights = dict(composite._node.own_weights.given)
    for path, value in ends.items():
        name, _, argument = path.rpartition(".")
        weights[name] = _changed(weights[name], argument, value)
    return type(composite)(
        dict(composite.losses),
        weights=weights,
        weighting=rule,
        reduction=cast("CompositeReduction", composite.reduction),  # it has been one already
        name=composite.name,
        dtype=composite.dtype,
        on_nonfinite=composite.on_nonfinite,
    )


def _changed(schedule: Any, argument: str, value: float) -> Any:
    """The schedule with one argument changed."""
    config = {**schedule.get_config(), argument: value}
    return type(schedule).from_config(config)


def schedule_arguments(composite: CompositeLoss) -> dict[str, float]:
    """The numbers that schedules have as arguments: `<component>.<argument>` to its value."""
    found: dict[str, float] = {}
    for name, weight in composite._node.own_weights.given.items():
        if isinstance(weight, KerasScheduleClass):
            for argument, value in weight.get_config().items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    found[f"{name}.{argument}"] = float(value)
    return found


def equal_weights(composite: CompositeLoss) -> Setting:
    """All weights 1 and no rule; a component that is switched off stays so."""
    weights = {name: 1.0 if c else 0.0 for name, c in composite.weights.items()}
    given = composite._node.own_weights.given
    weights |= {name: 1.0 for name, c in given.items() if isinstance(c, KerasScheduleClass)}
    return Setting(weights, rule=None)
