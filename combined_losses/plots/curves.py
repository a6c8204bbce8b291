"""Figures of one training: how its components changed over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from combined_losses.plots.style import (
    COLOURS,
    HATCHES,
    MARKERS,
    add_legend,
    make_room,
    mark_epochs,
    new_axes,
    pick,
    spread_out,
)

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

History: TypeAlias = "keras.callbacks.History | Mapping[str, Sequence[float]]"
"""What `fit` returned, or a mapping from log key to one number for each epoch."""

Logs: TypeAlias = dict[str, list[Any]]  # None for an epoch without a value

# The entries of the logs that end in `_loss` and are not components.
NOT_COMPONENTS = ("weighting_loss", "base_loss", "regularization_loss")


def is_component(key: str, logs: Mapping[str, Any]) -> bool:
    """Whether a key `..._loss` of the training logs is a component, or a part of one."""
    if key.rpartition("/")[2] in NOT_COMPONENTS:
        return False
    for suffix in ("weighting_loss", "base_loss"):
        # `a_base_loss` may also be that of an output `a`. If so, it has no weight of its own in the
        # logs, but there are weights `a_..._weight`, because it is logged when weights change.
        output = key.removesuffix(suffix)
        if output != key and f"{key.removesuffix('_loss')}_weight" not in logs:
            return not any(k.startswith(output) and k.endswith("_weight") for k in logs)
    return True


def components(history: History, ax: "Axes | None" = None) -> "Axes":
    """Draws each component over the epochs: a line for training, a dashed one for validation.

    Components are unweighted, as in the logs. The axis is logarithmic if all values are positive
    and differ by more than a factor of 30.

    Args:
        history: what `fit` returned, or a mapping from log key to one number for each epoch.
        ax: the matplotlib axes to draw in; default: those of a new figure.

    Returns:
        The axes. `ax.figure.savefig("components.png")` saves the figure.

    Raises:
        ValueError: if the history has no component (`<name>_loss`).

    Example:

    >>> from combined_losses import plots
    >>> logs = {"loss": [3.0, 2.0], "mse_loss": [2.0, 1.5], "under_loss": [1.0, 0.5]}
    >>> ax = plots.components(logs)
    >>> ax.get_xlabel()
    'epoch'
    """
    logs = _logs(history)
    keys = _component_keys(logs)
    epochs = _epochs(history, len(logs[keys[0]]))
    is_new, ax = ax is None, ax or new_axes()
    handles, drawn = [], []
    # Parts of nested composites get the last colours, so that the others look as in `shares`.
    looks = {key: index for index, key in enumerate(sorted(keys, key=lambda key: "/" in key))}
    for key in keys:
        index = looks[key]
        style: dict[str, Any] = {"color": pick(COLOURS, index), "marker": pick(MARKERS, index)}
        style |= {"label": component_name(key), "markersize": 5}
        for which, dash in ((key, "-"), (f"val_{key}", "--")):
            if which not in logs:
                continue
            x, values = _with_values(epochs, logs[which])
            style["markerfacecolor"] = "white" if dash == "--" else style["color"]
            handles += ax.plot(x, values, dash, markevery=max(1, len(x) // 8), **style)
            drawn.append(values)
    values = np.concatenate(drawn)
    # Axes that were given may already be logarithmic.
    if not spread_out(ax.set_yscale, values) and ax.get_yscale() == "linear":
        ax.set_ylim(bottom=None if np.any(values < 0) else 0)
    ax.set_ylabel("component, unweighted")
    mark_epochs(ax)
    lines = [line for line in handles if line.get_linestyle() == "-"]
    add_legend(ax, lines, [component_name(key) for key in keys], dashed=len(handles) > len(lines))
    if is_new:
        make_room(ax.figure)
    return ax


def shares(
    history: History,
    ax: "Axes | None" = None,
    *,
    weights: Mapping[str, float] | None = None,
) -> "Axes":
    """Draws each component's share of the training loss over the epochs, as stacked areas.

    The share is `|weight * component|` divided by the sum of these. Parts of a nested composite
    have no areas of their own; they belong to that of the composite.

    Args:
        history: what `fit` returned, or a mapping from log key to one number for each epoch.
        ax: the matplotlib axes to draw in; default: those of a new figure.
        weights: component name -> weight, 1.0 for those left out; default: the weights that the
            model of the history was compiled with. Weights in the logs (`<name>_weight`) take
            precedence.

    Returns:
        The axes.

    Raises:
        ValueError: if the history has no component (`<name>_loss`).

    Example:

    >>> from combined_losses import plots
    >>> logs = {"mse_loss": [2.0, 1.5], "under_loss": [1.0, 0.5]}
    >>> ax = plots.shares(logs, weights={"under": 0.5})
    >>> ax.get_ylabel()
    'share of the loss (%)'
    """
    logs = _logs(history)
    weights, factors = _compiled_weights(history) if weights is None else (weights, {})
    keys = [key for key in _component_keys(logs) if "/" not in key]
    names = [component_name(key) for key in keys]
    with np.errstate(invalid="ignore"):  # 0 * inf, inf / inf
        parts = np.abs([_weighted(logs, key, weights) * factors.get(key, 1.0) for key in keys])
        total = parts.sum(axis=0)
        # A loss of 0 has shares of 0; a loss that is not finite leaves a gap.
        parts = np.where(np.isfinite(total), 100 * parts / np.where(total == 0, 1, total), np.nan)
    epochs = _epochs(history, parts.shape[1])
    if len(epochs) == 1:  # an area needs a width
        epochs, parts = epochs[0] + np.array([-0.5, 0.5]), np.repeat(parts, 2, axis=1)
    is_new, ax = ax is None, ax or new_axes()
    areas = ax.stackplot(epochs, parts, labels=names, linewidth=0.6)
    for index, area in enumerate(areas):
        area.set_facecolor(pick(COLOURS, index) + "A0")
        area.set_edgecolor("black")
        area.set_hatch(pick(HATCHES, index))
    ax.set_ylim(0, 100)
    ax.set_xlim(epochs[0], epochs[-1])
    ax.set_ylabel("share of the loss (%)")
    mark_epochs(ax)
    add_legend(ax, areas, names)
    if is_new:
        make_room(ax.figure)
    return ax


def component_name(key: str) -> str:
    """The name of the component with a log key."""
    return key.removesuffix("_loss")


def _logs(history: History) -> Logs:
    """The logs of a `History`, or the mapping that was given."""
    logs: Mapping[str, Sequence[Any]] = getattr(history, "history", history)
    return {key: list(values) for key, values in logs.items()}


def _epochs(history: History, count: int) -> "NDArray[np.int64]":
    """The number of each epoch, from 1; the numbers of a resumed training are continued."""
    epochs = getattr(history, "epoch", ())
    return np.array(epochs) + 1 if len(epochs) == count else np.arange(1, count + 1)


def _with_values(
    epochs: "NDArray[np.int64]", values: Sequence[float | None]
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """The epochs that have a value, and these values; NaN, a gap, for what is not finite."""
    if len(values) < len(epochs):  # with `validation_freq` only every n-th epoch has a value
        every = len(epochs) // max(1, len(values))
        epochs = epochs[every - 1 :: every][: len(values)]
    pairs = [(e, v) for e, v in zip(epochs, values, strict=False) if v is not None]
    x, y = np.array(pairs, float).reshape(-1, 2).T
    return x, np.where(np.isfinite(y), y, np.nan)


def _component_keys(logs: Logs) -> list[str]:
    keys = [
        key
        for key in logs
        if key.endswith("_loss") and not key.startswith("val_") and is_component(key, logs)
    ]
    if not keys or not logs[keys[0]]:
        raise ValueError(
            "`history` must hold components: fit cl.Model, cl.Sequential or cl.track(model) with "
            f"a CompositeLoss for at least one epoch. Received: the keys {list(logs)}"
        )
    return keys


def _compiled_weights(history: History) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The weights with which the model of a `History` was compiled.

    The logs do not have weights that never change, so `fit` of a tracked model stores them in the
    history.

    Returns:
        The weights of the components by name, and those of the outputs (`loss_weights`) by log key.
    """
    weights = getattr(history, "component_weights", None)
    if weights is not None:
        names = {key.removesuffix("_weight"): weight for key, weight in weights.items()}
        return names, getattr(history, "output_weights", {})
    loss = getattr(getattr(history, "model", None), "loss", None)
    weights = getattr(loss, "weights", None)  # the model is a plain one with a composite
    return (weights if isinstance(weights, Mapping) else {}), {}


def _weighted(logs: Logs, key: str, weights: Mapping[str, float]) -> "NDArray[np.float64]":
    """A component times its weight, for each epoch."""
    name = component_name(key)
    fixed = weights.get(name, weights.get(key, 1.0))
    weight = logs.get(f"{name}_weight", logs.get(f"{key}_weight", fixed))
    weighted: NDArray[np.float64] = np.array(logs[key], float) * np.array(weight, float)
    return weighted
