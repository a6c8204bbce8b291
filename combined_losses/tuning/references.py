"""What every search is compared with: equal weights, those of `diagnose`, those as compiled."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import keras
import numpy as np

from combined_losses.diagnosis import diagnose
from combined_losses.tuning.settings import Setting, composite_of, equal_weights

EQUAL, PROPOSED, COMPILED = "equal weights", "proposed by diagnose", "as compiled"
ROWS, BATCHES = 1000, 10  # what `diagnose` looks at, of arrays and of a data set


def settings(model: keras.Model, data: tuple[Any, Any, Any]) -> dict[str, Setting]:
    """The setting of each reference, by name; without a proposal where `diagnose` has none.

    Args:
        model: a new model.
        data: `(x, y, sample_weight)`.
    """
    found = {EQUAL: equal_weights(composite_of(model))}
    proposed = _proposed(model, data)
    if proposed is not None:
        found[PROPOSED] = proposed
    return {**found, COMPILED: Setting()}


def _proposed(model: keras.Model, data: tuple[Any, Any, Any]) -> Setting | None:
    """The weights with which all gradients are equally long; None if there are none."""
    x, y, sample_weight = data
    try:
        if y is None:
            proposed = diagnose(model, islice(iter(x), BATCHES)).proposed_weights
        else:
            first = _first_rows(len(keras.tree.flatten(x)[0]))
            x, y = (keras.tree.map_structure(first, each) for each in (x, y))
            if sample_weight is not None:
                sample_weight = keras.tree.map_structure(first, sample_weight)
            proposed = diagnose(model, x, y, sample_weight).proposed_weights
    except Exception:  # what cannot be diagnosed can still be searched
        return None
    own = composite_of(model)._node.settable_names
    weights = {name: weight for name, weight in proposed.items() if name in own}
    sound = weights and all(np.isfinite(weight) for weight in weights.values())
    return Setting(weights, rule=None) if sound else None


def _first_rows(count: int) -> Callable[[Any], Any]:
    """A function that takes as many rows of an array as `diagnose` is to look at."""
    share = min(1.0, ROWS / max(count, 1))
    return lambda array: array[: max(1, int(len(array) * share))]
