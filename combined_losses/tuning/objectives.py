"""What a search makes small or large: a log key or a metric, with its direction."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from combined_losses._core.names import quoted

Direction: TypeAlias = Literal["min", "max"]
Objectives: TypeAlias = str | Sequence[str] | Mapping[str, Direction]
"""`"val_mae:min"`, a list of such, or a dict from log key to `"min"` or `"max"`."""

# They are sums with the weights that are searched: the smallest weights would win.
_WEIGHTED = ("loss", "base_loss")


class Objective(NamedTuple):
    """A log key, and whether it is to become small (`"min"`) or large (`"max"`)."""

    key: str
    direction: Direction

    @property
    def sign(self) -> int:
        """1 where lower is better, else -1: a value times its sign is better if it is lower."""
        return 1 if self.direction == "min" else -1

    @property
    def is_weighted(self) -> bool:
        """Whether its value changes with the weights alone."""
        return self.key.removeprefix("val_") in _WEIGHTED

    def __str__(self) -> str:
        return f"{self.key} ({'lower' if self.direction == 'min' else 'higher'} is better)"


def as_objectives(given: Objectives) -> tuple[Objective, ...]:
    """The objectives that were given in any of the three ways."""
    pairs = given.items() if isinstance(given, Mapping) else map(_pair, _as_list(given))
    found = tuple(Objective(str(key), direction) for key, direction in pairs)
    wrong = [objective for objective in found if objective.direction not in ("min", "max")]
    keys = [objective.key for objective in found]
    if not found or wrong or len(set(keys)) < len(keys):
        raise ValueError(
            "`objectives` must be different log keys, each with its direction, such as "
            f"'val_mae:min' or {{'val_mae': 'min', 'val_accuracy': 'max'}}. Received: {given!r}"
        )
    return found


def _as_list(given: Objectives) -> Iterable[Any]:
    return given if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _pair(text: Any) -> tuple[str, Any]:
    """`"val_mae:min"` in two; the key of a loss needs no direction."""
    key, _, direction = str(text).rpartition(":")
    if not key and str(text).endswith("loss"):
        return str(text), "min"
    return key, direction


def check_keys(objectives: Iterable[Objective], keys: Sequence[str]) -> None:
    """Raises if an objective is not among the log keys of a first step."""
    missing = [objective.key for objective in objectives if objective.key not in keys]
    if missing:
        needs_data = any(key.startswith("val_") for key in missing) and not any(
            key.startswith("val_") for key in keys
        )
        advice = "; for keys that begin with `val_` pass `validation=`" if needs_data else ""
        raise ValueError(
            f"`objectives` must be log keys. A first step logs {quoted(keys)}{advice}. "
            f"Received: {quoted(missing)}"
        )


def values_in(logs: Mapping[str, float], objectives: Iterable[Objective]) -> dict[str, float]:
    """What the logs of an epoch say of the objectives."""
    return {objective.key: float(logs[objective.key]) for objective in objectives}


def all_finite(values: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in values.values())
