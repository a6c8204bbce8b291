"""Names of components and the log keys that come from them."""

import inspect
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

from combined_losses._backend import keras_private

# Log keys that the library itself writes.
RESERVED_KEYS = ("loss", "regularization_loss", "weighting_loss", "base_loss")
FORBIDDEN_CHARACTERS = "/.[]{}"


def snake_case(name: str) -> str:
    """`"MeanSquaredError"` -> `"mean_squared_error"`, `"KLDivergence"` -> `"kl_divergence"`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"[A-Z]?IoU", lambda word: word[0].capitalize(), name)  # one word: "giou"
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Words as a sentence lists them: `"a, b and c"`; "none" if there are none."""
    *before, last = words or ["none"]
    return f"{', '.join(before)} {conjunction} {last}" if before else last


def quoted(names: Iterable[object], conjunction: str = "and") -> str:
    """Names as a message lists them: `"'mse', 'mae' and 'huber'"`; "none" if there are none."""
    return listed([repr(name) for name in names], conjunction)


def log_key(name: str) -> str:
    """The log key of a component: `"mse"` -> `"mse_loss"`, `"huber_loss"` -> `"huber_loss"`."""
    return name if name.endswith("_loss") else f"{name}_loss"


def weight_key(name: str) -> str:
    """The log key of a component's weight: `"mse"` -> `"mse_weight"`."""
    return f"{name}_weight"


def skipped_key(name: str) -> str:
    """The log key of the share of steps in which a component was skipped."""
    return f"{name}_skipped"


def derive_name(loss: object) -> tuple[str, bool]:
    """The name of a component that was given in a list, and whether the user chose the name.

    A string is its own name, and a function has its `__name__`. A loss has the name that the user
    gave it, or else the name of its class in snake case.
    """
    if isinstance(loss, str):
        return loss, False
    name = getattr(loss, "name", None)
    if isinstance(name, str):
        default = snake_case(type(loss).__name__)
        automatic = {default, _default_name(type(loss))}
        if name in automatic or keras_private.is_numbered_name(name, default):
            return default, False
        return name, True
    function = getattr(loss, "func", loss)  # functools.partial
    name = getattr(function, "__name__", None) or snake_case(type(loss).__name__)
    return ("lambda" if name == "<lambda>" else name), False


def _default_name(cls: Any) -> str | None:  # a class; mypy refuses the `__init__` of a `type`
    parameter = inspect.signature(cls.__init__).parameters.get("name")
    return None if parameter is None else parameter.default


def make_unique(name: str, others: Container[str], numbers: dict[str, int] | None = None) -> str:
    """`name`, or the first of `name_2`, `name_3`, … that is not among the `others`.

    The dict `numbers` remembers the next number of each name, so that with thousands of equal names
    the search does not begin at 2 every time.
    """
    if name not in others:
        return name
    number = 2 if numbers is None else numbers.get(name, 2)
    while f"{name}_{number}" in others:
        number += 1
    if numbers is not None:
        numbers[name] = number + 1
    return f"{name}_{number}"


def check_name(name: object, owner: str) -> None:
    """Raises a `ValueError` if `name` cannot name a component of `owner`."""
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"Every component of '{owner}' needs a name: a non-empty string. Received: {name!r}"
        )
    bad = [c for c in FORBIDDEN_CHARACTERS if c in name]
    if bad:
        raise ValueError(
            f"The name of a component of '{owner}' must not contain {' '.join(bad)} "
            "(they separate log keys, paths and format fields); use '_' instead. "
            f"Received: {name!r}"
        )
    if name.startswith("val_"):
        raise ValueError(
            f"The name of a component of '{owner}' must not begin with 'val_': its training key "
            f"would read as a validation key. Received: {name!r}"
        )
    if name == "loss" or log_key(name) in RESERVED_KEYS:
        raise ValueError(
            f"The name of a component of '{owner}' must not be reserved: its log key would be "
            f"'{log_key(name)}', which Keras or combined_losses writes. Choose a name other than "
            f"'loss', 'regularization', 'weighting' and 'base'. Received: {name!r}"
        )


def check_log_keys(names: Iterable[str], owner: str) -> None:
    """Raises a `ValueError` if two components would write to one log key."""
    component_of: dict[str, str] = {}
    for name in names:
        for key in (log_key(name), weight_key(name)):
            if key in component_of:
                raise ValueError(
                    f"Two components of '{owner}' would write to the log key '{key}'; rename one "
                    f"of them. Received: {component_of[key]!r} and {name!r}"
                )
            component_of[key] = name
