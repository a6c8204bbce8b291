"""How a composite is written to configs and files, and read from them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from combined_losses._core import checks
from combined_losses._core.config import (
    Made,
    check_config,
    deeply,
    deserialize_child,
    made,
    read_entry,
    serialize_child,
)
from combined_losses._core.keras_types import KerasSchedule

if TYPE_CHECKING:
    from combined_losses.composite.loss import CompositeLoss


def config_of(
    composite: "CompositeLoss", fixed: Mapping[str, float], schedules: Mapping[str, KerasSchedule]
) -> dict[str, Any]:
    """The arguments of a composite as Keras stores them.

    Args:
        composite: the composite.
        fixed: its current fixed weights by name.
        schedules: the schedules that stand in place of some of them.
    """
    with deeply():
        losses = [[name, serialize_child(name, loss)] for name, loss in composite.losses.items()]
    return {
        "losses": losses,
        "weights": [
            keras.saving.serialize_keras_object(schedules.get(name, weight))
            for name, weight in fixed.items()
        ],
        "weighting": keras.saving.serialize_keras_object(composite.weighting),
        "reduction": composite.reduction,
        "name": composite.name,
        "dtype": composite.dtype,
        "on_nonfinite": composite.on_nonfinite,
    }


def made_of(cls: type[Made], config: dict[str, Any]) -> Made:
    """The composite that a config describes."""
    check_config(cls, config)
    arguments = dict(config)
    pairs = arguments.pop("losses")
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
        arguments[key] = read_entry(cls, key, arguments.get(key))
    return made(cls, {"losses": losses, **arguments})


def weights_in(store: Any, names: Sequence[str]) -> tuple[dict[str, float], set[str]]:
    """The fixed weights in a file, by name, and the names of those that have been changed."""
    flags = zip(names, np.array(store["changed"]), strict=True)
    changed = {name for name, is_changed in flags if is_changed}
    return dict(zip(names, map(float, np.array(store["weights"])), strict=True)), changed
