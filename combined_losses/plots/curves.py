"""One training: what its components did over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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

# Entries of the logs that end in `_loss` and are no component.
NOT_COMPONENTS = ("weighting_loss", "base_loss", "regularization_loss")


def is_component(key: str, logs: "Mapping[str, Any]") -> bool:
    """Whether an entry `..._loss` of the training logs is a component, or a part of one."""
    if key.rpartition("/")[2] in NOT_COMPONENTS:
        return False
    for own in ("weighting_loss", "base_loss"):
        # `a_base_loss` of the output `a` stands beside weights of `a` that move, and has none.
        output = key.removesuffix(own)
        if output != key and f"{key.removesuffix('_loss')}_weight" not in logs:
            return not any(k.startswith(output) and k.endswith("_weight") for k in logs)
    return True


def components(
    history: "keras.callbacks.History | Mapping[str, Sequence[float]]", ax: "Axes | None" = None
) -> "Axes":
    """Draws each component over the epochs: training as a line, validation dashed.

    Components are unweighted, as in the logs. The axis is logarithmic where they are positive and
    differ by more than a factor of 30.

    Args:
        history: what `fit` returned, or a mapping from log key to one number an epoch.
        ax: the matplotlib axes to draw in; default: a new figure.

    Returns:
        The axes. `ax.figure.savefig("components.png")` saves the figure.

    Raises:
        ValueError: where the history has no component (`<name>_loss`).

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
    own, ax = ax is None, ax or new_axes()
    handles, drawn = [], []
    # The parts of a nested composite last, so that the others look as in `shares`.
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
    if not spread_out(ax.set_yscale, values) and ax.get_yscale() == "linear":  # it may be shared
        ax.set_ylim(bottom=None if np.any(values < 0) else 0)
    ax.set_ylabel("component, unweighted")
    mark_epochs(ax)
    lines = [line for line in handles if line.get_linestyle() == "-"]
    add_legend(ax, lines, [component_name(key) for key in keys], dashed=len(handles) > len(lines))
    if own:
        make_room(ax.figure)
    return ax


def shares(
    history: "keras.callbacks.History | Mapping[str, Sequence[float]]",
    ax: "Axes | None" = None,
    *,
    weights: Mapping[str, float] | None = None,
) -> "Axes":
    """Draws each component's share of the training loss over the epochs, as stacked areas.

    The share is `|weight * component|` over the sum of these; parts of a nested composite are
    within its own area.

    Args:
        history: what `fit` returned, or a mapping from log key to one number an epoch.
        ax: the matplotlib axes to draw in; default: a new figure.
        weights: component name -> weight, default 1.0; if None, those that the history's model
            was compiled with. Weights in the logs (`<name>_weight`) go first.

    Returns:
        The axes.

    Raises:
        ValueError: where the history has no component (`<name>_loss`).

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
        # A loss of 0 has no shares; one that is not finite leaves a gap.
        parts = np.where(np.isfinite(total), 100 * parts / np.where(total == 0, 1, total), np.nan)
    epochs = _epochs(history, parts.shape[1])
    if len(epochs) == 1:  # an area needs a width
        epochs, parts = epochs[0] + np.array([-0.5, 0.5]), np.repeat(parts, 2, axis=1)
    own, ax = ax is None, ax or new_axes()
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
    if own:
        make_room(ax.figure)
    return ax


def component_name(key):
    return key.removesuffix("_loss")


def _logs(history):
    """The mapping of a `History`, or the mapping that was given."""
    logs = getattr(history, "history", history)
    return {key: list(values) for key, values in logs.items()}


def _epochs(history, count):
    """The number of each epoch, from 1; those of a resumed training go on."""
    epochs = getattr(history, "epoch", ())
    return np.array(epochs) + 1 if len(epochs) == count else np.arange(1, count + 1)


def _with_values(epochs, values):
    """The epochs that have a value, and these values; what is infinite becomes a gap."""
    if len(values) < len(epochs):  # `validation_freq`: one value after every so many epochs
        every = len(epochs) // max(1, len(values))
        epochs = epochs[every - 1 :: every][: len(values)]
    pairs = [(e, v) for e, v in zip(epochs, values, strict=False) if v is not None]
    epochs, values = np.array(pairs, float).reshape(-1, 2).T
    return epochs, np.where(np.isfinite(values), values, np.nan)


def _component_keys(logs):
    keys = [
        key
        for key in logs
        if key.endswith("_loss") and not key.startswith("val_") and is_component(key, logs)
    ]
    if not keys or not logs[keys[0]]:
        raise ValueError(
            "`history` must hold components: fit cl.Model, cl.Sequential or cl.track(model) with "
            f"a CompositeLoss for one epoch at least. Received: the keys {list(logs)}"
        )
    return keys


def _compiled_weights(history):
    """The weights behind a `History`, which are not in the logs where they never change.

    First those of the components by name, then by log key those of the outputs (`loss_weights`).
    The `fit` of a tracked model leaves both with the history.
    """
    weights = getattr(history, "component_weights", None)
    if weights is not None:
        names = {key.removesuffix("_weight"): weight for key, weight in weights.items()}
        return names, history.output_weights
    loss = getattr(getattr(history, "model", None), "loss", None)
    weights = getattr(loss, "weights", None)  # of a composite in a plain model
    return (weights if isinstance(weights, Mapping) else {}), {}


def _weighted(logs, key, weights):
    name = component_name(key)
    fixed = weights.get(name, weights.get(key, 1.0))
    weight = logs.get(f"{name}_weight", logs.get(f"{key}_weight", fixed))
    return np.array(logs[key], float) * np.array(weight, float)
