"""Figures of a training: each component's curve, and its share of the loss.

Readable in print and for the colour-blind: the colours are those of Okabe and Ito (2008), and a
marker or a hatching tells the components apart without colour. Needs matplotlib
(`pip install "combined_losses[demo]"`), which is imported by the first figure.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes

__all__ = ["components", "shares"]

# Blue, vermilion, bluish green, orange, sky blue, reddish purple, black: no two alike in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
_MARKERS = "osD^vPX"
_HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++")
# Entries of the logs that end in `_loss` and are no component.
_NOT_COMPONENTS = ("weighting_loss", "base_loss", "regularization_loss")


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

    >>> from combined_losses.reporting import plots
    >>> logs = {"loss": [3.0, 2.0], "mse_loss": [2.0, 1.5], "under_loss": [1.0, 0.5]}
    >>> ax = plots.components(logs)
    >>> ax.get_xlabel()
    'epoch'
    """
    logs = _logs(history)
    keys = _component_keys(logs)
    ax = ax or _new_axes()
    for index, key in enumerate(keys):
        style = {"color": _pick(_COLOURS, index), "marker": _pick(_MARKERS, index), "markersize": 5}
        epochs = np.arange(1, len(logs[key]) + 1)
        style["markevery"] = max(1, len(epochs) // 8)
        ax.plot(epochs, logs[key], label=_name(key), **style)
        if f"val_{key}" in logs:
            ax.plot(epochs, logs[f"val_{key}"], "--", markerfacecolor="white", **style)
    curves = [logs[k] for key in keys for k in (key, f"val_{key}") if k in logs]
    low, high = min(map(min, curves)), max(map(max, curves))
    if 0 < 30 * low < high < np.inf:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0 if low >= 0 else None)
    ax.set_ylabel("component, unweighted")
    _finish(ax, dashed=any(f"val_{key}" in logs for key in keys))
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
        weights: component name -> weight, default 1.0; if None, those of the composite that the
            history's model was compiled with. Weights in the logs (`<name>_weight`) go first.

    Returns:
        The axes.

    Raises:
        ValueError: where the history has no component (`<name>_loss`).

    Example:

    >>> from combined_losses.reporting import plots
    >>> logs = {"mse_loss": [2.0, 1.5], "under_loss": [1.0, 0.5]}
    >>> ax = plots.shares(logs, weights={"under": 0.5})
    >>> ax.get_ylabel()
    'share of the loss (%)'
    """
    logs = _logs(history)
    if weights is None:
        weights = _compiled_weights(history)
    keys = [key for key in _component_keys(logs) if "/" not in key]
    parts = np.abs([_weighted(logs, key, weights) for key in keys])
    total = parts.sum(axis=0)
    parts = 100 * np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)
    epochs = np.arange(1, parts.shape[1] + 1)
    if len(epochs) == 1:  # an area needs a width
        epochs, parts = np.array([0.5, 1.5]), np.repeat(parts, 2, axis=1)
    ax = ax or _new_axes()
    areas = ax.stackplot(epochs, parts, labels=[_name(key) for key in keys], linewidth=0.6)
    for index, area in enumerate(areas):
        area.set_facecolor(_pick(_COLOURS, index) + "A0")
        area.set_edgecolor("black")
        area.set_hatch(_pick(_HATCHES, index))
    ax.set_ylim(0, 100)
    ax.set_xlim(epochs[0], epochs[-1])
    ax.set_ylabel("share of the loss (%)")
    _finish(ax, dashed=False)
    return ax


def _pick(choices, index):
    return choices[index % len(choices)]


def _name(key):
    return key.removesuffix("_loss")


def _logs(history):
    """The mapping of a `History`, or the mapping that was given."""
    logs = getattr(history, "history", history)
    return {key: list(values) for key, values in logs.items()}


def _component_keys(logs):
    keys = [
        key
        for key in logs
        if key.endswith("_loss") and not key.startswith("val_") and key not in _NOT_COMPONENTS
    ]
    if not keys or not logs[keys[0]]:
        raise ValueError(
            "`history` must hold components: fit cl.Model, cl.Sequential or cl.track(model) with "
            f"a CompositeLoss for one epoch at least. Received: the keys {list(logs)}"
        )
    return keys


def _compiled_weights(history):
    """The fixed weights of the composite behind a `History`; they are not in the logs."""
    from combined_losses.composite import CompositeLoss

    loss = getattr(getattr(history, "model", None), "loss", None)
    return loss.weights if isinstance(loss, CompositeLoss) else {}


def _weighted(logs, key, weights):
    name = _name(key)
    fixed = weights.get(name, weights.get(key, 1.0))
    return np.array(logs[key]) * np.array(logs.get(f"{name}_weight", fixed))


def _new_axes():
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(5, 4), layout="constrained")[1]


def _finish(ax, dashed):
    """What both figures share: whole epochs, a light frame, the legend below the axes."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    ax.spines[["top", "right"]].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    if dashed:
        handles.append(Line2D([], [], color="#555555", linestyle="--"))
        labels.append("validation")
    ax.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=min(3, len(handles)),
        handlelength=1.8,
        columnspacing=1.2,
        frameon=False,
    )
