"""The demo's figures, drawn without a display."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from combined_losses import plots
from combined_losses.demo.comparison import Comparison
from combined_losses.demo.units import power_of_ten, put_power

STYLE: dict[Any, Any] = {"font.size": 12, "axes.titlesize": 12, "hatch.linewidth": 0.5}
ALONE, COMPOSITE = "#555555", "#0072B2"


def components(path: Path, result: Comparison) -> None:
    """Each component's curve, and its share of the loss."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_history(result, left, right)
        figure.suptitle(list(result.experiment.arms)[-1])
        figure.savefig(path, dpi=120)


def overview(path: Path, result: Comparison, errors: dict[str, np.ndarray], unit: str) -> None:
    """The components, their shares, and the errors of both arms: the picture of the README."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _draw_history(result, left, middle)
        _draw_errors(right, errors, unit)
        figure.savefig(path, dpi=130)


def _draw_history(result: Comparison, left: Axes, right: Axes) -> None:
    plots.components(result.history, left)
    left.set_title("Every component, from one pass")
    plots.shares(result.history, right)
    right.set_title("What the loss is made of")


def _draw_errors(ax: Axes, errors: dict[str, np.ndarray], unit: str) -> None:
    """Both arms' errors as outlines, with the share that is below zero."""
    limit = 1.05 * np.percentile(np.abs(np.concatenate(list(errors.values()))), 99)
    power = power_of_ten(limit)
    errors = {arm: values / 10.0**power for arm, values in errors.items()}
    limit /= 10.0**power
    bins = list(np.linspace(-limit, limit, 25))
    styles = ((ALONE, "--"), (COMPOSITE, "-"))
    ax.axvspan(-limit, 0, color="#F3F3F3", zorder=0)
    for (arm, values), (colour, line) in zip(errors.items(), styles, strict=True):
        label = f"{arm}: {100 * np.mean(values < 0):.0f} % underestimated"
        ax.hist(values, bins, histtype="step", lw=2, color=colour, ls=line, label=label)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlim(-limit, limit)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(put_power(f"predicted - true ({unit})", power), parse_math=False)
    ax.set_ylabel("held-out rows")
    ax.set_title("Errors on held-out data")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), handlelength=1.5, frameon=False)


def examples(path: Path, images: dict[str, np.ndarray]) -> None:
    """One row of images for each entry of `images`; dark pixels are stroke."""
    count = len(next(iter(images.values())))
    with rc_context(STYLE):
        figure = Figure(figsize=(2.6 + 1.1 * count, 1.15 * len(images)), layout="constrained")
        axes = figure.subplots(len(images), count)
        for row, (name, pictures) in zip(axes, images.items(), strict=True):
            for ax, picture in zip(row, pictures, strict=True):
                ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
            row[0].set_ylabel(name.replace(" + ", "\n+ "), rotation=0, ha="right", va="center")
        figure.savefig(path, dpi=110)
