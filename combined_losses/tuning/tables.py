"""What is printed of trainings: a line for each, tables, and sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.results import Difference, Run


def number(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def parameters(run: Run) -> str:
    """`under=0.31, weighting=FAMO`; "–" where nothing was changed."""
    return ", ".join(f"{name}={number(value)}" for name, value in run.parameters.items()) or "–"


def with_spread(run: Run, objective: Objective) -> str:
    """The mean over seeds and, with several, the standard deviation."""
    if objective.key not in run.per_seed:
        return "–"
    mean, spread = run.values[objective.key], run.spreads[objective.key]
    return number(mean) if math.isnan(spread) else f"{number(mean)} ± {spread:.2g}"


def line_of(run: Run) -> str:
    """What is printed when a training has ended."""
    found = ", ".join(f"{key} {number(value)}" for key, value in run.values.items())
    return f"{run.name}: {parameters(run)} → {found or f'{run.state}: {run.note}'}"


def row(run: Run, objectives: Sequence[Objective]) -> dict[str, Any]:
    """The row of a data frame."""
    found: dict[str, Any] = dict(run.parameters)
    for objective in objectives:
        found[objective.key] = run.values.get(objective.key, math.nan)
        found[f"{objective.key} spread"] = run.spreads.get(objective.key, math.nan)
    seconds = run.seconds_per_step
    return {**found, "state": run.state, "note": run.note, "seconds_per_step": seconds}


def cells(
    runs: Sequence[Run], objectives: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table; the best of the first objective come first."""
    rows = [
        [run.name, *(with_spread(run, goal) for goal in objectives), parameters(run), ended(run)]
        for run in sorted(runs, key=lambda run: order(run, objectives[0]))
    ]
    return with_endings(["run", *map(str, objectives), "parameters", "ended"], rows)


def with_endings(head: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table, without its last column where that says nothing."""
    if any(row[-1] for row in rows):
        return head, rows
    return head[:-1], [row[:-1] for row in rows]


def order(run: Run, objective: Objective) -> float:
    """A number that is lower for a better run."""
    return objective.sign * run.values[objective.key] if run.per_seed else math.inf


def ended(run: Run) -> str:
    """How a run ended that has no result; "" for others."""
    return "" if run.state == "finished" else f"{run.state}: {run.note}"


def text(
    head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str], most: int = 30
) -> str:
    """A table in columns, and what it says."""
    shown = [head, *rows[:most]]
    widths = [max(len(line[i]) for line in shown) for i in range(len(head))]
    shown.insert(1, ["-" * width for width in widths])
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]
    left = len(rows) - most
    return "\n".join([*table, *([f"… and {left} more"] if left > 0 else []), "", *lines])


def interval(gain: Difference | None) -> str:
    """A difference with its interval; "–" where there is none."""
    if gain is None:
        return "–"
    if math.isnan(gain.low):
        return f"{gain.mean:+.3g}"
    return f"{gain.mean:+.3g} ({gain.low:+.3g} to {gain.high:+.3g})"


def named(objectives: Sequence[Objective]) -> str:
    return ", ".join(map(str, objectives))


def sentence_of(
    run: Run, gains: Mapping[str, Difference], confirmed: Mapping[str, Difference]
) -> str:
    """By how much the best run beats equal weights, and whether that is noise."""
    what = f"The best run is {run.name} ({parameters(run)})."
    if not gains:
        return f"{what} Equal weights have no result to compare it with."
    if run.name == "equal weights":
        return "No run beats equal weights."
    said = [what]
    for key, gain in (confirmed or gains).items():
        how = "With fresh seeds, which did not choose it, it" if confirmed else "It"
        said.append(f"{how} {_gain(key, gain)}: {_verdict(gain)}.")
        if confirmed and key in gains:
            said.append(f"With the seeds that chose it, the difference is {gains[key]}.")
    return " ".join(said)


def _gain(key: str, gain: Difference) -> str:
    beats = "beats" if gain.mean > 0 else "does not beat"
    found = f"{beats} equal weights in {key}: by {gain.mean:+.3g}"
    if math.isnan(gain.low):
        return found
    return f"{found} (95 % interval {gain.low:+.3g} to {gain.high:+.3g})"


def _verdict(gain: Difference) -> str:
    if math.isnan(gain.low):
        return "with one seed the noise is unknown"
    return "more than the noise over seeds" if gain.exceeds_noise else "not more than the noise"
