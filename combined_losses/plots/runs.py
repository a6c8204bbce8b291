"""A figure of several trainings: what each of them reached."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

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
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

LastValues: TypeAlias = dict[str, Any]  # log key -> number of the last epoch


def pareto(
    runs: Mapping[str, Any],
    ax: "Axes | None" = None,
    *,
    x: str | None = None,
    y: str | None = None,
) -> "Axes":
    """Draws what several runs reached: one component against another, a marker for each run.

    Use it to choose between weights. Filled markers, joined by a line, are the Pareto front: no
    other run is at least as good in both components and better in one of them. Hollow markers are
    runs that are dominated: for each there is such another run. A run that ended with NaN or inf
    appears in the legend only. Components are unweighted, and lower is better. An axis is
    logarithmic if its values are positive and differ by more than a factor of 30.

    Args:
        runs: label -> what `fit` returned, or its logs, of which the last epoch counts; or a
            mapping from component to number, such as `evaluate(return_dict=True)` returns.
        ax: the matplotlib axes to draw in; default: those of a new figure.
        x: the component on the horizontal axis; default: the first one of the first run.
        y: the component on the vertical axis; default: the next one. The values are those of
            validation (`val_<name>_loss`) if every run has them, otherwise those of training.

    Returns:
        The axes.

    Raises:
        ValueError: if there is no run, or a run lacks one of the two components.

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
    last_values = {str(label): _last_values(run) for label, run in dict(runs).items()}
    names = _two_components(last_values, x, y)
    keys = [_shared_key(last_values, name) for name in names]
    points = np.array([[last[key] for key in keys] for last in last_values.values()], float)
    finite = np.isfinite(points).all(axis=1)
    front = finite & ~dominated(points)
    is_new, ax = ax is None, ax or new_axes()
    line = draw_front(ax, points[front])
    handles = [_draw_run(ax, index, points, front[index]) for index in range(len(points))]
    scales, labellers = (ax.set_xscale, ax.set_yscale), (ax.set_xlabel, ax.set_ylabel)
    for axis, (name, key) in enumerate(zip(names, keys, strict=True)):
        spread_out(scales[axis], points[finite, axis])
        validation = " (validation)" if key.startswith("val_") else ""
        labellers[axis](wrap(name, 30) + validation, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(0.1)
    notes = np.where(front, "", np.where(finite, " (dominated)", " (not finite)"))
    labels = [f"{label}{note}" for label, note in zip(last_values, notes, strict=True)]
    add_legend(ax, [*handles, line], [*labels, "Pareto front"])
    if is_new:
        make_room(ax.figure)
    return ax


def draw_front(
    ax: "Axes", points: "NDArray[np.float64]", signs: Sequence[int] = (1, 1)
) -> "Line2D":
    """Joins the points of a Pareto front by a line; `signs` are -1 where higher is better."""
    steps = points[np.lexsort(points.T[::-1])]
    # From left to right: the next point is better in y only where it is reached, to the left of it
    # where higher is better in x.
    drawstyle = "steps-post" if signs[0] > 0 else "steps-pre"
    (line,) = ax.plot(*steps.T, drawstyle=drawstyle, color="#777777", linewidth=1, zorder=1)
    return line


def _last_values(run: Any) -> LastValues:
    """The numbers of the last epoch of a run, of its components in training and validation."""
    logs = getattr(run, "history", run)
    if not isinstance(logs, Mapping):
        raise ValueError(
            "Each run must be a History, its logs, or a mapping component -> number. "
            f"Received: {run!r} of type {type(run).__name__}"
        )
    last = {key: np.ravel(values)[-1] for key, values in logs.items() if np.size(values)}
    if not any(key.endswith("_loss") for key in last):
        return {f"{key}_loss": value for key, value in last.items()}
    losses = {key: v for key, v in last.items() if key.endswith("_loss") and key != "val_loss"}
    return {key: v for key, v in losses.items() if is_component(key.removeprefix("val_"), logs)}


def _names_in(log_keys: Iterable[str]) -> list[str]:
    """The names of the components with these log keys, each once, in order."""
    return list(dict.fromkeys(component_name(key.removeprefix("val_")) for key in log_keys))


def _two_components(
    last_values: Mapping[str, LastValues], x: str | None, y: str | None
) -> list[str]:
    """The names of the components to draw: x and y, or the next ones in order."""
    if not last_values:
        raise ValueError("`runs` must hold at least one run: {label: history}. Received: {}")
    names = _names_in(next(iter(last_values.values())))
    given = [name if name is None or name in names else component_name(name) for name in (x, y)]
    # The logs have the parts of a nested composite before the composite itself, which is preferred.
    rest = iter(sorted((n for n in names if n not in given), key=lambda name: "/" in name))
    candidates = [next(rest, None) if name is None else name for name in given]
    chosen = [name for name in candidates if name is not None]
    if len(chosen) < 2 or chosen[0] == chosen[1]:
        raise ValueError(
            "`runs` must have two components to draw one against the other. "
            f"Received: the components {names}, x={x!r}, y={y!r}"
        )
    return chosen


def _shared_key(last_values: Mapping[str, LastValues], name: str) -> str:
    """The log key of a component that all runs have: that of validation if possible."""
    keys = (f"val_{name}_loss", f"{name}_loss")
    for key in keys:
        if all(key in last for last in last_values.values()):
            return key
    label, last = next((label, last) for label, last in last_values.items() if keys[1] not in last)
    raise ValueError(
        f"Every run must have the component '{name}'; choose others by x= and y=. "
        f"Received: run '{label}' with {[component_name(key) for key in last]}"
    )


def dominated(points: "NDArray[np.float64]") -> "NDArray[np.bool_]":
    """For each point, whether another is as low in both coordinates and lower in one of them.

    A point that is not finite neither dominates nor is dominated.
    """
    finite: NDArray[np.bool_] = np.all(np.isfinite(points), axis=1)
    as_low = np.all(points[:, None] <= points, axis=2)
    lower = np.any(points[:, None] < points, axis=2)
    found: NDArray[np.bool_] = np.any(as_low & lower & finite[:, None], axis=0)
    return found


def _draw_run(ax: "Axes", index: int, points: "NDArray[np.float64]", filled: bool) -> "Line2D":
    """Draws the marker of one run; returns the marker for the legend."""
    from matplotlib.lines import Line2D

    colour, marker = pick(COLOURS, index), pick(MARKERS, index)
    style: dict[str, Any] = {
        "marker": marker,
        "linestyle": "",
        "markeredgewidth": 0.8 if filled else 1.5,
    }
    style["markerfacecolor"] = colour if filled else "white"
    style["markeredgecolor"] = "black" if filled else colour
    size = 12 if marker == "*" else 8
    if np.isfinite(points[index]).all():
        # Larger than the markers of later runs at the same point, so that all of them are visible.
        later = (points[index + 1 :] == points[index]).all(axis=1).sum()
        ax.plot(*points[index], markersize=size + 5 * later, zorder=3, **style)
    return Line2D([], [], markersize=size, **style)
