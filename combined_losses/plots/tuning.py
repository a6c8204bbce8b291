"""Figures of a search: what each run reached, and which parameters matter."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from combined_losses.plots.runs import dominated, draw_front, pareto
from combined_losses.plots.style import COLOURS, MARKERS, add_legend, pick, spread_out, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#777777"


class Search(Protocol):
    """What is drawn: objectives, and runs as `combined_losses.tuning.Run` are."""

    objectives: tuple[Any, ...]
    references: list[Any]
    trials: list[Any]
    importances: Mapping[str, Mapping[str, float]]

    @property
    def finished(self) -> list[Any]: ...

    @property
    def pareto(self) -> list[Any]: ...


def search(found: Search, kind: str) -> "Figure":
    """The figure of a kind; see `SearchResult.plot`."""
    first = "front" if len(found.objectives) > 1 else "values"
    panels: dict[str, Callable[[Search, Axes], None]] = {
        first: _front if first == "front" else _values,
        "parallel": _parallel,
        "importance": _importance,
    }
    if kind != "overview" and kind not in panels:
        raise ValueError(f"`kind` must be 'overview' or one of {list(panels)}. Received: {kind!r}")
    if not found.finished:
        raise ValueError("There is nothing to draw: no run has a result. Received: no run")
    wanted = panels if kind == "overview" else {kind: panels[kind]}
    if kind == "overview" and len(found.trials[0].parameters if found.trials else ()) == 1:
        wanted = {first: panels[first], "one": _against_the_only}  # nothing to compare it with
    import matplotlib.pyplot as plt

    height = 4.2 * len(wanted) if kind == "overview" else 4.5
    figure = plt.figure(figsize=(7.5, height), layout="constrained")
    axes = np.ravel(figure.subplots(len(wanted), 1))
    for ax, draw in zip(axes, wanted.values(), strict=True):
        draw(found, ax)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _finished(runs: Iterable[Any]) -> list[Any]:
    """Those with a result."""
    return [run for run in runs if run.state == "finished"]


def _values(found: Search, ax: "Axes") -> None:
    """The objective of each trial in order, with its spread; references as lines."""
    from matplotlib.ticker import MaxNLocator

    objective = found.objectives[0]
    tried = [(i, run) for i, run in enumerate(found.trials) if run.state == "finished"]
    marked = _finished(found.references)
    handles: list[Any] = []
    for i, run in enumerate(marked):
        style = ("-", "--", ":")[i % 3]
        line = ax.axhline(
            run.values[objective.key], color=pick(COLOURS, i + 1), linestyle=style, label=run.name
        )
        handles.append(line)
    if tried:
        numbers, runs = zip(*tried, strict=True)
        means = [run.values[objective.key] for run in runs]
        spreads = [run.spreads[objective.key] for run in runs]
        errors = None if any(map(math.isnan, spreads)) else spreads
        handles.append(
            ax.errorbar(
                numbers, means, errors, fmt="o", markersize=4, elinewidth=0.8, color=COLOURS[0]
            )
        )
    spread_out(ax.set_yscale, np.array([run.values[objective.key] for run in found.finished]))
    ax.set_xlabel("trial")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel(wrap(str(objective), 30), parse_math=False)
    names = [run.name for run in marked]
    add_legend(ax, handles, [*names, "trials, with the spread over seeds"][: len(handles)])


def _front(found: Search, ax: "Axes") -> None:
    """The first objective against the second: all runs, the front joined, references marked."""
    goals = found.objectives[:2]
    names = {run.name for run in found.references}
    runs = [run for run in found.finished if run.name not in names]
    marked = [run for run in found.finished if run.name in names]
    points = [np.array([[run.values[g.key] for g in goals] for run in rs]) for rs in (runs, marked)]
    handles: list[Any] = []
    if runs:
        handles += ax.plot(*points[0].T, "o", markersize=4, color=COLOURS[0], alpha=0.6)
    for i, point in enumerate(points[1]):
        colour, marker = pick(COLOURS, i + 1), pick(MARKERS, i + 1)
        handles += ax.plot(*point, marker, markersize=9, color=colour, markeredgecolor="black")
    # The front in what is drawn: with more objectives other runs are not dominated either.
    signs = [goal.sign for goal in goals]
    drawn = np.concatenate([each.reshape(-1, 2) for each in points])
    handles.append(draw_front(ax, drawn[~dominated(np.array(signs) * drawn)], signs))
    ax.set_xlabel(wrap(str(goals[0]), 40), parse_math=False)
    ax.set_ylabel(wrap(str(goals[1]), 30), parse_math=False)
    labels = ["trials"] * bool(runs) + [run.name for run in marked]
    add_legend(ax, handles, [*labels, "Pareto front"])


def _parallel(found: Search, ax: "Axes") -> None:
    """A line for each trial through its parameters; the better it is, the darker."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    objective = found.objectives[0]
    runs = _finished(found.trials)
    names = list(runs[0].parameters) if runs else []
    if not names:
        _empty(ax, "no trial has a result")
        return
    values = np.array([objective.sign * run.values[objective.key] for run in runs])
    order = np.argsort(-values)  # the best on top
    ranks = np.empty(len(runs))
    ranks[order] = np.linspace(0, 1, len(runs))
    scaled = np.stack([_scaled(ax, i, name, runs) for i, name in enumerate(names)], axis=1)
    colours = colormaps["viridis_r"]
    for index in order:
        best = index == order[-1]
        ax.plot(
            range(len(names)),
            scaled[index],
            color=colours(ranks[index]),
            linewidth=2.5 if best else 1,
            marker="o",
            markersize=5 if len(names) == 1 else 0,
        )
    ax.set_xticks(range(len(names)), [wrap(name, 18) for name in names])
    ax.set_yticks([])
    ax.set_xlim(-0.3, len(names) - 0.7 + 0.5)
    ax.spines["left"].set_visible(False)
    bar = ax.figure.colorbar(ScalarMappable(Normalize(), colours), ax=ax, ticks=[0, 1])
    bar.set_ticklabels(["worst", "best"])
    bar.set_label(wrap(f"rank in {objective.key}", 25))


