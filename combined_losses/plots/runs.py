"""Several trainings: what each of them reached."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from combined_losses.plots.curves import component_name, is_component
from combined_losses.plots.style import (
    COLOURS,
    MARKERS,
    add_legend,
    make_room,
    new_axes,
    pick,
    spread_out,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pareto(
    runs: Mapping[str, Any],
    ax: "Axes | None" = None,
    *,
    x: str | None = None,
    y: str | None = None,
) -> "Axes":
    """Draws what several runs reached: one component against another, a marker for each run.

    To choose between weights. Filled markers are the Pareto front, joined by a line: no other run
    is as good in both components and better in one. Hollow ones are dominated: another run is. A
    run that ended with NaN or inf is in the legend alone. Components are unweighted, and lower is
    better. An axis is logarithmic where its values are positive and differ by more than a factor
    of 30.

    Args:
        runs: label -> what `fit` returned, or its logs, of which the last epoch counts; or a
            mapping component -> number, as `evaluate(return_dict=True)` gives.
        ax: the matplotlib axes to draw in; default: a new figure.
        x: the component on the horizontal axis; default: the first one of the first run.
        y: the component on the vertical axis; default: the next one. Both are of the validation
            (`val_<name>_loss`) where every run has it, else of the training.

    Returns:
        The axes.

    Raises:
        ValueError: where there is no run, or a run lacks one of the two components.

    Example:

    >>> from combined_losses import plots
    >>> runs = {
    ...     "1 : 1": {"mse_loss": [2.0, 1.0], "under_loss": [2.0, 0.9]},
    ...     "1 : 4": {"mse_loss": [2.0, 1.2], "under_loss": [2.0, 0.3]},
    ...     "1 : 9": {"mse_loss": [2.0, 1.9], "under_loss": [2.0, 0.4]},
    ... }
    >>> ax = plots.pareto(runs)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('mse', 'under')
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['1 : 1', '1 : 4', '1 : 9 (dominated)', 'Pareto front']
    """
    ends = {str(label): _last_values(run) for label, run in dict(runs).items()}
    names = _two_components(ends, x, y)
    keys = [_shared_key(ends, name) for name in names]
    points = np.array([[end[key] for key in keys] for end in ends.values()], float)
    finite = np.isfinite(points).all(axis=1)
    front = finite & ~_dominated(points)
    own, ax = ax is None, ax or new_axes()
    steps = points[front][np.lexsort(points[front].T[::-1])]
    (line,) = ax.plot(*steps.T, drawstyle="steps-post", color="#777777", linewidth=1, zorder=1)
    handles = [_draw_run(ax, index, points, front[index]) for index in range(len(points))]
    for axis, name, key, values in zip("xy", names, keys, points[finite].T, strict=True):
        spread_out(getattr(ax, f"set_{axis}scale"), values)
        validation = " (validation)" if key.startswith("val_") else ""
        getattr(ax, f"set_{axis}label")(wrap(name, 30) + validation, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(0.1)
    notes = np.where(front, "", np.where(finite, " (dominated)", " (not finite)"))
    labels = [f"{label}{note}" for label, note in zip(ends, notes, strict=True)]
    add_legend(ax, [*handles, line], [*labels, "Pareto front"])
    if own:
        make_room(ax.figure)
    return ax


def _last_values(run):
    """Log key -> number of the last epoch, of the components in training and validation."""
    logs = getattr(run, "history", run)
    if not isinstance(logs, Mapping):
        raise ValueError(
            "Each run must be a History, its logs, or a mapping component -> number. "
            f"Received: {run!r} of type {type(run).__name__}"
        )
    ends = {key: np.ravel(values)[-1] for key, values in logs.items() if np.size(values)}
    if not any(key.endswith("_loss") for key in ends):
        return {f"{key}_loss": value for key, value in ends.items()}
    parts = {key: end for key, end in ends.items() if key.endswith("_loss") and key != "val_loss"}
    return {k: end for k, end in parts.items() if is_component(k.removeprefix("val_"), logs)}


def _two_components(ends, x, y):
    """The names of the components to draw: the given ones, the others as they come."""
    if not ends:
        raise ValueError("`runs` must hold one run at least: {label: history}. Received: {}")
    names = list(
        dict.fromkeys(component_name(key.removeprefix("val_")) for key in next(iter(ends.values())))
    )
    given = [name if name is None or name in names else component_name(name) for name in (x, y)]
    # Of a nested composite the whole is drawn rather than its parts, which come before it.
    rest = iter(sorted((n for n in names if n not in given), key=lambda name: "/" in name))
    chosen = [next(rest, None) if name is None else name for name in given]
    if None in chosen or chosen[0] == chosen[1]:
        raise ValueError(
            "`runs` must have two components to draw one against the other. "
            f"Received: the components {names}, x={x!r}, y={y!r}"
        )
    return chosen


def _shared_key(ends, name):
    """The log key of a component that all runs have: of the validation if possible."""
    keys = (f"val_{name}_loss", f"{name}_loss")
    for key in keys:
        if all(key in end for end in ends.values()):
            return key
    label, end = next((label, end) for label, end in ends.items() if keys[1] not in end)
    raise ValueError(
        f"Every run must have the component '{name}'; choose others by x= and y=. "
        f"Received: run '{label}' with {[component_name(key) for key in end]}"
    )


def _dominated(points):
    """Whether another point is as low in every coordinate and lower in one; with NaN: no."""
    finite = np.isfinite(points).all(axis=1)
    as_low = (points[:, None] <= points).all(axis=2)
    lower = (points[:, None] < points).any(axis=2)
    return (as_low & lower & finite[:, None]).any(axis=0)


def _draw_run(ax, index, points, filled):
    """Draws the marker of one run; returns that of its legend."""
    from matplotlib.lines import Line2D

    colour, marker = pick(COLOURS, index), pick(MARKERS, index)
    style = {"marker": marker, "linestyle": "", "markeredgewidth": 0.8 if filled else 1.5}
    style["markerfacecolor"] = colour if filled else "white"
    style["markeredgecolor"] = "black" if filled else colour
    size = 12 if marker == "*" else 8
    if np.isfinite(points[index]).all():
        # Around those that follow at the same point, so that all are seen.
        over = (points[index + 1 :] == points[index]).all(axis=1).sum()
        ax.plot(*points[index], markersize=size + 5 * over, zorder=3, **style)
    return Line2D([], [], markersize=size, **style)
