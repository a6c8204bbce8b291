"""The parameters of a search: which weights, ends of schedules and rules are tried."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from combined_losses._core.checks import is_number
from combined_losses._core.names import quoted
from combined_losses.composite import CompositeLoss
from combined_losses.tuning.settings import (
    KEPT,
    RULE,
    Rule,
    Setting,
    label_of,
    rule_of,
    schedule_arguments,
)

if TYPE_CHECKING:
    import optuna

Parameters: TypeAlias = Mapping[str, tuple[float, float] | Sequence[Any]]
"""From a name to a range `(low, high)` or to a list of choices."""


class Space:
    """What is searched.

    Args:
        parameters: as `cl.search` takes them.
        composite: the composite whose weights are searched.
    """

    def __init__(self, parameters: Parameters, composite: CompositeLoss) -> None:
        if not isinstance(parameters, Mapping) or not parameters:
            raise ValueError(
                "`parameters` must be a dict from a component to a range or a list of choices, "
                f"such as {{'under': (0.01, 10.0)}}. Received: {parameters!r}"
            )
        weights = composite._node.settable_names
        ends = schedule_arguments(composite)
        self._ranges: dict[str, tuple[float, float]] = {}
        self._choices: dict[str, list[float]] = {}
        self._rules: dict[str, Rule] = {}
        for name, given in parameters.items():
            if name == RULE:
                self._rules = _as_rules(given)
            elif name not in weights and name not in ends:
                raise ValueError(
                    f"`parameters` name components, {quoted(weights)}, or '{RULE}'"
                    + (f", or an argument of a schedule, {quoted(ends)}" if ends else "")
                    + f". Received: {name!r}"
                )
            elif isinstance(given, list):
                self._choices[name] = _as_choices(name, given)
            else:
                self._ranges[name] = _as_range(name, given)
        self.names: list[str] = list(parameters)
        both = [
            name for name in ends if name in parameters and name.partition(".")[0] in parameters
        ]
        if both:
            raise ValueError(
                "`parameters` give a component either a weight or other arguments of its schedule: "
                f"a weight ends the schedule. Received: both for {quoted(both)}"
            )

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """One value for each parameter; of a rule its label."""
        found: dict[str, Any] = {}
        for name in self.names:
            if name in self._ranges:
                found[name] = trial.suggest_float(name, *self._ranges[name], log=True)
            else:
                choices = list(self._rules) if name == RULE else self._choices[name]
                found[name] = trial.suggest_categorical(name, choices)
        return found

    def setting(self, values: Mapping[str, Any]) -> Setting:
        """The changes that the values of `suggest` stand for."""
        numbers = {name: float(v) for name, v in values.items() if name != RULE}
        ends = {name: value for name, value in numbers.items() if "." in name}
        weights = {name: value for name, value in numbers.items() if "." not in name}
        rule = rule_of(self._rules[values[RULE]]) if RULE in values else KEPT
        return Setting(weights, ends, rule)

    def described(self) -> dict[str, Any]:
        """What a storage keeps, to know the search again."""
        ranges = {name: list(ends) for name, ends in self._ranges.items()}
        rules = {RULE: list(self._rules)} if self._rules else {}
        return {**ranges, **self._choices, **rules}


def _as_range(name: str, given: Any) -> tuple[float, float]:
    ends = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    sound = len(ends) == 2 and all(is_number(end) and math.isfinite(end) for end in ends)
    if not sound or not 0 < ends[0] < ends[1]:
        raise ValueError(
            f"The range of '{name}' must be (low, high) with 0 < low < high, because the search "
            "looks at its logarithm; to try 0 as well give a list of choices, [0.0, 0.1, 1.0]. "
            f"Received: {given!r}"
        )
    return float(ends[0]), float(ends[1])


def _as_choices(name: str, given: Sequence[Any]) -> list[float]:
    sound = len(given) > 0 and all(is_number(each) and math.isfinite(each) for each in given)
    if not sound or len(set(given)) < len(given):
        raise ValueError(
            f"The choices of '{name}' must be different finite numbers. Received: {given!r}"
        )
    return [float(each) for each in given]


def _as_rules(given: Any) -> dict[str, Rule]:
    """The rules to choose from, by the names that tables show."""
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError(
            f"`parameters['{RULE}']` must be a list of rules, such as [None, 'UPGrad']. "
            f"Received: {given!r}"
        )
    rules = [rule_of(each) for each in given]
    found = {label_of(rule): rule for rule in rules}
    if len(found) < len(rules):
        raise ValueError(f"`parameters['{RULE}']` must be different rules. Received: {given!r}")
    return found