def _against_the_only(found: Search, ax: "Axes") -> None:
    """The first objective against the only parameter."""
    objective = found.objectives[0]
    runs = _finished(found.trials)
    if not runs:
        _empty(ax, "no trial has a result")
        return
    (name,) = runs[0].parameters
    given = [run.parameters[name] for run in runs]
    ax.plot(given, [run.values[objective.key] for run in runs], "o", markersize=5)
    if all(isinstance(value, float) for value in given):
        spread_out(ax.set_xscale, np.array(given))
    ax.set_xlabel(wrap(name, 40), parse_math=False)
    ax.set_ylabel(wrap(str(objective), 30), parse_math=False)


def _scaled(ax: "Axes", place: int, name: str, runs: Sequence[Any]) -> Any:
    """The values of one parameter on a scale from 0 to 1, drawn as an axis with its ends."""
    given = [run.parameters[name] for run in runs]
    ax.axvline(place, color=GREY, linewidth=0.8, zorder=0)
    if all(isinstance(value, float) and value > 0 for value in given):
        logs = np.log(given)
        low, high = logs.min(), logs.max()
        ticks = {0.0: f"{math.exp(low):.2g}", 1.0: f"{math.exp(high):.2g}"}
        scaled = (logs - low) / (high - low) if high > low else np.full(len(runs), 0.5)
    else:
        choices = list(dict.fromkeys(sorted(map(str, given))))
        places = np.linspace(0, 1, len(choices)) if len(choices) > 1 else [0.5]
        ticks = dict(zip(places, choices, strict=True))
        scaled = np.array([places[choices.index(str(value))] for value in given])
    for height, text in ticks.items():
        ax.annotate(
            text,
            (place, height),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    return scaled


def _importance(found: Search, ax: "Axes") -> None:
    """A bar for the share of each parameter in what moves each objective."""
    if not found.importances or not any(found.importances.values()):
        _empty(ax, "too few trials to say which parameter matters")
        return
    names = list(next(iter(found.importances.values())))
    width = 0.8 / len(found.importances)
    handles: list[Any] = []
    for i, (key, shares) in enumerate(found.importances.items()):
        places = np.arange(len(names)) + (i - (len(found.importances) - 1) / 2) * width
        lengths = [shares.get(name, 0.0) for name in names]
        handles.append(ax.barh(places, lengths, width * 0.9, color=pick(COLOURS, i), label=key))
    ax.set_yticks(range(len(names)), [wrap(name, 18) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("importance: share in what moves the objective")
    if len(handles) > 1:
        add_legend(ax, handles, list(found.importances))


def _empty(ax: "Axes", text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY)
    ax.set_axis_off()


class Compared(Protocol):
    """What `comparison` draws."""

    objectives: tuple[Any, ...]

    @property
    def differences(self) -> Mapping[str, Mapping[str, Any]]: ...


def comparison(found: Compared) -> "Figure":
    """The difference of each run to equal weights, with its interval; a panel an objective."""
    import matplotlib.pyplot as plt

    if not found.differences:
        raise ValueError("There is nothing to draw: nothing to compare has a result. Received: {}")
    count = len(found.objectives)
    height = 1.2 + 0.28 * len(found.differences)
    figure = plt.figure(figsize=(7.5, height * count), layout="constrained")
    for ax, goal in zip(np.ravel(figure.subplots(count, 1)), found.objectives, strict=True):
        gains = {name: of[goal.key] for name, of in found.differences.items()}
        ordered = sorted(gains.items(), key=lambda pair: pair[1].mean)
        for place, (_, gain) in enumerate(ordered):
            colour = COLOURS[2] if gain.low > 0 else COLOURS[1] if gain.high < 0 else GREY
            ax.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2)
            ax.plot(gain.mean, place, "o", color=colour, markersize=5)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(ordered)), [wrap(name, 30) for name, _ in ordered])
        ax.set_xlabel(
            f"better than equal weights in {goal.key} by (mean and 95 % interval)",
            parse_math=False,
        )
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def front(found: Any) -> "Figure":
    """`plots.pareto` of the runs of a front."""
    first, second = (goal.key for goal in found.objectives)
    names = [key.removeprefix("val_").removesuffix("_loss") for key in (first, second)]
    runs = {run.name: run.values for run in found.finished}
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(7, 6), layout="constrained")
    pareto(runs, figure.subplots(), x=names[0], y=names[1])
    return figure
